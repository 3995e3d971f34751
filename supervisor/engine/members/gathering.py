"""The parts of one checkpoint that other nodes hold, as they come in over the link."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from supervisor.checkpoint.parts import part_from_bytes
from supervisor.engine.state.assembly import Share
from supervisor.link.wire import Frame

#: What they may take of the leader's memory [bytes]. In data-parallel training a rank's own part is some kilobytes.
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


@dataclass(slots=True)
class Gathering:
    """The parts of one commit, as they come in.

    Attributes:
        number: of the commit.
        awaited: nodes that have not sent theirs.
        problem: why it will not be whole; None as long as it can.
    """

    number: int
    awaited: set[int]
    problem: NoPart | None = None
    _bytes: int = 0
    _pieces: dict[tuple[int, str], bytearray] = field(default_factory=dict)

    def take(self, frame: Frame) -> None:
        """One more piece."""
        self._bytes += len(frame.body)
        if self._bytes > PARTS_BYTES:
            self.problem = NoPart(f"the parts of other nodes are larger than {PARTS_BYTES >> 20} MiB", again=False)
            return
        at = int(frame.fields["rank"]), str(frame.fields["name"])
        self._pieces.setdefault(at, bytearray()).extend(frame.body)

    def shares(self) -> tuple[Share, ...]:
        """What came, by rank."""
        ranks = sorted({rank for rank, _ in self._pieces})
        return tuple(
            Share(
                rank,
                json.loads(self._pieces[rank, TOLD]),
                tuple(
                    part_from_bytes(name, bytes(data))
                    for (of, name), data in self._pieces.items()
                    if of == rank and name != TOLD
                ),
            )
            for rank in ranks
        )
