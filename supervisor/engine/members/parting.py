"""This node's part of a checkpoint, on its way to the leader piece by piece: all else goes on meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from supervisor.checkpoint.parts import Part
from supervisor.engine.members.gathering import TOLD
from supervisor.engine.members.messages import PART
from supervisor.engine.state.assembly import Source, TornSnapshotError, share_of, sources_of
from supervisor.engine.state.memory import Memory, Whole
from supervisor.link.line import Line
from supervisor.link.wire import BODY_LIMIT, Frame

#: So much waits to leave at a time [bytes]; with more than twice as much the link takes the leader for lost.
AHEAD_BYTES = 4 << 20


@dataclass(slots=True)
class Parting:
    """One part that is being sent.

    Attributes:
        number: of the commit.
        memory: where the snapshot lies; it is held until `close`.
        whole: the snapshot.
        line: to the leader.
    """

    number: int
    memory: Memory
    whole: Whole
    line: Line
    _frames: Iterator[Frame] = field(default_factory=lambda: iter(()))

    @staticmethod
    def begin(number: int, memory: Memory, whole: Whole, first_rank: int, line: Line) -> Parting:
        """Hold the snapshot, and make ready to send what only this node's ranks have of it.

        Raises:
            TornSnapshotError: it has been overwritten.
        """
        made = Parting(number, memory, whole, line)
        if not memory.hold(whole):
            memory.release()
            raise TornSnapshotError("it was overwritten before it could be held", "the next is taken")
        made._frames = _frames(number, sources_of(memory, whole, first_rank))
        return made

    def go_on(self) -> bool:
        """Send as much as the line takes now; whether that was all.

        Raises:
            OSError: it cannot be read.
            TornSnapshotError: it was overwritten meanwhile.
        """
        while self.line.waiting_bytes < AHEAD_BYTES:
            frame = next(self._frames, None)
            if frame is None:
                if not self.memory.unchanged(self.whole):
                    raise TornSnapshotError("it was overwritten while it was read", "the next is taken")
                return True
            self.line.send(frame)
        return False

    def close(self) -> None:
        """Let go of the snapshot."""
        self.memory.release()


def _frames(number: int, sources: tuple[Source, ...]) -> Iterator[Frame]:
    for source in sources:
        told, files = share_of(source)
        yield Frame(PART, {"number": number, "rank": source.rank, "name": TOLD}, told)
        for name, part in files.items():
            for body in _bodies(part):
                yield Frame(PART, {"number": number, "rank": source.rank, "name": name}, body)


def _bodies(part: Part) -> Iterator[bytes]:
    """Pieces that fit a frame."""
    for piece in part.pieces():
        view = memoryview(piece).cast("B")
        for at in range(0, len(view), BODY_LIMIT):
            yield bytes(view[at : at + BODY_LIMIT])
