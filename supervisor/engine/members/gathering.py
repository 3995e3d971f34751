"""The parts of one checkpoint that other nodes hold, as they come in over the link.

They are kept beside the supervisor's own memory (memfd), from where the thread that commits reads them: of a sharded
state they may be gigabytes, which nobody copies a second time, and which are gone with the last one who reads them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from supervisor.checkpoint.files import PIECE_BYTES, read_pieces
from supervisor.checkpoint.parts import Part, Piece
from supervisor.engine.machine import room
from supervisor.engine.state.assembly import Share
from supervisor.link.wire import Frame

#: So much of memory is asked for at a time [bytes]. In data-parallel training a rank's own part is some kilobytes.
PARTS_BYTES = 256 << 20
#: Name under which a rank's own JSON comes.
TOLD = "told"


@dataclass(frozen=True, slots=True)
class NoPart:
    """A part that will not come.

    Attributes:
        reason: why.
        again: whether it is worth asking for a newer snapshot's at once.
    """

    reason: str
    again: bool


class _Kept:
    """Bytes in memory that no process has mapped, until nobody refers to them any more."""

    __slots__ = ("_fd", "size")

    def __init__(self) -> None:
        self._fd, self.size = os.memfd_create("parts", os.MFD_CLOEXEC), 0

    def add(self, data: bytes) -> tuple[int, int]:
        """Keep some more; where they are, and how many."""
        begin, view = self.size, memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, self.size)
            self.size, view = self.size + written, view[written:]
        return begin, len(data)

    def read(self, at: int, size: int) -> Iterator[Piece]:
        """Some of them, piece by piece."""
        return read_pieces(self._fd, at, size, PIECE_BYTES)

    def __del__(self) -> None:
        os.close(self._fd)


@dataclass(slots=True)
class Gathering:
    """The parts of one commit, as they come in.

    Attributes:
        number: of the commit.
        awaited: nodes that have not sent theirs.
        problem: why it will not be whole; None as long as it can.
        spare: asks what memory can still give [bytes].
        came_bytes: how much has come so far.
    """

    number: int
    awaited: set[int]
    problem: NoPart | None = None
    spare: Callable[[], int] = lambda: room(None)
    came_bytes: int = 0
    _granted_bytes: int = PARTS_BYTES
    _told: dict[int, bytearray] = field(default_factory=dict)
    _kept: _Kept | None = None  # one for all: a descriptor for each file of each rank would be too many
    _places: dict[tuple[int, str], list[tuple[int, int]]] = field(default_factory=dict)

    def take(self, frame: Frame) -> None:
        """One more piece; what is too much, or cannot be kept, is a problem."""
        if self.problem is not None:
            return
        self.came_bytes += len(frame.body)
        rank, name = int(frame.fields["rank"]), str(frame.fields["name"])
        if name == TOLD:
            self._told.setdefault(rank, bytearray()).extend(frame.body)
        elif self.came_bytes <= self._granted_bytes or self._grant():
            self._keep(rank, name, frame.body)
        if self.problem is not None:
            self._kept = None

    def _grant(self) -> bool:
        spare = self.spare()
        if spare >= PARTS_BYTES:
            self._granted_bytes += PARTS_BYTES
            return True
        self.problem = NoPart(
            f"the parts of other nodes are more than this node's memory has room for: {self.came_bytes >> 20} MiB have "
            f"come, and {spare >> 20} MiB are left",
            again=False,
        )
        return False

    def _keep(self, rank: int, name: str, data: bytes) -> None:
        try:
            self._kept = self._kept or _Kept()
            self._places.setdefault((rank, name), []).append(self._kept.add(data))
        except OSError as error:
            self.problem = NoPart(f"the parts of other nodes cannot be kept: {error.strerror}", again=False)

    def shares(self) -> tuple[Share, ...]:
        """What came, by rank."""
        kept = self._kept
        return tuple(
            Share(
                rank,
                json.loads(told),
                tuple(_part(name, kept, at) for (of, name), at in self._places.items() if of == rank and kept),
            )
            for rank, told in sorted(self._told.items())
        )


def _part(name: str, kept: _Kept, places: Sequence[tuple[int, int]]) -> Part:
    def pieces() -> Iterator[Piece]:
        for at, size in places:
            yield from kept.read(at, size)

    return Part(name, sum(size for _, size in places), pieces)
