"""Who is writing: names that say which process made an unfinished directory.

A name is `.partial-<what>-<place>-<pid>-<start>-<unique>`. The place stands for
this boot of this machine and this process-id namespace: only there does the
process id mean anything, so nothing is ever concluded about another place.
"""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from xxhash import xxh3_64_hexdigest

PARTIAL = ".partial-"
TRASH = ".trash-"

_NAME = re.compile(r"\.(?:partial|trash)-.+-([0-9a-f]{16})-([0-9]+)-([0-9]+)-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Writer:
    """A process, named so that its successors under the same number are told apart.

    Attributes:
        place: this boot of this machine, and this process-id namespace.
        pid: its number there.
        started: when it started [clock ticks since boot].
    """

    place: str
    pid: int
    started: int


def this_writer() -> Writer:
    """This process."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")
    place = xxh3_64_hexdigest(f"{boot}{Path('/proc/self/ns/pid').readlink()}".encode())
    return Writer(place, os.getpid(), _started("self") or 0)


def unfinished_name(prefix: str, what: str) -> str:
    """A fresh name for a directory that this process is about to fill or to remove."""
    writer = this_writer()
    return f"{prefix}{what}-{writer.place}-{writer.pid}-{writer.started}-{secrets.token_hex(4)}"


def writer_of(name: str) -> Writer | None:
    """Who made an unfinished directory, or None for a name that is not one of these."""
    match = _NAME.fullmatch(name)
    return Writer(match[1], int(match[2]), int(match[3])) if match else None


def is_alive(writer: Writer, here: Writer) -> bool | None:
    """Whether ``writer`` still runs; None where that cannot be known from ``here``."""
    if writer.place != here.place:
        return None
    return _started(str(writer.pid)) == writer.started


def _started(pid: str) -> int | None:
    """When a process started [clock ticks since boot]; None if there is none, or only its zombie.

    Source:
        proc_pid_stat(5): the command name, in parentheses, may itself hold
        any character, so fields are counted after the last parenthesis: state
        is the first there, the start time the twentieth.
    """
    try:
        fields = Path("/proc", pid, "stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])
