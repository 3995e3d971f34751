"""The control file: one page of orders, and one page per rank for its beat and its replies.

    page 0        written by the supervisor: run, attempt, drain, snapshot period
    page 1 + r    first half written by rank r (its beat, its wish for memory),
                  second half by the supervisor (hold word, memory granted)

Every half page has one writer. A record is written as ``version odd, fields, version even``
and read until two reads of the version agree and are even, so that a reader never takes
half of one beat and half of the next. A beat costs no system call.

What this does not protect against: a writer killed between the two versions leaves an odd
one. The reader then keeps what it read last, which is right, since that rank is dead.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass, fields
from enum import IntEnum
from pathlib import Path

PAGE = 4096
HALF = PAGE // 2
MAGIC = b"LSBOARD2"
CONTROL = "control"
BELL = "bell"


class Phase(IntEnum):
    """What a rank is doing."""

    ABSENT = 0
    STARTING = 1  # the bootstrap runs, the program is being imported
    LOADING = 2  # the program runs and has not begun to train
    TRAINING = 3
    EVALUATING = 4
    SAVING = 5
    PAUSED = 6  # waits at the beginning of a step, because a drain was asked for
    TRAINED = 7  # training is over, the rest of the program runs
    FINISHED = 8  # the program returned
    FAILED = 9  # the program raised


class Trained(IntEnum):
    """Whether a rank's training has reached its end."""

    NOT_YET = 0
    ON_BOARD = 1  # and its last state is whole on the board
    WITHOUT_SNAPSHOT = 2  # and snapshots are off


@dataclass(frozen=True, slots=True)
class Beat:
    """What a rank has published last.

    Attributes:
        pid: process id, 0 while the rank has not started.
        start_ticks: start time of the process, field 22 of /proc/PID/stat.
        phase: a `Phase`.
        step: newest settled step, -1 while unknown.
        resumed: step that training went on from, -1 before it began.
        max_steps: where training ends, -1 while unknown.
        time_s: monotonic time of the last change [s]; one clock per machine.
        loss: of the last step, infinite if it was no finite number, NaN while unknown.
        step_s: usual duration of a step [s], NaN while unknown.
        snapshot_s: time a snapshot usually keeps training waiting [s], NaN while unknown.
        wish: generation of memory asked for, 0 for none.
        wish_bytes: size asked for.
        trained: a `Trained`.
        grad_norm: of the last step, infinite if it was no finite number, NaN while unknown.
        own_s: what a step usually takes of this rank alone, before it waits for the others [s], NaN while unknown.
        diverged_at: first step whose loss or gradient was not finite, or far from the usual; -1 for none.
        micro_batch: samples that one device takes at a time, -1 while unknown.
        accumulation: micro-batches of each rank in a step, -1 while unknown.
        loader_workers: processes that load data for this rank, -1 while unknown.
        checkpointing: whether activations are computed again rather than kept, 0 or 1; -1 while unknown.
    """

    pid: int = 0
    start_ticks: int = 0
    phase: int = Phase.ABSENT
    step: int = -1
    resumed: int = -1
    max_steps: int = -1
    time_s: float = 0.0
    loss: float = float("nan")
    step_s: float = float("nan")
    snapshot_s: float = float("nan")
    wish: int = 0
    wish_bytes: int = 0
    trained: int = Trained.NOT_YET
    grad_norm: float = float("nan")
    own_s: float = float("nan")
    diverged_at: int = -1
    micro_batch: int = -1
    accumulation: int = -1
    loader_workers: int = -1
    checkpointing: int = -1


@dataclass(frozen=True, slots=True)
class Reply:
    """What the supervisor has answered to one rank.

    Attributes:
        granted: newest generation whose memory is there.
        refused: newest generation that was refused.
        held_lineage: lineage of the snapshot that must not be overwritten.
        held_step: its step, -1 for none.
        text: path of the memory granted, or why it was refused.
    """

    granted: int = 0
    refused: int = 0
    held_lineage: int = 0
    held_step: int = -1
    text: str = ""


@dataclass(frozen=True, slots=True)
class Orders:
    """What the supervisor wants of all ranks.

    Attributes:
        attempt: number of the attempt that the orders are for.
        drain: 1 when ranks are to wait at the beginning of the next step.
        period: snapshots are taken of the steps that it divides; 0 for none.
        due_every: a checkpoint is due at the steps that it divides; 0 if the clock decides.
        due_at: one more step of which a checkpoint is due, 0 for none.
        taken: newest step of which a due checkpoint has been begun.
        supervisor_pid: who wrote them.
        supervisor_ticks: that process's start time.
    """

    attempt: int = 0
    drain: int = 0
    period: int = 1
    due_every: int = 0
    due_at: int = 0
    taken: int = 0
    supervisor_pid: int = 0
    supervisor_ticks: int = 0

    def asks_for(self, step: int) -> bool:
        """Whether a checkpoint of this step is due.

        >>> [Orders(due_every=20, due_at=47).asks_for(step) for step in (40, 46, 47)]
        [True, False, True]
        """
        return step == self.due_at > 0 or (self.due_every > 0 and step % self.due_every == 0)

    def wants(self, step: int) -> bool:
        """Whether a snapshot of this settled step is to be taken.

        >>> [Orders(period=5, due_at=7).wants(step) for step in (5, 6, 7)], Orders(period=0, due_at=7).wants(7)
        ([True, False, True], False)
        """
        return self.period > 0 and (step % self.period == 0 or self.asks_for(step) or self.drain > 0)


_BEAT = struct.Struct("<qqqqqqddddqqqddqqqqq")
_REPLY = struct.Struct("<qqqqq")
_ORDERS = struct.Struct("<qqqqqqqq")
_VERSION = struct.Struct("<Q")
_TEXT_AT = _VERSION.size + _REPLY.size
_TEXT_LIMIT = HALF - _TEXT_AT - 2


def _values(record: Beat | Orders) -> tuple[float, ...]:
    return tuple(getattr(record, f.name) for f in fields(record))


def control_size(ranks: int) -> int:
    """Bytes of a control file for so many ranks of this node.

    >>> control_size(2)
    12288
    """
    return PAGE * (1 + ranks)


class Control:
    """Both ends of the control file.

    Attributes:
        ranks: how many ranks of this node it has pages for.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            self._map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self.ranks = size // PAGE - 1
        self._beats = [Beat() for _ in range(self.ranks)]
        self._replies = [Reply() for _ in range(self.ranks)]
        self._orders = Orders()

    @staticmethod
    def create(path: Path, ranks: int) -> Control:
        """Make a new control file, exclusively, 0600, never through a link."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, control_size(ranks))
            os.pwrite(descriptor, MAGIC, HALF)
        finally:
            os.close(descriptor)
        return Control(path)

    def close(self) -> None:
        """Unmap; the file stays."""
        self._map.close()

    def valid(self) -> bool:
        """Whether this is a control file of this version."""
        return self._map[HALF : HALF + len(MAGIC)] == MAGIC

    # -- the supervisor's side

    def give_orders(self, orders: Orders) -> None:
        """Publish to all ranks."""
        self._write(0, _ORDERS.pack(*_values(orders)))

    def beat(self, rank: int) -> Beat:
        """The newest whole beat of a local rank."""
        raw = self._read(PAGE * (1 + rank), _BEAT.size)
        if raw is not None:
            self._beats[rank] = Beat(*_BEAT.unpack(raw))
        return self._beats[rank]

    def forget(self, rank: int) -> None:
        """Clear a rank's beat, before a new attempt."""
        self._beats[rank] = Beat()
        self._write(PAGE * (1 + rank), _BEAT.pack(*_values(Beat())))

    def reply(self, rank: int, reply: Reply) -> None:
        """Answer one rank.

        Raises:
            ValueError: the text is longer than the page has room for.
        """
        text = reply.text.encode()
        if len(text) > _TEXT_LIMIT:
            raise ValueError(f"{len(text)} bytes of text, room for {_TEXT_LIMIT}")
        numbers = _REPLY.pack(reply.granted, reply.refused, reply.held_lineage, reply.held_step, len(text))
        self._write(PAGE * (1 + rank) + HALF, numbers + text)

    # -- a rank's side

    def publish(self, rank: int, beat: Beat) -> None:
        """Publish this rank's beat."""
        self._write(PAGE * (1 + rank), _BEAT.pack(*_values(beat)))

    def orders(self) -> Orders:
        """The newest whole orders."""
        raw = self._read(0, _ORDERS.size)
        if raw is not None:
            self._orders = Orders(*_ORDERS.unpack(raw))
        return self._orders

    def replied(self, rank: int) -> Reply:
        """The newest whole reply to this rank."""
        raw = self._read(PAGE * (1 + rank) + HALF, _TEXT_LIMIT + _REPLY.size)
        if raw is not None:
            granted, refused, lineage, step, length = _REPLY.unpack_from(raw)
            text = raw[_REPLY.size : _REPLY.size + length].decode()
            self._replies[rank] = Reply(granted, refused, lineage, step, text)
        return self._replies[rank]

    # -- one writer per half page

    def _write(self, at: int, payload: bytes) -> None:
        (version,) = _VERSION.unpack_from(self._map, at)
        _VERSION.pack_into(self._map, at, version | 1)
        self._map[at + _VERSION.size : at + _VERSION.size + len(payload)] = payload
        _VERSION.pack_into(self._map, at, (version | 1) + 1)

    def _read(self, at: int, size: int) -> bytes | None:
        """A record that was whole while it was read, or None while its writer is busy or dead."""
        for _ in range(100):
            (before,) = _VERSION.unpack_from(self._map, at)
            payload = self._map[at + _VERSION.size : at + _VERSION.size + size]
            (after,) = _VERSION.unpack_from(self._map, at)
            if before == after and not before & 1:
                return payload
        return None


def monotonic_s() -> float:
    """The clock of beats: CLOCK_MONOTONIC, the same for all processes of a machine [s]."""
    return time.monotonic()


def ring(board: Path) -> None:
    """Wake the supervisor; used for rare news only. A supervisor that is gone is no error."""
    try:
        descriptor = os.open(board / BELL, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(descriptor, b"!")
    except OSError:
        pass  # full: it has news enough
    finally:
        os.close(descriptor)
