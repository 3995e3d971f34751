"""Writing the journal.

A line is one `write` on a descriptor opened with O_APPEND, so a killed writer
leaves at most one torn line, and the next one begins on a line of its own.
What this does *not* protect against: two writers on different machines of an
NFS, where O_APPEND is a race (open(2)); the lease keeps them apart.
"""

from __future__ import annotations

import errno
import json
import os
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from supervisor.errors import DiskError
from supervisor.journal.records import EVENTS, HEAD, JOURNAL, MEMBERS, VERSION, Record, bytes_from, parse, plain

_OPEN = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
#: What a file that is opened anew takes no better.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: The last line that was written is looked for within so much of the end [B].
_TAIL_BYTES = 1 << 16


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
        self._last: bytes | None = None  # of the lines that this one has put on the disk

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
        try:
            fd = os.open(path, _OPEN | os.O_CREAT, 0o600)
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
        assert not set(fields) & set(HEAD), fields
        if attempt is not None:
            self.attempt = attempt
        head = dict(zip(HEAD, (VERSION, self._clock(), event, self.attempt, self._host), strict=True))
        line = json.dumps(plain({**head, **fields}), separators=(",", ":")).encode() + b"\n"
        record = parse(line)
        assert record is not None
        return record, line

    @property
    def unwritten(self) -> int:
        """How many lines the disk has not taken yet."""
        return len(self._kept)

    def _put(self, line: bytes, *, durable: bool) -> None:
        try:
            self._write(line, durable=durable)
        except OSError as error:
            try:
                if error.errno in _FULL or not self._opened_anew():
                    raise
                self._write(line, durable=durable)
            except OSError as last:
                raise DiskError(f"{self._path}: {last.strerror}", "make room, or mend the file system") from last

    def _write(self, line: bytes, *, durable: bool) -> None:
        """Write a line; one that the disk took and could not sync is written again, and read once."""
        data = line if self._ends_whole() else b"\n" + line
        written = os.write(self._fd, data)
        if written != len(data):
            raise DiskError(f"{self._path}: took {written} of {len(data)} bytes", "make room on the disk")
        if durable:
            os.fsync(self._fd)
            self._last = line

    def _opened_anew(self) -> bool:
        """Whether the journal could be opened once more by its name.

        A file system that was mounted anew is another one for whoever has a file of the old one open: that one stays
        read-only, or stale, for ever. What is found under the name is ours if our last line is in it.
        """
        try:
            fd = os.open(self._path, _OPEN)
        except OSError:
            return False
        if not self._is_ours(fd):
            os.close(fd)
            return False
        with suppress(OSError):  # a dead one may say once more that it is
            os.close(self._fd)
        self._fd = fd
        return True

    def _is_ours(self, fd: int) -> bool:
        try:
            size = os.fstat(fd).st_size
            tail = os.pread(fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        except OSError:
            return False
        return self._last is not None and self._last in tail

    def fold_in(self, run_dir: Path) -> int:
        """Take in what members wrote that had lost their leader; how many lines that were.

        A line that is here already is passed over, so that dying in the middle costs nothing.

        Raises:
            DiskError: the file system refused; what was not taken in stays where it is.
        """
        taken = 0
        for path in sorted(run_dir.glob(MEMBERS)):
            known = set(bytes_from(self._path, 0).split(b"\n"))
            for line in bytes_from(path, 0).split(b"\n"):
                if parse(line) is not None and line not in known:
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


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
