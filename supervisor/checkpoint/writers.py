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

from supervisor.owner import start_ticks

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
    return Writer(place, os.getpid(), start_ticks(os.getpid()) or 0)


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
    return start_ticks(writer.pid) == writer.started
