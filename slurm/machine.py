"""Processes, ports and control groups of this machine, as the one-machine SLURM needs them."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PATIENCE_S = 60.0

#: Below the range from which the kernel takes ports of its own [ip(7), ip_local_port_range 32768-60999],
#: so that no client's socket takes a port between our look and the daemon's bind.
PORTS = (15_000, 32_000)


@dataclass(frozen=True)
class Process:
    """A living process.

    Attributes:
        started: clock ticks from boot to its start; with the pid it names one process and no later one.
    """

    pid: int
    started: int
    parent: int
    name: str
    words: tuple[str, ...]
    environment: frozenset[str]


def processes() -> Iterator[Process]:
    """Every process that lives, this one aside; zombies have ended."""
    for path in Path("/proc").glob("[0-9]*"):
        found = _process(int(path.name))
        if found is not None and found.pid != os.getpid():
            yield found


def below(roots: Iterable[Process], everything: list[Process]) -> set[Process]:
    """These and all that they have started, as far as parenthood shows it."""
    children: dict[int, list[Process]] = {}
    for process in everything:
        children.setdefault(process.parent, []).append(process)
    found: set[Process] = set()
    waiting = list(roots)
    while waiting:
        process = waiting.pop()
        if process not in found:
            found.add(process)
            waiting += children.get(process.pid, [])
    return found


def end(ours: Callable[[list[Process]], Iterable[Process]], signum: signal.Signals = signal.SIGKILL) -> bool:
    """Signal what `ours` finds among all processes until it finds none; say whether that came about.

    The youngest first: a child that is stopped when its parent dies gets SIGHUP and SIGCONT [setpgid(2)], at
    which a dying node's srun would have the tasks of all other nodes killed.
    """

    def gone() -> bool:
        found = sorted(ours(list(processes())), key=lambda one: (one.started, one.pid), reverse=True)
        for process in found:
            _send(process, signum)
        return not found

    return until(gone)


def freeze(ours: Callable[[list[Process]], Iterable[Process]]) -> None:
    """Stop what `ours` finds among all processes, until it finds no other: none of them sees another's end."""
    frozen: set[Process] = set()
    while found := set(ours(list(processes()))) - frozen:
        for process in found:
            _send(process, signal.SIGSTOP)
        frozen |= found


def holders(socket_paths: str) -> set[int]:
    """Pids that have a unix socket open whose path begins so."""
    table = Path("/proc/net/unix").read_text().splitlines()
    inodes = {f"socket:[{line.split()[6]}]" for line in table if line.split()[-1].startswith(socket_paths)}
    found: set[int] = set()
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        try:
            if any(str(fd.readlink()) in inodes for fd in (process / "fd").iterdir()):
                found.add(int(process.name))
        except OSError:
            continue
    return found


def free_ports(count: int) -> tuple[int, ...]:
    """Ports of the loopback that nobody listens on; by chance, so that two callers get different ones."""
    found: set[int] = set()
    while len(found) < count:
        port = random.randint(*PORTS)  # noqa: S311 - no secret
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.add(port)
    return tuple(found)


def memory_mb() -> int:
    """Of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def make_group(links: Path, controller: str) -> str | None:
    """A new control group (version 1) for us alone, as a link of the controller's name; or why that cannot be.

    Below the group of this process, so that a container's own limits go on to hold.
    """
    try:
        group = Path(tempfile.mkdtemp(prefix="slurm-cluster-", dir=_own_group(controller)))
        (links / controller).symlink_to(group)
        group.chmod(0o755)  # a job may read how much it has used, and whether it was killed
        if controller == "memory":
            (group / "memory.limit_in_bytes").write_text("-1")
    except OSError as error:
        return f"{controller}: {error.strerror or error}"
    return None


def remove_groups(links: Path) -> None:
    """The control groups that these links lead to, once their processes are gone, and the links."""
    for link in links.glob("*"):
        group = link.resolve()

        def removed(group: Path = group) -> bool:
            for one in [*sorted(group.rglob("*/"), reverse=True), group]:
                try:
                    one.rmdir()
                except OSError:
                    continue  # still held; what could not be removed is tried again
            return not group.exists()

        until(removed)
    shutil.rmtree(links, ignore_errors=True)


def until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
    """Wait for a condition; say whether it came."""
    end_s = time.monotonic() + patience_s
    while time.monotonic() < end_s:
        if condition():
            return True
        time.sleep(0.1)
    return False


def ran(*command: str) -> subprocess.CompletedProcess[str]:
    """A command that has ended, with what it said."""
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def _own_group(controller: str) -> Path:
    mounted = re.search(rf"(?m)^\S+ (\S+) cgroup \S*\b{controller}\b", Path("/proc/mounts").read_text())
    if mounted is None:
        raise OSError(f"no control groups of version 1 for {controller} here")
    own = re.search(rf"(?m)^\d+:(?:\S*,)?{controller}(?:,\S*)?:/(.*)$", Path("/proc/self/cgroup").read_text())
    group = Path(mounted[1]) / (own[1] if own else "")
    return group if group.exists() else Path(mounted[1])  # a container may see its own group as the root


def _process(pid: int) -> Process | None:
    directory = Path(f"/proc/{pid}")
    try:
        head, _, rest = (directory / "stat").read_text().rpartition(")")
        state, parent, *fields = rest.split()
        words = (directory / "cmdline").read_bytes()
        environment = (directory / "environ").read_bytes()
    except (OSError, ValueError):
        return None
    if state in "ZX":
        return None
    return Process(
        pid=pid,
        started=int(fields[17]),  # field 22 of proc(5)
        parent=int(parent),
        name=head.partition("(")[2],
        words=tuple(os.fsdecode(words).rstrip("\0").split("\0")),
        environment=frozenset(os.fsdecode(environment).split("\0")),
    )


def _send(process: Process, signum: signal.Signals) -> None:
    """To this very process; a later one with its number gets nothing."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        now = _process(process.pid)
        if now is not None and now.started == process.started:
            signal.pidfd_send_signal(fd, signum)
    except ProcessLookupError:
        return
    finally:
        os.close(fd)
