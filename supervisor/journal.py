"""The journal: one JSON object a line, only ever appended to.

Rule 1: what happened to a run is what stands here; everything else is folded from it.
Rule 2: reading never fails over content. A torn line costs that line, and an
event or a field that this release does not know is carried along.

A line is one `write` on a descriptor opened with O_APPEND, so a killed writer
leaves at most one torn line, and the next one begins on a line of its own.
What this does *not* protect against: two writers on different machines of an
NFS, where O_APPEND is a race (open(2)); the lease keeps them apart.
"""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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

_HEAD = ("v", "time", "event", "attempt", "host")


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


class Journal:
    """The journal of one run, open for appending.

    Attributes:
        attempt: the attempt that lines belong to when `append` is not told; the last one it was told.
    """

    def __init__(self, fd: int, path: Path, clock: Callable[[], float], host: str) -> None:
        self._fd = fd
        self._path = path
        self._clock = clock
        self._host = host
        self.attempt: int | None = None
        self._kept: deque[bytes] = deque()

    @classmethod
    def open(cls, run_dir: Path, clock: Callable[[], float], host: str, name: str = JOURNAL) -> Journal:
        """Open the journal in ``run_dir``, which exists, and create it where it is missing.

        Args:
            run_dir: the run's directory.
            clock: the wall clock, such as `time.time` [unix s].
            host: the name that lines are signed with.
            name: of the file; a member that commits without its leader has one of its own.

        Raises:
            DiskError: the file system refused.
        """
        path = run_dir / name
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(path, flags, 0o600)
            try:
                _sync_directory(run_dir)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise DiskError(f"{path}: {error.strerror}", "the run directory must be writable") from error
        return cls(fd, path, clock, host)

    def append(self, event: str, /, *, attempt: int | None = None, durable: bool = True, **fields: Any) -> Record:
        """Write one event.

        Args:
            event: one of `EVENTS`.
            attempt: the attempt that it belongs to; default: the one last given.
            durable: wait until the line is on the disk; only what nothing depends on may do without.
            fields: all else; what JSON cannot hold is written as text.

        Returns:
            The record as a reader will see it.

        Raises:
            DiskError: the disk refused; the line is not there, or torn, which readers pass over.
        """
        record, line = self._made(event, attempt, fields)
        self._put(line, durable=durable)
        return record

    def note(self, event: str, /, *, attempt: int | None = None, **fields: Any) -> Record:
        """Write one event, for one whose work goes on although the disk refuses.

        What could not be written is kept, and comes ahead of the next line: a full disk costs
        the journal nothing once there is room again.
        """
        record = self.keep(event, attempt=attempt, **fields)
        self.write_kept()
        return record

    def keep(self, event: str, /, *, attempt: int | None = None, **fields: Any) -> Record:
        """Have one event written by the next `write_kept`, which another thread may call."""
        record, line = self._made(event, attempt, fields)
        self._kept.append(line)
        return record

    def write_kept(self) -> None:
        """Write what is kept, in order, as far as the disk takes it; one thread at a time."""
        while self._kept:
            try:
                self._put(self._kept[0], durable=len(self._kept) == 1)
            except DiskError:
                return
            self._kept.popleft()

    def _made(self, event: str, attempt: int | None, fields: Mapping[str, Any]) -> tuple[Record, bytes]:
        """The record and its line."""
        assert event in EVENTS, event
        assert not set(fields) & set(_HEAD), fields
        if attempt is not None:
            self.attempt = attempt
        head = dict(zip(_HEAD, (VERSION, self._clock(), event, self.attempt, self._host), strict=True))
        line = json.dumps(_plain({**head, **fields}), separators=(",", ":")).encode() + b"\n"
        record = _parse(line)
        assert record is not None
        return record, line

    def _put(self, line: bytes, *, durable: bool) -> None:
        try:
            data = line if self._ends_whole() else b"\n" + line
            written = os.write(self._fd, data)
            if written == len(data) and durable:
                os.fsync(self._fd)
        except OSError as error:
            raise DiskError(f"{self._path}: {error.strerror}", "make room, or mend the file system") from error
        if written != len(data):
            raise DiskError(f"{self._path}: took {written} of {len(data)} bytes", "make room on the disk")

    def fold_in(self, run_dir: Path) -> int:
        """Take in what members wrote that had lost their leader; how many lines that were.

        A line that is here already is passed over, so that dying in the middle costs nothing.

        Raises:
            DiskError: the file system refused; what was not taken in stays where it is.
        """
        taken = 0
        for path in sorted(run_dir.glob(MEMBERS)):
            known = set(_bytes_from(self._path, 0).split(b"\n"))
            for line in _bytes_from(path, 0).split(b"\n"):
                if _parse(line) is not None and line not in known:
                    self._put(line + b"\n", durable=True)
                    taken += 1
            try:
                path.unlink()
            except OSError as error:
                raise DiskError(f"{path}: {error.strerror}", "the run directory must be writable") from error
        return taken

    def close(self) -> None:
        """Close the file; nothing is pending."""
        os.close(self._fd)

    def _ends_whole(self) -> bool:
        size = os.fstat(self._fd).st_size
        return size == 0 or os.pread(self._fd, 1, size - 1) == b"\n"


def read(path: Path) -> list[Record]:
    """Read a journal, oldest record first; a missing one is empty, torn and garbled lines are passed over.

    Raises:
        DiskError: it is there and cannot be read, which is not the same as empty.
    """
    return _records(_bytes_from(path, 0))


def read_run(run_dir: Path) -> list[Record]:
    """Read all that is known of a run: its journal, and what members without a leader wrote since.

    A leader that was only stopped writes on after them; then what they wrote is old.

    Raises:
        DiskError: something is there and cannot be read.
    """
    data = _bytes_from(run_dir / JOURNAL, 0)
    known = set(data.split(b"\n"))
    told = [line for path in sorted(run_dir.glob(MEMBERS)) for line in _bytes_from(path, 0).split(b"\n")]
    records = _records(data)
    last_s = max((record.time for record in records), default=0.0)
    return records + [r for r in _records(b"\n".join(line for line in told if line not in known)) if r.time > last_s]


def read_from(path: Path, offset: int) -> tuple[list[Record], int]:
    """Read what has been appended behind ``offset``, for one who follows the journal.

    Returns:
        The records of the whole lines found there, and the offset to go on from.

    Raises:
        DiskError: the journal is there and cannot be read.
    """
    data = _bytes_from(path, offset)
    whole = data.rfind(b"\n") + 1
    return _records(data[:whole]), offset + whole


def _bytes_from(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}", "mend the file system, or its permissions") from error


def _records(data: bytes) -> list[Record]:
    return [record for line in data.split(b"\n") if (record := _parse(line)) is not None]


def _parse(line: bytes) -> Record | None:
    """One record, or None for a line that is none."""
    if not line.startswith(b"{"):
        return None
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):  # ValueError: no JSON, no UTF-8, a number of 5000 digits
        return None
    if not isinstance(values, dict):
        return None
    time, event, attempt, host = (values.pop(key, None) for key in _HEAD[1:])
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


def _plain(value: Any) -> Any:
    """``value`` in JSON's own types; what has none there becomes text, NaN and infinity too.

    >>> _plain({"loss": float("nan"), "path": Path("a"), "pids": (1, 2)})
    {'loss': 'nan', 'path': 'a', 'pids': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int):
        return value
    return str(value)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
