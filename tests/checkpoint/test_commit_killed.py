"""A commit is killed before every file-system call it makes; none may leave a torn checkpoint."""

import errno
import json
import os
import signal
from pathlib import Path

import pytest
from checkpoint_samples import RUN, commit_step, contents, killed_everywhere, python

from supervisor.checkpoint.sweep import sweep_partials
from supervisor.checkpoint.verify import Intact, verify


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for each call that a commit was killed before; in the last it lived."""
    root = tmp_path_factory.mktemp("killed")
    killed_everywhere(root, prepare="commit_step(here, 10)", act="commit_step(here, 20)")
    return root


def roots(killed: Path) -> list[Path]:
    return sorted((path for path in killed.iterdir() if path.is_dir()), key=lambda path: int(path.name))


def test_death_at_every_call_leaves_all_or_nothing(killed: Path) -> None:
    outcomes = []
    for root in roots(killed):
        committed = {path.name: verify(path, RUN) for path in root.iterdir() if path.name.startswith("checkpoint-")}
        assert isinstance(committed["checkpoint-10"], Intact), root
        assert isinstance(committed.get("checkpoint-20", committed["checkpoint-10"]), Intact), root
        outcomes.append("checkpoint-20" in committed)
    assert outcomes == sorted(outcomes), "once it is there it stays"
    assert outcomes[0] is False
    assert outcomes[-1] is True
    assert len(outcomes) > 40, "the child really counted the calls"


def test_what_the_dead_left_is_swept_and_the_next_commit_succeeds(killed: Path) -> None:
    for root in roots(killed):
        swept = sweep_partials(root)
        assert swept.problems == ()
        assert {path.name for path in root.iterdir()} <= {"checkpoint-10", "checkpoint-20"}
        assert isinstance(verify(commit_step(root, 20).path, RUN), Intact)


def test_everything_is_synced_before_the_rename_and_the_name_after_it(killed: Path) -> None:
    calls = json.loads((killed / "calls.json").read_text())["calls"]
    rename = calls.index("rename")
    assert calls.count("rename") == 1
    files = len(contents(20)) + 1
    last_write = len(calls) - 1 - calls[::-1].index("write")
    assert calls[:rename].count("fsync") == files + 1, "every file, the manifest, and the directory"
    assert "fsync" in calls[last_write:rename]
    assert "write" not in calls[rename:]
    assert "fsync" in calls[rename:]


def test_no_audited_call_escapes_the_count(killed: Path) -> None:
    seen = json.loads((killed / "calls.json").read_text())
    for name in set(seen["audited"]):
        assert seen["calls"].count(name) >= seen["audited"].count(name), name


FILE_SIZE = """
import os, resource, signal, sys
from pathlib import Path
from checkpoint_samples import commit_step
from supervisor.checkpoint.refusals import StorageError

root, limit, action = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
signal.signal(signal.SIGXFSZ, signal.SIG_DFL if action == "die" else signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    commit_step(root, 20)
except StorageError as error:
    os._exit(error.errno)
"""


@pytest.mark.parametrize("limit", [0, 1, 100, 250, 400, 700])
def test_a_file_size_limit_kills_or_is_an_error(tmp_path: Path, limit: int) -> None:
    """The largest file is the manifest, with 728 bytes."""
    commit_step(tmp_path, 10)
    died = python(FILE_SIZE, tmp_path, limit, "die")
    assert died.returncode == -signal.SIGXFSZ
    assert isinstance(verify(tmp_path / "checkpoint-10", RUN), Intact)
    assert not (tmp_path / "checkpoint-20").exists()
    sweep_partials(tmp_path)
    refused = python(FILE_SIZE, tmp_path, limit, "refuse")
    assert refused.returncode == errno.EFBIG, refused.stderr
    assert os.listdir(tmp_path) == ["checkpoint-10"]
