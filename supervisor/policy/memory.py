"""When to say that a machine's memory comes to its end, before the kernel kills for it.

It is only said, never acted upon: what is full may stay full for days, and a training that is ended for fear of its end
has lost more than one that meets it.

What this does not protect against: one allocation that takes all that is left between two looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

#: Said when so much is used, however it came to be.
FULL_SHARE = 0.92
#: Said when so much is used and the trend reaches the limit within `AHEAD_S`.
RISING_SHARE = 0.75
AHEAD_S = 300.0
#: Said again only after so little was used. Further down than `RISING_SHARE`, or a saw's teeth would say it each time.
AGAIN_SHARE = 0.70
#: Of how much time the trend is taken, and below how much there is none [s].
WINDOW_S = 180.0
LEAST_S = 60.0
#: A growth that has stopped is none: these last seconds have to grow as well [s].
LATELY_S = 40.0


@dataclass(frozen=True, slots=True)
class Sample:
    """How much of its memory a machine, or a control group, used at one moment.

    Attributes:
        of: what the limit is of, in words; samples of different ones make no trend.
        time_s: monotonic [s].
        used_bytes: without what the kernel drops before it refuses.
        limit_bytes: where it refuses.
    """

    of: str
    time_s: float
    used_bytes: int
    limit_bytes: int

    @property
    def share(self) -> float:
        """Used, of what may be."""
        return self.used_bytes / self.limit_bytes if self.limit_bytes > 0 else 1.0


class Level(IntEnum):
    """How near the end is."""

    FAR = 0
    RISING = 1
    FULL = 2


@dataclass(frozen=True, slots=True)
class Shortage:
    """What has been seen of the end.

    Attributes:
        level: how near it is.
        sample: the newest.
        full_in_s: when the trend reaches the limit; None without such a trend [s].
    """

    level: Level
    sample: Sample
    full_in_s: float | None


def shortage(samples: Sequence[Sample]) -> Shortage | None:
    """Judge the newest of some samples in the light of those before it; None without any.

    Args:
        samples: in the order of their times.

    >>> shortage([Sample("the machine", 0.0, 93, 100)]).level.name
    'FULL'
    """
    if not samples:
        return None
    last = samples[-1]
    full_in_s = _full_in_s(samples) if last.share > RISING_SHARE else None
    if last.share > FULL_SHARE:
        return Shortage(Level.FULL, last, full_in_s)
    rising = full_in_s is not None and full_in_s <= AHEAD_S
    return Shortage(Level.RISING if rising else Level.FAR, last, full_in_s)


def is_over(sample: Sample) -> bool:
    """Whether a shortage that was told of has passed, so that the next one is told of again."""
    return sample.share < AGAIN_SHARE


def _full_in_s(samples: Sequence[Sample]) -> float | None:
    last = samples[-1]
    same = [one for one in samples if one.of == last.of and last.time_s - one.time_s <= WINDOW_S]
    if last.time_s - same[0].time_s < LEAST_S:
        return None
    lately = [one for one in same if last.time_s - one.time_s <= LATELY_S]
    slope = min(_slope(same), _slope(lately))
    if slope <= 0.0:
        return None
    return max(0.0, last.limit_bytes - last.used_bytes) / slope


def _slope(samples: Sequence[Sample]) -> float:
    """Median of the slopes of all pairs [bytes/s]: a third of the samples may be anything without moving it much.

    Source: the Theil-Sen estimator; its breakdown point is 29 %.
    """
    slopes = sorted(
        (later.used_bytes - earlier.used_bytes) / (later.time_s - earlier.time_s)
        for at, later in enumerate(samples)
        for earlier in samples[:at]
        if later.time_s > earlier.time_s
    )
    return slopes[len(slopes) // 2] if slopes else 0.0
