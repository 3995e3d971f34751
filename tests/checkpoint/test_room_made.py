"""A full disk: what a run can do without goes, once; the newest and its fall-back never do."""

import errno
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoint_samples import RUN, commit_step, python
from crowded import OLD, PAGE, STAY, commit_with_room, four, let_go
from disks import tmpfs

from supervisor.checkpoint.refusals import StorageError
from supervisor.checkpoint.verify import Intact, verify
from supervisor.checkpoint.writers import TRASH, unfinished_name
from supervisor.engine.state.full_disk import StillFullError, with_room

PAGES = 256


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "disk", f"size={PAGES * PAGE}") as disk:
        yield disk


def fill_up(disk: Path, pages: int) -> Path:
    """Leave so many pages free."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        room = os.statvfs(disk).f_bavail - pages
        if room > 0:
            os.posix_fallocate(file.fileno(), 0, room * PAGE)
    return ballast


def names(checkpoints: Path) -> list[str]:
    return sorted(path.name for path in checkpoints.iterdir() if path.name != "ballast")


def test_at_every_size_a_full_disk_gives_what_the_run_can_do_without(small_disk: Path) -> None:
    gave, outcomes = tuple(f"checkpoint-{step}" for step in OLD), []
    for pages in range(0, 30, 2):
        four(small_disk)
        ballast = fill_up(small_disk, pages)
        done = commit_with_room(small_disk)
        ballast.unlink()
        outcomes.append(done.gave)
        assert done.gave in ((), gave)
        assert names(small_disk) == sorted({f"checkpoint-{step}" for step in (*OLD, *STAY, 50)} - {*done.gave})
        for name in names(small_disk):
            assert isinstance(verify(small_disk / name, RUN), Intact)
            shutil.rmtree(small_disk / name)
    assert outcomes[0] == gave
    assert outcomes[-1] == ()


def test_where_that_is_not_enough_it_is_said_and_the_newest_and_its_fall_back_stay(small_disk: Path) -> None:
    four(small_disk)
    fill_up(small_disk, 0)
    said = "checkpoint-50: no space left on device, although checkpoint-10, checkpoint-20 went to make room; free room"
    with pytest.raises(StillFullError, match=said) as refused:
        commit_with_room(small_disk, size=20 * PAGE)
    assert refused.value.errno == errno.ENOSPC
    assert names(small_disk) == [f"checkpoint-{step}" for step in STAY]
    with pytest.raises(StorageError):
        commit_with_room(small_disk, size=20 * PAGE)
    assert [isinstance(verify(small_disk / name, RUN), Intact) for name in names(small_disk)] == [True, True]


@pytest.mark.parametrize("step", STAY)
def test_nothing_goes_while_one_of_those_that_stay_does_not_hold_what_it_promises(small_disk: Path, step: int) -> None:
    four(small_disk)
    hurt = small_disk / f"checkpoint-{step}" / "optimizer.safetensors"
    data = bytearray(hurt.read_bytes())
    data[-1] ^= 1
    hurt.write_bytes(data)
    fill_up(small_disk, 0)
    with pytest.raises(StorageError, match="no space left on device; free room"):
        commit_with_room(small_disk)
    assert names(small_disk) == [f"checkpoint-{step}" for step in (*OLD, *STAY)]


def test_what_was_deleted_and_is_not_gone_yet_goes_first(small_disk: Path) -> None:
    commit_step(small_disk, 40)
    trash = small_disk / unfinished_name(TRASH, "checkpoint-30")
    trash.mkdir()
    (trash / "optimizer.safetensors").write_bytes(bytes(60 * PAGE))
    fill_up(small_disk, 0)
    assert commit_with_room(small_disk).gave == (trash.name,)
    assert names(small_disk) == ["checkpoint-40", "checkpoint-50"]


def test_what_fails_for_another_reason_is_not_tried_again(tmp_path: Path) -> None:
    four(tmp_path)
    tries = []

    def work() -> None:
        tries.append(1)
        raise StorageError("committing x: input/output error", "see the log", errno.EIO)

    with pytest.raises(StorageError, match="input/output"):
        with_room(work, tmp_path, RUN, let_go(tmp_path))
    assert (len(tries), len(names(tmp_path))) == (1, 4)


MARK = "/here-it-begins"
COMMIT = f"""
import json, os, sys
from pathlib import Path
from crowded import commit_with_room

try:
    os.open({MARK!r}, os.O_RDONLY)
except FileNotFoundError:
    pass
print(json.dumps(commit_with_room(Path(sys.argv[1])).gave), file=sys.stderr)
os._exit(0)
"""
WRITES = ("mkdir", "fallocate", "write", "fsync", "rename")


def writes_of_a_commit(root: Path) -> dict[str, list[int]]:
    """Which calls of each kind, by number since the process began, a commit makes."""
    log = root.parent / "calls"
    python(COMMIT, root, before=("strace", "-e", f"trace=openat,{','.join(WRITES)}", "-o", str(log)))
    seen: Counter[str] = Counter()
    calls: dict[str, list[int]] = {name: [] for name in WRITES}
    begun = False
    for line in log.read_text().splitlines():
        name = re.split(r"\W", line, maxsplit=1)[0]
        seen[name] += 1
        begun = begun or MARK in line
        if begun and name in calls and not line.startswith("write(2,"):
            calls[name].append(seen[name])
    return calls


@pytest.fixture
def _strace() -> None:
    tried = None
    if shutil.which("strace") is not None:
        tried = subprocess.run(["strace", "-o", "/dev/null", "true"], check=False, capture_output=True)
    if tried is None or tried.returncode != 0:
        pytest.skip("strace is missing or not permitted, so the kernel cannot be made to refuse")


@pytest.mark.usefixtures("_strace")
def test_where_a_quota_refuses_even_to_rename_what_has_to_go_is_removed_in_its_place(tmp_path: Path) -> None:
    room = writes_of_a_commit(four(tmp_path / "dry"))["fallocate"][0]
    root = four(tmp_path / "met")
    refused = (f"inject=fallocate:error=EDQUOT:when={room}", f"inject=rename:error=EDQUOT:when=1..{len(OLD)}")
    before = ("strace", "-o", "/dev/null", "-e", "trace=fallocate,rename", "-e", refused[0], "-e", refused[1])
    child = python(COMMIT, root, before=before)
    assert child.stderr.splitlines()[-1] == json.dumps([f"checkpoint-{step}" for step in OLD]), child.stderr
    assert names(root) == [f"checkpoint-{step}" for step in (*STAY, 50)]
    assert all(isinstance(verify(root / name, RUN), Intact) for name in names(root))


@pytest.mark.usefixtures("_strace")
def test_each_kind_of_write_may_be_refused_for_want_of_room_and_is_made_after_all(tmp_path: Path) -> None:
    calls = writes_of_a_commit(four(tmp_path / "dry"))
    chosen = [(name, numbers[0], "ENOSPC") for name, numbers in calls.items()]
    for name, number, error in (
        *chosen,
        ("write", calls["write"][-1], "ENOSPC"),
        ("fsync", calls["fsync"][0], "EDQUOT"),
    ):
        root = four(tmp_path / f"{name}-{number}-{error}")
        inject = ("strace", "-o", "/dev/null", "-e", f"trace={name}")
        child = python(COMMIT, root, before=(*inject, "-e", f"inject={name}:error={error}:when={number}"))
        assert child.stderr.splitlines()[-1] == json.dumps([f"checkpoint-{step}" for step in OLD]), child.stderr
        assert names(root) == [f"checkpoint-{step}" for step in (*STAY, 50)], (name, number)
        assert isinstance(verify(root / "checkpoint-50", RUN), Intact)
