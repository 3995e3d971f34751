"""What ranks write goes to memory, and from there to the run directory: a disk that hangs or is full stops no program.

A rank that prints while a file server fails over would wait in `write` until it is back, and one that prints on a full
disk dies of it. So logs, stacks and the record of an end are files on the board, and whoever wants them at once, as the
verdict does, reads them there. Every second a thread carries over what is new; what has been carried gives its memory
back, all but the end of each file.

A killed supervisor leaves the last second on the board: its successor on this machine carries that over. What workers
that stand by write is carried once their attempt begins; if it never does, it has never been.

Not held: what one rank writes beyond 64 MiB while the disk takes nothing; the oldest of it becomes a hole in the file.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.board.room import LOGS_BYTES
from supervisor.checkpoint.files import give_back
from supervisor.engine.disk import Disk, Pending
from supervisor.engine.ranks.evidence import TAIL_BYTES

#: How often what is new is carried over [s].
EVERY_S = 1.0
#: Memory that must be free on the board for logs to go there; else they go straight to the run directory [bytes].
ROOM_BYTES = 2 * LOGS_BYTES
#: So much of one file waits for a disk that takes nothing [bytes].
MOST_WAITING_BYTES = 64 << 20
#: How long the last carrying may hold up a supervisor that leaves [s].
CLOSE_S = 3.0
#: Files that only grow, by the end of their names; others are written anew.
_GROWING = (".log", ".txt")
_PARTIAL = ".partial"
#: In a directory whose attempt has not begun.
_WAITING = ".waiting"
#: Before the name of one that is being removed.
_GONE = ".gone-"
_CHUNK = 1 << 20


@dataclass(slots=True)
class Logbook:
    """The logs of one node's attempts.

    Attributes:
        board: its directory.
        logs: directory of all attempts' logs in the run directory.
    """

    board: Path
    logs: Path
    _disk: Disk = field(default_factory=Disk)
    _carrying: Pending[None] | None = None
    _carried_s: float = 0.0
    _over: set[str] = field(default_factory=set)  # attempts that write no more
    _lock: threading.Lock = field(default_factory=threading.Lock)  # of what is over, and the names of directories
    _seen: dict[Path, tuple[int, int]] = field(default_factory=dict)  # what was carried: its size and its time

    def __post_init__(self) -> None:
        for left in self._attempts():
            if (left / _WAITING).exists():
                shutil.rmtree(left, ignore_errors=True)
            else:
                self._over.add(left.name)

    @property
    def _place(self) -> Path:
        return self.board / "logs"

    def _attempts(self) -> list[Path]:
        try:
            return sorted(path for path in self._place.iterdir() if not path.name.startswith("."))
        except OSError:
            return []

    def open(self, attempt: int, *, waits: bool = False) -> Path:
        """The directory that an attempt's processes write to.

        Args:
            attempt: its number.
            waits: it only stands by until it is said to `begin`.

        Raises:
            OSError: it could not be made.
        """
        directory = self._place / f"attempt-{attempt}"
        with self._lock:
            self._over.discard(directory.name)
            gone = self._away(directory)  # a killed supervisor opened it, and never wrote down that it did
        shutil.rmtree(gone, ignore_errors=True)
        room = os.statvfs(self.board)
        if room.f_bavail * room.f_frsize < ROOM_BYTES:
            directory = self.logs / directory.name
            waits = False  # it is where it belongs
        directory.parent.mkdir(mode=0o700, exist_ok=True)  # with `parents` it would be open to others
        directory.mkdir(mode=0o700, exist_ok=True)
        if waits:
            (directory / _WAITING).touch(mode=0o600)
        return directory

    def begin(self, attempt: int) -> None:
        """One that stood by begins."""
        (self._place / f"attempt-{attempt}" / _WAITING).unlink(missing_ok=True)

    def look(self, now_s: float) -> None:
        """Have what is new carried over, if it is time.

        Args:
            now_s: monotonic time [s].
        """
        if now_s - self._carried_s < EVERY_S:
            return
        self._carried_s = now_s
        self._bound()
        if self._carrying is None or self._carrying.over:
            self._carrying = self._disk.ask(self._carry)

    def finish(self, attempt: int) -> None:
        """An attempt is over: carry the rest of what it wrote; waits for a moment, while the disk is well."""
        with self._lock:
            self._over.add(f"attempt-{attempt}")
        self._carrying = self._disk.do(self._carry)

    def forget(self, attempt: int) -> None:
        """Leave nothing of an attempt that never was."""
        name = f"attempt-{attempt}"
        shutil.rmtree(self._place / name, ignore_errors=True)
        self._disk.do(lambda: shutil.rmtree(self.logs / name, ignore_errors=True))

    def close(self) -> None:
        """Carry what is left, as long as that does not take long; what remains waits on the board."""
        with self._lock:
            self._over |= {attempt.name for attempt in self._attempts()}
        self._disk.ask(self._carry)
        self._disk.close(CLOSE_S)

    def _bound(self) -> None:
        """Where the disk takes nothing, whether it hangs or is full, give up the oldest of what waits."""
        for path in (path for attempt in self._attempts() for path in _files(attempt)):
            try:
                if path.stat().st_blocks * 512 > MOST_WAITING_BYTES:
                    _let_go(path, path.stat().st_size - TAIL_BYTES)
            except OSError:
                pass  # it is gone

    # -- on the disk's thread

    def _carry(self) -> None:
        for attempt in self._attempts():
            if (attempt / _WAITING).exists():
                continue
            over = attempt.name in self._over  # asked first: what is written after that is carried the next time
            whole = True
            for path in _files(attempt):
                try:
                    self._take(path, self.logs / attempt.name)
                except OSError:
                    whole = False  # the disk is full, or worse: tried again
            if over and whole:
                self._remove(attempt)

    def _remove(self, attempt: Path) -> None:
        with self._lock:
            if attempt.name not in self._over:
                return  # it has been opened anew
            self._over.discard(attempt.name)
            gone = self._away(attempt)
        shutil.rmtree(gone, ignore_errors=True)

    def _away(self, attempt: Path) -> Path:
        """Give a directory of the board another name, if it is there."""
        gone = attempt.with_name(f"{_GONE}{attempt.name}")
        with suppress(OSError):
            attempt.rename(gone)
        return gone

    def _take(self, path: Path, to: Path) -> None:
        seen = path.stat()
        mark = (seen.st_size, seen.st_mtime_ns)
        if self._seen.get(path) == mark:
            return
        to.parent.mkdir(mode=0o700, exist_ok=True)
        to.mkdir(mode=0o700, exist_ok=True)
        if path.name.endswith(_GROWING):
            size = _append(path, to / path.name, seen.st_size)
            _let_go(path, size - TAIL_BYTES)
        else:
            _replace(path, to / path.name)
        self._seen[path] = mark


def _files(attempt: Path) -> list[Path]:
    try:
        return sorted(path for path in attempt.iterdir() if not path.name.endswith(_PARTIAL) and path.is_file())
    except OSError:
        return []


def _append(path: Path, to: Path, size: int) -> int:
    """Write what a file has more than its copy; how large the copy is then [bytes]."""
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            there = os.fstat(target).st_size
            for begin, end in _extents(source, there, size):
                at = begin
                while at < end:
                    at += os.pwrite(target, os.pread(source, min(_CHUNK, end - at), at), at)
        finally:
            os.close(target)
    finally:
        os.close(source)
    return max(there, size)


def _extents(descriptor: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Where there is data: what was given up is a hole."""
    while begin < end:
        try:
            data = os.lseek(descriptor, begin, os.SEEK_DATA)
        except OSError:
            return  # ENXIO: no more of it
        hole = min(end, os.lseek(descriptor, data, os.SEEK_HOLE))
        if data < end:
            yield data, hole
        begin = hole


def _replace(path: Path, to: Path) -> None:
    partial = to.with_name(to.name + _PARTIAL)
    partial.touch(mode=0o600)
    shutil.copyfile(path, partial)
    partial.replace(to)


def _let_go(path: Path, before: int) -> None:
    """Give the memory of a file's beginning back, once that is worth a call."""
    if before < _CHUNK or path.stat().st_blocks * 512 < 2 * _CHUNK:
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        give_back(descriptor, before)
    finally:
        os.close(descriptor)
