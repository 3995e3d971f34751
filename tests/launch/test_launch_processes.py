"""Real processes: signals blocked for the whole tree, nothing outlives its parent, nothing escapes the scan."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import until

from supervisor.launch.processes import BLOCKED, free_port, kill, marked, spawn

MASKS = r"""
import os, subprocess, sys
from pathlib import Path
def mask():
    told = Path("/proc/self/status").read_text()
    return next(x.split()[1] for x in told.splitlines() if x.startswith("SigBlk"))
print("own", mask(), os.getsid(0) == os.getpid(), flush=True)
if os.fork() == 0:
    print("forked", mask(), flush=True)
    os._exit(0)
os.wait()
subprocess.run(["grep", "SigBlk", "/proc/self/status"])
"""

#: Marked, in a session of its own, its parent gone: as torch's workers are when the agent was killed.
#: Each line in one write: two processes share the log, and `print` writes piecewise if Python is unbuffered.
ESCAPED = r"""
import os, signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(1, b"escaped %d\n" % os.getpid())
        signal.pause()
    os._exit(0)
os.wait()
os.write(1, b"launcher %d\n" % os.getpid())
signal.pause()
"""

SUPERVISOR = """
import os, sys
from pathlib import Path
from supervisor.launch.processes import adopt_orphans, kill, marked, reap, spawn
adopt_orphans()
marker = sys.argv[1]
child = spawn([sys.executable, "-c", sys.argv[3]], {**os.environ, "SUPERVISOR_MARKER": marker}, Path(sys.argv[2]))
print(child.pid, flush=True)
sys.stdin.readline()
ended = {}
while marked(f"SUPERVISOR_MARKER={marker}") or len(ended) < 2:
    kill(marked(f"SUPERVISOR_MARKER={marker}"))
    ended |= reap()
print(sorted((pid, os.waitstatus_to_exitcode(status)) for pid, status in ended.items()), flush=True)
try:
    os.waitpid(-1, os.WNOHANG)
    print("somebody is left")
except ChildProcessError:
    print("nobody is left")
"""


@pytest.fixture
def marker() -> Iterator[str]:
    one = f"test-{uuid.uuid4().hex}/1"
    yield one
    for parent in _parents:
        parent.kill()
        parent.communicate()
    _parents.clear()
    kill(marked(f"SUPERVISOR_MARKER={one}"))


def word(log: Path, name: str) -> str:
    def there() -> str | None:
        lines = log.read_text().splitlines() if log.exists() else []
        return next((x for x in lines if x.startswith(name + " ")), None)

    return until(there, f"word {name}").removeprefix(name).strip()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def bits(signums: frozenset[signal.Signals]) -> int:
    return sum(1 << (signum - 1) for signum in signums)


def test_the_whole_tree_inherits_the_blocked_signals_and_the_output(tmp_path: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    log = tmp_path / "log"
    log.write_text("earlier words\n")
    child = spawn([sys.executable, "-c", MASKS], os.environ, log)
    assert child.wait(timeout=180) == 0
    first, own, forked, executed = log.read_text().splitlines()
    assert first == "earlier words"
    assert own.split()[2] == "True"  # leads a session of its own
    for line in (own, forked, executed):
        assert int(line.split()[1], 16) & bits(BLOCKED) == bits(BLOCKED)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


DELAYED = """
import os, signal
from supervisor.launch.processes import BLOCKED, signals_blocked
caught = []
for signum in BLOCKED:
    signal.signal(signum, lambda signum, frame: caught.append(signum))
with signals_blocked():
    for signum in BLOCKED:
        os.kill(os.getpid(), signum)
    print(len(caught))
print(len(caught))
"""


def test_a_signal_that_comes_while_signals_are_blocked_is_delivered_afterwards() -> None:
    """In a process of its own: with other threads about, one of them would take it."""
    done = subprocess.run([sys.executable, "-c", DELAYED], check=True, capture_output=True, text=True, timeout=180)
    assert done.stdout == "0\n5\n"


def test_a_command_that_is_not_there_ends_at_once_and_says_so(tmp_path: Path) -> None:
    child = spawn(["/no/such/program"], os.environ, tmp_path / "log")
    assert child.wait(timeout=180) != 0
    assert "No such file" in (tmp_path / "log").read_text()


#: Supervisors of the test under way; one that waits for what never comes must not outlive it.
_parents: list[subprocess.Popen[str]] = []


def supervisor(marker: str, log: Path, program: str) -> subprocess.Popen[str]:
    parent = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, marker, str(log), program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    _parents.append(parent)
    return parent


def test_what_was_spawned_dies_with_whoever_spawned_it(tmp_path: Path, marker: str) -> None:
    parent = supervisor(marker, tmp_path / "log", ESCAPED)
    assert parent.stdout is not None
    launcher = int(parent.stdout.readline())
    assert int(word(tmp_path / "log", "launcher")) == launcher
    assert alive(launcher)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    until(lambda: not alive(launcher), "end of the launcher")


def test_a_scan_finds_what_is_in_other_sessions_and_orphans_are_reaped(tmp_path: Path, marker: str) -> None:
    parent = supervisor(marker, tmp_path / "log", ESCAPED)
    assert parent.stdout is not None
    launcher = int(parent.stdout.readline())
    escaped = int(word(tmp_path / "log", "escaped"))
    word(tmp_path / "log", "launcher")
    assert set(marked(f"SUPERVISOR_MARKER={marker}")) == {launcher, escaped}
    assert set(marked(f"SUPERVISOR_MARKER={marker.partition('/')[0]}/", prefix=True)) == {launcher, escaped}
    assert os.getsid(escaped) != os.getsid(launcher)
    assert Path(f"/proc/{escaped}/stat").read_text().rpartition(")")[2].split()[1] == str(parent.pid)  # adopted
    said, _ = parent.communicate("\n", timeout=180)
    assert said.splitlines() == [str(sorted([(launcher, -9), (escaped, -9)])), "nobody is left"]


def test_only_a_whole_variable_is_a_marker(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    environments = {
        "11": b"A=1\0SUPERVISOR_MARKER=run/1\0B=2\0",
        "12": b"SUPERVISOR_MARKER=run/10\0",
        "13": b"NOT_SUPERVISOR_MARKER=run/1\0",
        "14": b"A=SUPERVISOR_MARKER=run/1\0",
        "15": b"",
        "self": b"SUPERVISOR_MARKER=run/1\0",
        str(os.getpid()): b"SUPERVISOR_MARKER=run/1\0",
    }
    for name, environment in environments.items():
        (proc / name).mkdir(parents=True)
        (proc / name / "environ").write_bytes(environment)
    (proc / "16").mkdir()  # gone between the listing and the look
    assert marked("SUPERVISOR_MARKER=run/1", proc=proc) == [11]
    assert sorted(marked("SUPERVISOR_MARKER=run/", prefix=True, proc=proc)) == [11, 12]


def test_killing_what_is_gone_is_no_error() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    kill([gone.pid])


def test_a_free_port_can_be_listened_on() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", free_port()))
        one.listen()


CHILDREN = """
import os, sys
from pathlib import Path
from supervisor.launch.processes import Children, spawn
children = Children()
log = Path(sys.argv[1])
pids = [spawn([sys.executable, "-c", f"raise SystemExit({code})"], os.environ, log).pid for code in (3, 4)]
for pid in pids:
    children.expect(pid)
while children.status(pids[0]) is None or children.status(pids[1]) is None:
    pass
print([os.waitstatus_to_exitcode(children.status(pid)) for pid in pids])
children.forget(pids[0])
print(children.status(pids[0]))
"""


def test_whoever_reaps_first_the_end_of_a_child_is_told_to_whom_it_concerns(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILDREN, str(tmp_path / "log")], check=True, capture_output=True, text=True, timeout=180
    )
    assert done.stdout.splitlines() == ["[3, 4]", "None"]
