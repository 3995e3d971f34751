"""Processes of an attempt: started with signals blocked, found by a marker, killed until none is left.

Ranks live in sessions of their own and can be forked while their parent is being killed, so
neither a process group nor one walk of the tree finds them all. Everything an attempt
starts inherits a marker in its environment, and a kill is over when a scan finds nothing.

What this does not protect against: a process that clears its environment, or one of another
user; a process that the kernel cannot kill because it waits for a dead disk.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from supervisor.launch import tether

_PR_SET_CHILD_SUBREAPER = 36

#: Blocked in everything an attempt starts. Schedulers send these to every process of a job;
#: ignoring them would not do, since torch's data-loader workers install a handler of their own.
BLOCKED = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})


def adopt_orphans() -> None:
    """Make this process the parent of what its children leave behind.

    torch's agent puts each worker into its own session, and a launcher that dies leaves them
    running. Source: prctl(2), PR_SET_CHILD_SUBREAPER.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Whatever is started inside inherits the mask; signals to this process wait until the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def spawn(command: list[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, tied to this process, its output in a file.

    Args:
        command: argument list.
        environment: all of it.
        log: appended to.

    Raises:
        OSError: it could not be started.
    """
    tied = [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *command]
    log.touch(mode=0o600)
    with log.open("ab") as output, signals_blocked():
        return subprocess.Popen(
            tied,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def marked(marker: str, *, prefix: bool = False, proc: Path = Path("/proc")) -> list[int]:
    """Pids of living processes whose environment holds `marker`.

    Args:
        marker: such as ``SUPERVISOR_MARKER=<run id>/<attempt>``.
        prefix: whether it may go on: ``run/1`` is then found in ``run/10``, too.
        proc: where processes are listed.
    """
    wanted, found = marker.encode() + (b"" if prefix else b"\0"), []
    own = os.getpid()
    for entry in os.listdir(proc):  # noqa: PTH208 - plain names, many times a second while killing
        if not entry.isdigit() or int(entry) == own:
            continue
        try:
            environment = (proc / entry / "environ").read_bytes()
        except OSError:
            continue  # gone, or another user's
        if environment.startswith(wanted) or b"\0" + wanted in environment:
            found.append(int(entry))
    return found


def kill(pids: Collection[int]) -> None:
    """SIGKILL each; those that are gone are no error."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def reap() -> dict[int, int]:
    """Collect children that have ended, adopted ones included: pid to wait status."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


class Children:
    """How the children ended that somebody waits for, though whoever looks first reaps them all."""

    def __init__(self) -> None:
        self._status: dict[int, int | None] = {}

    def expect(self, pid: int) -> None:
        """Remember how this child ends."""
        self._status[pid] = None

    def status(self, pid: int) -> int | None:
        """Its wait status; None while it lives."""
        for ended, status in reap().items():
            if ended in self._status:
                self._status[ended] = status
        return self._status.get(pid)

    def forget(self, pid: int) -> None:
        """Nobody waits for it any more; its number may be used again."""
        self._status.pop(pid, None)


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port of an address of this machine that nothing listens on now, for one rendezvous.

    What this does not protect against: another program that takes it first. Then the attempt
    fails to meet and the next one asks for another port.
    """
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
