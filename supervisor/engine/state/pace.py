"""When periodic checkpoints are due, and what they cost training: `every: auto` follows what is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from supervisor.board.pages import Beat, Phase
from supervisor.job import Auto, Every
from supervisor.policy.interval import Exposure, Interval, interval, worth_telling
from supervisor.policy.schedule import AUTO_EVERY, Period, Steps


def interval_of(every: Every, seen: Exposure, grace_s: float, machines: int = 1) -> Interval | None:
    """What `every: auto` comes to; None where the job says itself how often, or nothing is known yet."""
    return interval(seen, grace_s, machines) if isinstance(every, Auto) else None


def period_of(every: Every, seen: Exposure, grace_s: float, machines: int = 1) -> Period:
    """When a periodic checkpoint is due, as far as it is known now; arguments of `policy.interval.interval`."""
    if not isinstance(every, Auto):
        return every
    found = interval(seen, grace_s, machines)
    return found.period if found is not None else AUTO_EVERY


@dataclass(slots=True)
class Pace:
    """Measures what commits cost, and says when the next one is due.

    Of a commit, the time between two steps' ends around it is compared with what so many steps usually take. A
    single figure is mostly noise, so the median of many is used, and figures below nothing are kept.

    Attributes:
        every: as the job asks.
        grace_s: between word of the end and the end [s].
        exposure: what the journal tells by now.
        machines: how many there are each of whose losses loses state, by now.
    """

    every: Every
    grace_s: float
    exposure: Callable[[], Exposure]
    machines: Callable[[], int] = lambda: 1
    _found: tuple[Exposure, int, Period] | None = None  # to what the last answer was, and what it was
    _from: Beat | None = None  # as the commit under way found training
    _until: int | None = None  # the step during which it ended
    _slowed_s: float | None = None  # of a commit that the journal does not tell of yet

    @property
    def period(self) -> Period:
        """When a periodic checkpoint is due; asked many times a second, and another one only after a new record."""
        seen, machines = self.exposure(), self.machines()
        if self._found is None or self._found[0] is not seen or self._found[1] != machines:
            self._found = seen, machines, period_of(self.every, seen, self.grace_s, machines)
        return self._found[2]

    @property
    def steps(self) -> int:
        """Steps from one due checkpoint to the next, 0 if the clock decides."""
        return self.every.n if isinstance(self.every, Steps) else 0

    def begins(self, beats: Sequence[Beat]) -> None:
        """A commit begins."""
        self._from, self._until = next((beat for beat in beats if _trains(beat)), None), None

    def ends(self, beats: Sequence[Beat]) -> None:
        """It is over."""
        self._until = beats[0].step if beats else None
        if self._until is None:
            self._from = None

    def look(self, beats: Sequence[Beat]) -> None:
        """See how training goes; what it did besides making steps says nothing of a commit."""
        if self._from is None or not beats:
            return
        now = beats[0]
        if not _trains(now) or now.step < self._from.step:
            self._from = None
        elif self._until is not None and now.step > self._until:
            steps = now.step - self._from.step
            self._slowed_s = now.time_s - self._from.time_s - steps * now.step_s
            self._from = None

    def told(self, commit: Mapping[str, Any]) -> dict[str, float]:
        """What a commit's record says besides: the price of the one before it, and the interval if that is new."""
        more: dict[str, float] = {}
        if self._slowed_s is not None:
            more["slowed_s"], self._slowed_s = round(self._slowed_s, 6), None
        seen = self.exposure().after({"event": "checkpoint_committed", **commit, **more})
        found = interval_of(self.every, seen, self.grace_s, self.machines())
        if found is not None and worth_telling(found.period.s, seen.told_s):
            more |= {"every_s": found.period.s, "cost_s": round(found.cost_s, 6), "between_s": round(found.between_s)}
        return more


def _trains(beat: Beat) -> bool:
    return beat.phase == Phase.TRAINING and not math.isnan(beat.step_s)
