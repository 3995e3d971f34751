"""How far to go back when training has diverged, and whose data to pass over.

A value that is not finite has a place: the step at which it came. The state before that step is
good, so only that step's data is passed over. A loss that rose has none: what led there may lie
some steps back. Either may come again right after, for the state before was bad already; then
the way back grows tenfold.

Source: PaLM (arXiv 2204.02311, section 5.1): restarts from some 100 steps before a spike, with the
data of 200 to 500 batches passed over, ended it each time.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

#: How many steps further back than the first bad one, by how often the run has gone back near there.
REACHES = (0, 10, 100)
#: What comes within so many steps of an earlier one may have its cause.
CLOSE_STEPS = 100
#: So often a run goes back within so many steps; then a person has to look.
MOST, WITHIN_STEPS = 3, 1000


@dataclass(frozen=True, slots=True)
class Divergence:
    """What a rank saw of it; what was not finite is infinite here.

    Attributes:
        rank: global.
        first: the first step that went wrong.
        last: the newest step that it had settled by then.
        loss: of that one, None while unknown.
        grad_norm: of that one, None while unknown.
    """

    rank: int
    first: int
    last: int
    loss: float | None = None
    grad_norm: float | None = None

    @property
    def rose(self) -> bool:
        """Whether all was finite, and the loss only high."""
        return not any(value is not None and math.isinf(value) for value in (self.loss, self.grad_norm))

    @property
    def suspect(self) -> int:
        """The first step whose state is not to be trusted.

        Where nobody knows the gradients, those of the step before may have been the bad ones: its loss
        came before its update.

        >>> Divergence(0, 7, 7, math.inf, math.inf).suspect, Divergence(0, 7, 7, math.inf).suspect
        (7, 6)
        """
        unknown = self.grad_norm is None and not self.rose
        return max(1, self.first - 1 if unknown else self.first)

    def words(self) -> str:
        """For people.

        >>> Divergence(1, 41, 41, math.inf, math.inf).words()
        'rank 1: the loss is not finite at step 41'
        >>> Divergence(0, 41, 43, 9.25, 3.0).words()
        'rank 0: the loss rose at step 41 and is 9.25 at step 43'
        """
        if self.loss is not None and math.isinf(self.loss):
            return f"rank {self.rank}: the loss is not finite at step {self.first}"
        if self.grad_norm is not None and math.isinf(self.grad_norm):
            loss = "" if self.loss is None else f" (the loss was {self.loss:.4g})"
            return f"rank {self.rank}: the gradients are not finite at step {self.first}{loss}"
        loss = "not known" if self.loss is None else f"{self.loss:.4g}"
        return f"rank {self.rank}: the loss rose at step {self.first} and is {loss} at step {self.last}"


def near(diverged: Divergence, behind: Sequence[int], within: int = WITHIN_STEPS) -> list[int]:
    """Of the steps that the run has gone back behind, those near there.

    >>> near(Divergence(0, 2500, 2500), [400, 1600, 2490])
    [1600, 2490]
    """
    return [step for step in behind if abs(step - diverged.first) < within]


def way_back(
    diverged: Divergence, behind: Sequence[int], states: Collection[int]
) -> tuple[int, tuple[int, int]] | None:
    """The step to go back behind, and the first and last step whose data is passed over; None for no more.

    Never behind all states that there are, if one of them is good: to begin anew costs more.

    Args:
        diverged: what happened.
        behind: the steps that the run went back behind since a person looked at it last.
        states: steps of the states that can be gone on from.

    >>> nan = Divergence(0, 300, 300, math.inf, math.inf)
    >>> [way_back(nan, behind, [100, 250, 299]) for behind in ([], [280], [280, 290], [280, 290, 200])]
    [(300, (300, 300)), (290, (290, 300)), (200, (200, 300)), None]
    >>> way_back(nan, [280, 290], [280, 299]), way_back(nan, [10, 120], [299])
    ((281, (281, 300)), (300, (300, 300)))
    """
    if len(near(diverged, behind)) >= MOST:
        return None
    again = len(near(diverged, behind, CLOSE_STEPS))
    reach = REACHES[min(again + diverged.rose, len(REACHES) - 1)]
    before = max(1, diverged.suspect - reach)
    good = [step for step in states if step < diverged.suspect]
    if good and min(good) >= before:
        before = min(good) + 1
    return before, (before, max(diverged.last, before))
