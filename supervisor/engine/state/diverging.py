"""Divergence as the loop sees it: in beats, in snapshots, and in what it means for a state to count."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from supervisor.board.pages import Beat
from supervisor.engine.state.memory import Whole
from supervisor.policy.causes import Cause, Verdict
from supervisor.policy.divergence import Divergence
from supervisor.policy.ledger import Ledger

#: How long the other ranks may take to tell what they saw, before the attempt is ended for what one saw [s].
#: The one whose own loss went wrong tells more than one that got its gradients.
TELL_S = 0.5


def divergence_of(beats: Sequence[Beat]) -> Divergence | None:
    """What the beats tell of a divergence: the rank that saw it first, among equals one whose own loss it was.

    >>> divergence_of([Beat(step=9), Beat(step=9)])
    >>> beats = [Beat(step=9, loss=2.0, grad_norm=math.inf, diverged_at=9), Beat(step=9, loss=math.inf, diverged_at=9)]
    >>> divergence_of(beats)
    Divergence(rank=1, first=9, last=9, loss=inf, grad_norm=None)
    """
    told = [(beat.diverged_at, not math.isinf(beat.loss), rank) for rank, beat in enumerate(beats)]
    first, _, rank = min((one for one in told if one[0] >= 0), default=(-1, True, -1))
    if rank < 0:
        return None
    beat = beats[rank]
    return Divergence(rank, first, max(beat.step, first), _known(beat.loss), _known(beat.grad_norm))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


@dataclass(slots=True)
class Diverging:
    """Looks for it.

    Attributes:
        on_nan: what follows, as in the job file.
        beats: asks for those of all ranks.
        ledger: asks for the run's.
        write: the journal's append.
    """

    on_nan: str
    beats: Callable[[], list[Beat]]
    ledger: Callable[[], Ledger]
    write: Callable[..., object]
    _since_s: float | None = None
    _told: bool = False

    def begin(self) -> None:
        """A new attempt begins."""
        self._since_s, self._told = None, False

    def look(self, now_s: float) -> Verdict | None:
        """Why the attempt is to end; None as long as it may go on.

        Args:
            now_s: monotonic time [s].
        """
        beats = self.beats()
        seen = divergence_of(beats)
        if seen is None:
            return None
        if self.on_nan == "ignore":
            if not self._told:
                self._told = True
                decision = "training goes on, since the job says `on_nan: ignore`"
                self.write("incident", cause=Cause.DIVERGED.value, detail=seen.words(), decision=decision)
            return None
        self._since_s = now_s if self._since_s is None else self._since_s
        if any(beat.diverged_at < 0 for beat in beats) and now_s - self._since_s < TELL_S:
            return None
        return Verdict(Cause.DIVERGED, seen.words())

    @property
    def seen(self) -> Divergence | None:
        """What this attempt showed, and ends for; None if there is nothing."""
        return None if self.on_nan == "ignore" else divergence_of(self.beats())

    def counts(self, whole: Whole) -> bool:
        """Whether a snapshot may be gone on from, and committed as good.

        A rise is seen some steps late: then the snapshots before bear no mark, and what the ranks tell decides.
        """
        lineage, step = whole.key
        ledger = self.ledger()
        if not ledger.counts(lineage, step):
            return False
        if self.on_nan == "ignore":
            return True
        seen = self.seen
        return not whole.diverged and (seen is None or lineage != ledger.lineage or step < seen.suspect)
