"""When a checkpoint is due, and how often a snapshot is taken."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seconds:
    """A duration, or a period by the clock [s]."""

    s: float

    def __str__(self) -> str:
        for unit, size_s in (("h", 3600.0), ("min", 60.0)):
            if self.s >= size_s and (self.s / size_s).is_integer():
                return f"{int(self.s / size_s)} {unit}"
        return f"{int(self.s) if self.s.is_integer() else self.s} s"


@dataclass(frozen=True, slots=True)
class Steps:
    """A period of ``n`` optimizer steps, at least 1."""

    n: int

    def __str__(self) -> str:
        return "1 step" if self.n == 1 else f"{self.n} steps"


Period = Seconds | Steps

#: What `checkpoint.every: auto` means until a first commit shows what one costs.
AUTO_EVERY = Seconds(300.0)


def commit_due(every: Period, *, settled: int, committed: int, since_s: float) -> bool:
    """Whether a periodic checkpoint is due.

    Args:
        every: as the job asks.
        settled: newest step settled on all ranks.
        committed: newest step on disk, 0 for none.
        since_s: time since that commit, or since training began [s].

    >>> commit_due(Steps(10), settled=20, committed=10, since_s=0.0)
    True
    >>> commit_due(Steps(10), settled=19, committed=10, since_s=9e9)
    False
    >>> commit_due(Seconds(60.0), settled=10, committed=10, since_s=61.0)
    False
    """
    if settled <= committed:
        return False
    match every:
        case Steps(n):
            return settled // n > committed // n
        case Seconds(s):
            return since_s >= s


#: A snapshot may cost this share of a step, or this long, whichever is more.
SHARE = 0.02
FREE_S = 0.005


def snapshot_period(snapshot_s: float, step_s: float) -> int:
    """Steps from one snapshot to the next, such that they cost next to nothing.

    A power of two, so that the steps taken under a longer period are among those taken
    under a shorter one: ranks that learn of a change a step apart still have steps in common.

    Args:
        snapshot_s: how long one keeps training waiting [s]; NaN while unknown.
        step_s: duration of a step [s]; NaN while unknown.

    >>> snapshot_period(0.004, 0.010), snapshot_period(0.050, 3.0), snapshot_period(0.050, 0.5)
    (1, 1, 8)
    """
    if math.isnan(snapshot_s) or math.isnan(step_s) or step_s <= 0:
        return 1
    if snapshot_s < FREE_S or snapshot_s < SHARE * step_s:
        return 1
    return int(2 ** math.ceil(math.log2(snapshot_s / (SHARE * step_s))))
