"""A full disk, at every size: the old checkpoint stays, nothing half-made stays, the error names it.

A small tmpfs is a real file system that is really full; mounting one takes
root, so without it these tests are skipped with the reason.
"""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoint_samples import RUN, commit_step, parts

from supervisor.checkpoint.parts import Part
from supervisor.checkpoint.refusals import StorageError
from supervisor.checkpoint.verify import Intact, verify

PAGE = os.sysconf("SC_PAGE_SIZE")
PAGES = 128
FILE_BYTES = 5 * PAGE


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={PAGES * PAGE}", "none", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_at_every_size_it_is_an_error_or_a_checkpoint(small_disk: Path) -> None:
    commit_step(small_disk, 10)
    made_of = parts(20, size=FILE_BYTES)
    refused = 0
    for free in range(PAGES):
        leave_free(small_disk, free)
        outcome = attempt(small_disk, made_of)
        (small_disk / "ballast").unlink()
        assert isinstance(verify(small_disk / "checkpoint-10", RUN), Intact)
        if outcome is None:
            break
        refused += 1
        assert outcome.errno == errno.ENOSPC
        assert "checkpoint-20: no space left on device; free room" in str(outcome)
        assert os.listdir(small_disk) == ["checkpoint-10"]
    assert isinstance(verify(small_disk / "checkpoint-20", RUN), Intact)
    assert refused > sum(part.size for part in made_of) // PAGE, "it was refused at every size before"


def leave_free(disk: Path, pages: int) -> None:
    with (disk / "ballast").open("wb") as file:
        room = os.statvfs(disk).f_bavail - pages
        if room > 0:
            os.posix_fallocate(file.fileno(), 0, room * PAGE)


def attempt(disk: Path, made_of: list[Part]) -> StorageError | None:
    try:
        commit_step(disk, 20, made_of=made_of)
    except StorageError as error:
        return error
    return None


def test_room_is_taken_before_the_first_byte_is_asked_for(small_disk: Path) -> None:
    asked = []
    large = Part("rank-1.safetensors", PAGES * PAGE * 2, lambda: iter(asked.append("pieces") or ()))
    with pytest.raises(StorageError, match="no space left"):
        commit_step(small_disk, 20, made_of=[large])
    assert asked == []
