"""What the kernel said: whom it killed for want of memory, and which errors GPUs reported.

Records are told apart by their numbers, not by their times: the log's clock is not any clock that a program can ask
for. Mark the end when an attempt begins, read from there when it has ended.

What this does not protect against: a kernel log that may not be read (most users may not, nor most containers), or
whose ring has been overwritten meanwhile. Then None or nothing is said, and never a no that is not known.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from supervisor.watch.namespace import sees_all_pids

_KMSG = Path("/dev/kmsg")
#: Longer than any record (the kernel's own limit is under 8 KiB); a read with less room is refused.
_RECORD_BYTES = 16384
#: More than any ring holds by default; nothing may keep the loop.
_MOST_RECORDS = 100_000
#: mm/oom_kill.c prints both, old kernels the second only: pid= is the last but one of the first line's fields.
_KILLED = re.compile(r"Killed process (\d+)\b|oom-kill:constraint=.*,pid=(\d+),uid=")
#: The bus address has been printed with and without "PCI:".
_XID = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d+),? ?(.*)")


def end(log: Path = _KMSG) -> int | None:
    """The number that the next record will have; None where the log may not be read."""
    records = _records(log)
    if records is None:
        return None
    number = 0
    for number, _ in records:  # noqa: B007 - the last one counts
        pass
    return number + 1


def since(mark: int | None, log: Path = _KMSG) -> list[str] | None:
    """The records from a mark on; None where the log may not be read, or could not when it was marked."""
    records = _records(log) if mark is not None else None
    if records is None or mark is None:
        return None
    return [text for number, text in records if number >= mark]


def killed_by_kernel(pid: int, lines: Sequence[str] | None, proc: Path = Path("/proc")) -> bool | None:
    """Whether the kernel killed this process for want of memory; None if that cannot be told.

    Args:
        pid: of the process that died.
        lines: what the kernel said since it was started, see `since`.
        proc: where this process's namespaces stand. The kernel writes the machine's own numbers of processes, so in a
            container nothing can be said.

    >>> killed_by_kernel(7, ["Memory cgroup out of memory: Killed process 7 (python3) total-vm:82356kB"])
    True
    """
    if lines is None or not sees_all_pids(proc):
        return None
    return any(str(pid) in match.groups() for line in lines for match in _KILLED.finditer(line))


def xids(lines: Sequence[str] | None) -> list[tuple[str, int, str]] | None:
    """Errors of GPUs: bus address, code, and the rest of the line.

    >>> xids(["NVRM: Xid (PCI:0000:03:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."])
    [('0000:03:00', 79, "pid='<unknown>', name=<unknown>, GPU has fallen off the bus.")]
    """
    if lines is None:
        return None
    found = (_XID.search(line) for line in lines)
    return [(match[1].lower(), int(match[2]), match[3]) for match in found if match]


def _records(log: Path) -> Iterator[tuple[int, str]] | None:
    """Number and text of each, the oldest first.

    Source: Documentation/ABI/testing/dev-kmsg of the kernel: "priority,sequence,time,flags;text"; a read gives one
    record, EPIPE says that some were overwritten, EAGAIN that none is left.
    """
    try:
        descriptor = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        parts = list(_read(descriptor))
    except PermissionError:
        return None  # it could be opened, and not read: dmesg_restrict
    finally:
        os.close(descriptor)
    return _parsed(b"".join(parts).decode(errors="replace").splitlines())


def _read(descriptor: int) -> Iterator[bytes]:
    for _ in range(_MOST_RECORDS):
        try:
            part = os.read(descriptor, _RECORD_BYTES)
        except BrokenPipeError:
            continue  # overwritten while it was read; the next read goes on behind the gap
        except BlockingIOError:
            return
        if not part:
            return
        yield part


def _parsed(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    for line in lines:
        head, separator, text = line.partition(";")
        fields = head.split(",")
        # Lines that go with the one before begin with a blank.
        if separator and len(fields) >= 3 and fields[1].isdigit():
            yield int(fields[1]), text
