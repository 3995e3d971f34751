"""One attempt as it is ordered: the same value for every node that takes part."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.board.slots import Identity
from supervisor.launch.command import Rendezvous
from supervisor.policy.adapt import Adaptation


@dataclass(frozen=True, slots=True)
class Start:
    """What an attempt goes on from.

    Attributes:
        step: settled steps there.
        source: ``fresh``, ``snapshot``, ``checkpoint``, or ``mirror``, which is a checkpoint fetched from there.
        checkpoint: its path, for programs that resume by themselves.
        trained: training had reached its end there.
        identity: of the snapshot, where it is one.
        accumulation: micro-batches of a step where ranks are others than they were; None for the program's own.
    """

    step: int = 0
    source: str = "fresh"
    checkpoint: Path | None = None
    trained: bool = False
    identity: Identity | None = None
    accumulation: int | None = None

    def told(self) -> dict[str, Any]:
        """For the journal: what our hooks resume from, or what the program is handed to do it by itself.

        >>> Start().told(), Start(checkpoint=Path("/out/step_4")).told()["handed"]
        ({'resume_step': None, 'source': 'fresh'}, '/out/step_4')
        """
        if self.source != "fresh":
            return {"resume_step": self.step, "source": self.source}
        handed = {} if self.checkpoint is None else {"handed": str(self.checkpoint)}
        return {"resume_step": None, "source": self.source, **handed}


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptOrder:
    """What every node needs to know to begin its part.

    Attributes:
        number: of the attempt.
        lineage: of the run.
        rendezvous: where its ranks meet those of the other nodes.
        processes: ranks on each node.
        start: what it goes on from.
        accept_changes: whether pinned inputs may change.
        adaptation: what its program is set to in place of its own settings.
    """

    number: int
    lineage: int
    rendezvous: Rendezvous
    processes: int
    start: Start
    accept_changes: bool = False
    adaptation: Adaptation = field(default_factory=Adaptation)

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return self.processes * self.rendezvous.nodes

    @property
    def first_rank(self) -> int:
        """Global rank of this node's lowest one."""
        return self.processes * self.rendezvous.node
