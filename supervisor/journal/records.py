"""Records of the journal, and reading them; whatever stands there, what can be read is read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from supervisor.errors import DiskError

JOURNAL = "journal.jsonl"
#: Journals of members that had lost their leader, until the next one has taken them in.
MEMBERS = "journal-*.jsonl"
VERSION = 1

#: Every event that this release writes; the contract of the run directory.
EVENTS = frozenset(
    {
        "run_started",
        "allocation_started",
        "attempt_started",
        "workers_ready",
        "training_started",
        "checkpoint_committed",
        "checkpoint_rejected",
        "mirrored",
        "stop_asked",
        "notice",
        "incident",
        "attempt_ended",
        "decision",
        "requeued",
        "adapted",
        "run_finished",
        "run_gave_up",
        "run_stopped",
    }
)

HEAD = ("v", "time", "event", "attempt", "host")


@dataclass(frozen=True, slots=True)
class Record:
    """One event of the past.

    Attributes:
        time: when it was written, by the writer's wall clock [unix s].
        event: one of `EVENTS`, or one of another release.
        attempt: the attempt that it belongs to; None before the first.
        host: who wrote it.
        fields: all else that the line holds.
    """

    time: float
    event: str
    attempt: int | None = None
    host: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    def number(self, key: str) -> float | None:
        """The field ``key`` if it is a finite number.

        >>> Record(0.0, "x", fields={"bytes": 7, "stall_s": "?"}).number("stall_s") is None
        True
        """
        value = self.fields.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        try:
            return float(value) if math.isfinite(value) else None
        except OverflowError:
            return None

    def count(self, key: str) -> int | None:
        """The field ``key`` if it is a whole number."""
        value = self.fields.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def text(self, key: str) -> str | None:
        """The field ``key`` if it is text."""
        value = self.fields.get(key)
        return value if isinstance(value, str) else None


def read(path: Path) -> list[Record]:
    """Read a journal, oldest record first; a missing one is empty, torn and garbled lines are passed over.

    Raises:
        DiskError: it is there and cannot be read, which is not the same as empty.
    """
    return records_of(bytes_from(path, 0))


def read_run(run_dir: Path) -> list[Record]:
    """Read all that is known of a run: its journal, and what members without a leader wrote since.

    A leader that was only stopped writes on after them; then what they wrote is old.

    Raises:
        DiskError: something is there and cannot be read.
    """
    data = bytes_from(run_dir / JOURNAL, 0)
    known = set(data.split(b"\n"))
    told = [line for path in sorted(run_dir.glob(MEMBERS)) for line in bytes_from(path, 0).split(b"\n")]
    records = records_of(data)
    last_s = max((record.time for record in records), default=0.0)
    return records + [r for r in records_of(b"\n".join(line for line in told if line not in known)) if r.time > last_s]


def read_from(path: Path, offset: int) -> tuple[list[Record], int]:
    """Read what has been appended behind ``offset``, for one who follows the journal.

    Returns:
        The records of the whole lines found there, and the offset to go on from.

    Raises:
        DiskError: the journal is there and cannot be read.
    """
    data = bytes_from(path, offset)
    whole = data.rfind(b"\n") + 1
    return records_of(data[:whole]), offset + whole


def bytes_from(path: Path, offset: int) -> bytes:
    """What stands in a journal behind ``offset``; nothing where there is none.

    Raises:
        DiskError: it is there and cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}", "mend the file system, or its permissions") from error


def records_of(data: bytes) -> list[Record]:
    """The records of all whole lines; a line that comes twice in a row is one that the disk took and did not own up to.

    It may have taken all but the line's end, or have failed to sync it; then the line was written again.
    """
    lines = data.split(b"\n")
    once = (line for before, line in pairwise((b"", *lines)) if line != before)
    return [record for line in once if (record := parse(line)) is not None]


def parse(line: bytes) -> Record | None:
    """One record, or None for a line that is none."""
    if not line.startswith(b"{"):
        return None
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):  # ValueError: no JSON, no UTF-8, a number of 5000 digits
        return None
    if not isinstance(values, dict):
        return None
    time, event, attempt, host = (values.pop(key, None) for key in HEAD[1:])
    values.pop("v", None)
    if not isinstance(event, str) or isinstance(time, bool) or not isinstance(time, int | float):
        return None
    if not -1e15 < time < 1e15:  # also NaN
        return None
    return Record(
        time=float(time),
        event=event,
        attempt=attempt if isinstance(attempt, int) and not isinstance(attempt, bool) else None,
        host=host if isinstance(host, str) else None,
        fields=values,
    )


def plain(value: Any) -> Any:
    """``value`` in JSON's own types; what has none there becomes text, NaN and infinity too.

    >>> plain({"loss": float("nan"), "path": Path("a"), "pids": (1, 2)})
    {'loss': 'nan', 'path': 'a', 'pids': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int):
        return value
    return str(value)
