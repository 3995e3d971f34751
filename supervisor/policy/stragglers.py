"""Which rank is always slower than its peers, though all wait for it and so take equally long.

Compared is what a step takes of a rank alone (`own_s` of its beat). Pure: time is told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

#: So many times what its peers take.
_TIMES = 1.5
#: And so much more than they [s]: a difference that nobody notices is none.
_LEAST_S = 0.05
#: Slow in every look over so many steps, and so long [s]; one slow file is none of it.
_STEPS, _FOR_S = 20, 30.0


@dataclass(frozen=True, slots=True)
class Straggler:
    """A rank that keeps its peers waiting.

    Attributes:
        rank: global rank.
        own_s: what a step takes of it alone [s].
        peers_s: the median of what it takes of the others [s].
    """

    rank: int
    own_s: float
    peers_s: float

    def __str__(self) -> str:
        times = f"{self.own_s / self.peers_s:.1f} times its peers' " if self.peers_s > 0 else "its peers' "
        return f"rank {self.rank} takes {self.own_s:.3g} s of each step for itself, {times}{self.peers_s:.3g} s"


@dataclass(frozen=True, slots=True)
class Stragglers:
    """What is remembered from look to look.

    Attributes:
        since: for each rank that is slow now, when it was seen so first [s], and at which step.
        said: ranks that were told of, until they have recovered.
    """

    since: dict[int, tuple[float, int]] = field(default_factory=dict)
    said: frozenset[int] = frozenset()

    def after(
        self, own_s: Sequence[float], steps: Sequence[int], now_s: float
    ) -> tuple[Stragglers, tuple[Straggler, ...]]:
        """What is remembered after another look, and the ranks that are to be told of now.

        Args:
            own_s: what a step takes of each rank alone [s]; NaN while unknown.
            steps: newest settled step of each.
            now_s: any monotonic time [s].

        >>> first, _ = Stragglers().after([0.1, 0.4], [10, 10], 0.0)
        >>> _, found = first.after([0.1, 0.4], [200, 200], 40.0)
        >>> str(found[0])
        "rank 1 takes 0.4 s of each step for itself, 4.0 times its peers' 0.1 s"
        """
        since, told = {}, []
        fastest_s = min((s for s in own_s if not math.isnan(s)), default=math.nan)
        for rank, (one_s, step) in enumerate(zip(own_s, steps, strict=True)):
            if not is_slow(one_s, fastest_s):
                continue  # the median of hundreds of peers is not asked for in vain
            peers = [s for other, s in enumerate(own_s) if other != rank and not math.isnan(s)]
            if not peers or not is_slow(one_s, median(peers)):
                continue
            since[rank] = self.since.get(rank, (now_s, step))
            first_s, first_step = since[rank]
            if rank not in self.said and now_s - first_s >= _FOR_S and step - first_step >= _STEPS:
                told.append(Straggler(rank, one_s, median(peers)))
        said = (self.said & since.keys()) | {one.rank for one in told}
        return Stragglers(since, frozenset(said)), tuple(told)


def is_slow(own_s: float, peers_s: float) -> bool:
    """Whether a rank is slower than its peers by so much that it matters.

    >>> is_slow(0.2, 0.1), is_slow(0.02, 0.01), is_slow(0.2, 0.19), is_slow(float("nan"), 0.1)
    (True, False, False, False)
    """
    return own_s > _TIMES * peers_s and own_s - peers_s > _LEAST_S
