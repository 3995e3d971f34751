"""The state that was measured best is to be on disk: evaluations are heard while training goes on.

An evaluation takes longer than a step, so as soon as one is seen to be under way the step that it measures is
named, and every rank spares its snapshot. When that step is settled, the log history tells what came of it.

What is missed: an evaluation that is over, together with the steps after it, before anybody looked. Then the next
checkpoint carries its figure, and says of which step it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.board.pages import Phase
from supervisor.checkpoint.evaluations import Evaluation, evaluation
from supervisor.engine.members.team import Team
from supervisor.engine.state.memory import Memory, Whole
from supervisor.engine.state.retention import Retention
from supervisor.policy.causes import Cause

#: Of a log history that a resumed run tells anew, so much is read at a time [B]: the loop is not to wait.
PIECE_BYTES = 1 << 20


@dataclass(slots=True)
class BestSoFar:
    """Hears evaluations, and says which settled step is to be committed for what was measured of it.

    Attributes:
        team: all nodes.
        retention: what is kept, and what an evaluation has to beat.
        write: the journal's append.
        wanted: the step that is to be committed; None for none.
        spared: the step whose snapshot ranks spare for us, 0 for none.
    """

    team: Team
    retention: Retention
    write: Callable[..., Any]
    wanted: int | None = None
    spared: int = 0
    _history: tuple[Path, int] | None = None  # which is followed, and how far it has been read
    _others: set[str] = field(default_factory=set)  # metrics that are there, as long as ours has not been seen
    _seen: bool = False
    _warned: bool = False

    def look(self) -> None:
        """See what has been evaluated; costs nothing where no metric matters."""
        node = self.team.node
        if self.retention.keep.best is None or node.order is None:
            return
        beats = node.beats if node.present else []
        measuring = [beat.step for beat in beats if beat.phase == Phase.EVALUATING and beat.resumed >= 0]
        if measuring:  # a faster rank may be past it
            self._name(max(measuring) + 1)
        for row in self._rows(node.memory.board.directory / f"history-{node.order.number}"):
            self._hear(row)
        if self._others and not self._seen:
            self.warn_if_unseen()

    def training_began(self) -> None:
        """No rank of this attempt has been told of the step that was named."""
        self.spared = 0

    def find(self, memory: Memory) -> Whole | None:
        """The snapshot that is wanted, if it is there."""
        if self.wanted is None:
            return None
        wholes = list(memory.everywhere())
        found = next((whole for whole in wholes if whole.step == self.wanted and not whole.trained), None)
        if found is None and any(whole.step > self.wanted for whole in wholes):
            self.wanted = None  # it has been overwritten: the next checkpoint is the nearest to it
        return found

    def committed(self, newest: int) -> None:
        """Let go of what is on disk by now, or would come behind it."""
        if self.wanted is not None and self.wanted <= newest:
            self.wanted = None

    def warn_if_unseen(self) -> None:
        """Say once, in the journal, that nobody measures what is to be best."""
        best = self.retention.keep.best
        if best is None or self._seen or self._warned:
            return
        self._warned = True
        there = f"what is measured: {', '.join(sorted(self._others))}" if self._others else "it evaluates nothing"
        self.write(
            "incident",
            cause=Cause.USER_ERROR.value,
            detail=f"checkpoint.keep_best.metric: the program does not tell {best.metric}; {there}",
            decision="training goes on, and no checkpoint is kept for it so far",
        )

    def _name(self, step: int) -> None:
        if step != self.spared:
            self.spared = step
            self.team.give_orders(due_at=step)

    def _hear(self, told: Evaluation) -> None:
        best = self.retention.keep.best
        assert best is not None
        value = told.metrics.get(best.metric)
        if value is None:
            self._others |= {*told.metrics}
            return
        self._seen = True
        bound = self.retention.worst_of_best
        if bound is None or best.key(value) < best.key(bound):
            self.wanted = told.step
        elif self.spared == told.step:
            self.team.give_orders(due_at=0)  # its snapshot need not be spared

    def _rows(self, path: Path) -> list[Evaluation]:
        """The evaluations that came since the last look."""
        best = self.retention.keep.best
        if best is None:
            return []
        before = self._history[1] if self._history is not None and self._history[0] == path else 0
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(before)
                data = os.read(file.fileno(), PIECE_BYTES)
        except OSError:
            return []  # nothing has been told yet
        whole = data.rfind(b"\n") + 1
        self._history = path, before + whole
        lines = data[:whole].splitlines()
        return [found for line in lines if (found := evaluation(line, best.metric)) is not None]
