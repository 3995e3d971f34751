"""A disk that errs, at every call: what could not be written is not there, what could not be read is unknown.

strace makes the kernel answer a chosen call with an error; where it is missing
or not permitted these tests are skipped with the reason.
"""

import errno
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from checkpoint_samples import RUN, commit_step, python, tree

from supervisor.checkpoint.refusals import naming
from supervisor.checkpoint.verify import Intact, verify

MARK = "/here-it-begins"
BEGIN = f"""
import json, os, sys
from pathlib import Path
from checkpoint_samples import RUN, commit_step
from supervisor.checkpoint.refusals import StorageError
from supervisor.checkpoint.verify import verify

root = Path(sys.argv[1])

def mark():
    try:
        os.open({MARK!r}, os.O_RDONLY)
    except FileNotFoundError:
        pass

mark()
"""
COMMIT = (
    BEGIN
    + """
try:
    outcome = str(commit_step(root, 20).path)
except StorageError as error:
    outcome = error.errno
mark()
print(json.dumps(outcome), file=sys.stderr)
os._exit(0)
"""
)
VERIFY = (
    BEGIN
    + """
verdict = verify(root / "checkpoint-10", RUN)
mark()
told = [getattr(verdict, name, None) for name in ("reason", "passing")]
print(json.dumps([type(verdict).__name__, *told]), file=sys.stderr)
os._exit(0)
"""
)


@pytest.fixture(scope="module", autouse=True)
def _strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed, so the kernel cannot be made to err")
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"strace is not permitted here: {tried.stderr.strip()}")


def calls_of(program: str, root: Path, names: str) -> list[tuple[str, int]]:
    """Each call that the program makes between its marks, by name and number since the process began."""
    log = root.parent / "calls"
    python(program, root, before=("strace", "-e", f"trace=openat,{names}", "-o", str(log)))
    seen: Counter[str] = Counter()
    calls, marks = [], 0
    for line in log.read_text().splitlines():
        name = re.split(r"\W", line, maxsplit=1)[0]
        seen[name] += 1
        marks += MARK in line
        if marks == 1 and MARK not in line and name in names.split(","):
            calls.append((name, seen[name]))
    return calls


def outcome_of(program: str, root: Path, call: tuple[str, int], error: str) -> object:
    name, number = call
    inject = ("strace", "-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={name}:error={error}:when={number}")
    child = python(program, root, before=inject)
    try:
        return json.loads(child.stderr.splitlines()[-1])
    except (IndexError, ValueError):
        raise AssertionError(f"{call} {error}: {child.stderr}") from None


@pytest.mark.parametrize(
    ("names", "error"),
    [("fallocate,write", "ENOSPC"), ("fsync,openat,newfstatat", "EIO"), ("mkdir,rename,preadv", "EROFS")],
)
def test_a_commit_that_meets_an_error_at_any_call_is_whole_or_absent(tmp_path: Path, names: str, error: str) -> None:
    dry = tmp_path / "dry"
    commit_step(dry, 10)
    calls = calls_of(COMMIT, dry, names)
    refused = 0
    for call in calls:
        root = tmp_path / "-".join(map(str, call))
        commit_step(root, 10)
        outcome = outcome_of(COMMIT, root, call, error)
        assert isinstance(verify(root / "checkpoint-10", RUN), Intact)
        there = (root / "checkpoint-20").exists()
        if isinstance(outcome, str):  # it went on, for the call was not vital
            assert there, call
        else:
            assert outcome == getattr(errno, error), call
            refused += 1
        if there:
            assert isinstance(verify(root / "checkpoint-20", RUN), Intact), call
    assert refused > 0


def test_a_file_system_without_fallocate_is_written_all_the_same(tmp_path: Path) -> None:
    for error in ("EOPNOTSUPP", "ENOSYS"):
        root = tmp_path / error
        root.mkdir()
        assert outcome_of(COMMIT, root, ("fallocate", 1), error) == str(root / "checkpoint-20")


def test_writes_that_are_cut_short_go_on(tmp_path: Path) -> None:
    """A limit on the file's size, where no room was taken before, cuts a write short before it refuses."""
    limited = COMMIT.replace(
        "root = Path(sys.argv[1])",
        "root = Path(sys.argv[1])\nimport resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))",
    )
    inject = ("strace", "-o", "/dev/null", "-e", "trace=fallocate", "-e", "inject=fallocate:error=EOPNOTSUPP")
    child = python(limited, tmp_path, before=inject)
    assert json.loads(child.stderr.splitlines()[-1]) == errno.EFBIG
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("error", ["EIO", "ESTALE", "EACCES", "ETIMEDOUT"])
def test_what_cannot_be_read_is_unknown_and_never_torn(tmp_path: Path, error: str) -> None:
    root = tmp_path / "checkpoints"
    commit_step(root, 10)
    before = tree(root)
    calls = calls_of(VERIFY, root, "openat,newfstatat,preadv")
    every = calls if error == "EIO" else calls[:: len(calls) // 4]
    for call in every:
        kind, reason, passing = outcome_of(VERIFY, root, call, error)
        assert kind == "Unreadable", (call, kind, reason)
        assert os.strerror(getattr(errno, error)).lower() in reason
        assert passing == (error != "EACCES"), "a server comes back, a right does not"
    assert tree(root) == before


def test_the_remedy_says_what_a_person_can_do() -> None:
    def refused(number: int) -> str:
        with pytest.raises(Exception, match="committing x") as error, naming("committing x"):
            raise OSError(number, os.strerror(number))
        return str(error.value)

    assert refused(errno.EDQUOT).endswith("free room under your quota there")
    assert refused(errno.EROFS).endswith("have the file system mounted writable again")
    assert refused(errno.EIO).endswith("see what the system log says about that file system")
