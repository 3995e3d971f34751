"""How often a checkpoint goes to disk, from what one costs and how often memory is lost.

Rule 1: only what needs the disk counts. A worker that crashes, a node that is lost while another has the same state,
a preemption whose grace was long enough: memory carried the state, or brought it to disk first, and no interval
would have saved a step. What counts is an attempt that had got further than what the next one began with.
Rule 2: everything is read from the journal, so that a run that moves to another machine goes on learning.

The model: failures come at a constant rate; from one to the next is `M` seconds of training on average. With a
checkpoint every `T` seconds, each costing `C` seconds of training, a share of about `C / T + T / 2M` of the time is
lost. Young's interval makes that least; Daly's has the terms of higher order, which matter where `C` is no longer
small against `M`. The loss is linear in the rate, so of a rate that is known only roughly its mean is the one to use.

Sources:
    J. W. Young, A first order approximation to the optimum checkpoint interval, CACM 17 (1974), 530.
    J. T. Daly, A higher order estimate of the optimum checkpoint interval for restart dumps, FGCS 22 (2006), 303,
    equation 37; equation 20 is the expected run time that `tests/bench/interval.py` compares with.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from supervisor.policy.schedule import Seconds

#: What is known of a run's failures before it has had one: the rate lies between these two, and each order of
#: magnitude is as likely as any other (a Gamma distribution of shape 0, cut off at both ends). Seldom: a node of a
#: large cluster fails once in 154 days (6.5 in 1000 node-days: Meta's RSC-1, arXiv:2410.21680). Often: spot machines
#: were taken away after 1.64 h each, from a set of 32 every eight minutes (Bamboo's trace of p3 instances); a run that
#: loses its memory more often than that gets nowhere at any interval. A Gamma distribution with a shape above 0 would
#: be simpler; but the one that is as wide holds rates far above its mean for impossible, and so learns them
#: slowly.
SELDOM_S, OFTEN_S = 154 * 86400.0, 500.0
#: Where a commit does not fit into the grace, announced ends lose memory, too: once a day, a usual time limit, or more.
ANNOUNCED_S = 86400.0

#: A commit keeps training waiting for at least this share of its own time, though less may be measured: steps during a
#: commit are up to a tenth slower even with a core to spare, and of a difference that small most is noise.
LEAST_SHARE = 0.05
#: Neither is every loss worth a disk that is written to all the time, nor does anybody want to lose more than this [s].
SHORTEST_S, LONGEST_S = 30.0, 3600.0
#: An interval may be longer than that where commits would otherwise take more than this share of the time.
DEAR = 0.01
#: A final commit has to fit into the grace twice over: at a preemption many write to the same disk at once.
ROOM = 2.0
#: A change by less is not worth a word.
NOTABLE = 1.25

_WINDOW = 15
_GRID, _MANY = 400, 100
#: Two lines of a journal are never further apart while training goes on; a clock that jumps says otherwise [s].
_LONGEST_GAP_S = 24 * 3600.0
_SECURED = ("emergency", "final", "best")


@dataclass(frozen=True, slots=True)
class Exposure:
    """What a run's journal tells about failures, and about the price of commits.

    Attributes:
        losses: how often the disk was needed, since memory was lost.
        trained_s: how long the run has trained in all [s].
        write_s: how long the last commits took [s].
        slowed_s: by how much each of them slowed training down [s].
        told_s: the interval that the journal speaks of since the last start [s]; None while it speaks of none.
    """

    losses: int = 0
    trained_s: float = 0.0
    write_s: tuple[float, ...] = ()
    slowed_s: tuple[float, ...] = ()
    told_s: float | None = None
    _trains: bool = False
    _last_s: float = 0.0
    _secured: int = -1  # newest step that is on disk for more than the period's sake, or that the attempt began with
    _ahead: bool = False  # memory has what the disk would not give back

    def after(self, record: Mapping[str, Any]) -> Exposure:  # noqa: PLR0911 - one case per event
        """What is known after one more line of the journal."""
        time_s = record.get("time")
        now_s = float(time_s) if isinstance(time_s, int | float) else self._last_s
        passed_s = min(max(0.0, now_s - self._last_s), _LONGEST_GAP_S) if self._trains else 0.0
        event = record.get("event")
        if event in ("run_started", "allocation_started"):
            passed_s = 0.0  # nobody was there to see when training stopped
        seen = replace(self, trained_s=self.trained_s + passed_s, _last_s=now_s)
        match event:
            case "run_started":
                ahead = seen._ahead and not record.get("fresh")
                return replace(seen, told_s=None, _trains=False, _ahead=ahead)
            case "allocation_started":
                return replace(seen, _trains=False)
            case "attempt_started":
                lost = seen._ahead and record.get("source") != "snapshot"
                return replace(seen, losses=seen.losses + lost, _ahead=False)
            case "training_started":
                return replace(seen, _trains=True, _ahead=False, _secured=_count(record.get("step"), 0))
            case "attempt_ended":
                ahead = seen._ahead or _count(record.get("step"), -1) > seen._secured
                return replace(seen, _trains=False, _ahead=ahead)
            case "checkpoint_committed":
                return seen._committed(record)
        return seen

    def _committed(self, record: Mapping[str, Any]) -> Exposure:
        step = _count(record.get("step"), 0)
        secured = record.get("reason") in _SECURED and record.get("trained") is not False
        return replace(
            self,
            write_s=(*self.write_s, *_seconds(record.get("write_s")))[-_WINDOW:],
            slowed_s=(*self.slowed_s, *_seconds(record.get("slowed_s")))[-_WINDOW:],
            told_s=next(iter(_seconds(record.get("every_s"))), self.told_s),
            _secured=max(self._secured, step) if secured else self._secured,
            _ahead=not secured and (self._ahead or step > self._secured),
        )


def exposure(records: Iterable[Mapping[str, Any]]) -> Exposure:
    """What a journal tells.

    >>> exposure([{"event": "attempt_started", "source": "checkpoint", "time": 1.0}]).losses
    0
    """
    seen = Exposure()
    for record in records:
        seen = seen.after(record)
    return seen


def _count(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _seconds(value: object) -> tuple[float, ...]:
    """The value if it is a time; one that was measured too short may be negative."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return (float(value),) if known else ()  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Interval:
    """How often, and why.

    Attributes:
        every_s: from the end of a commit to the beginning of the next [s].
        cost_s: what one costs training [s].
        between_s: training between two losses of memory [s].
        losses: how many of these there were.
        machines: how many there are each of whose losses loses state.
    """

    every_s: float
    cost_s: float
    between_s: float
    losses: int
    machines: int = 1

    @property
    def period(self) -> Seconds:
        """As a period, in whole seconds."""
        return Seconds(float(round(self.every_s)))

    def words(self) -> str:
        """Why it is this one.

        >>> Interval(98.3, 0.05, 100_000.0, 1).words()
        'a commit costs training 0.05 s, and memory is expected to be lost once in 28 h (1 so far)'
        """
        hours = self.between_s / 3600.0
        of = f" of one of {self.machines} nodes" if self.machines > 1 else ""
        seldom = f"{hours:.0f} h" if hours >= 10 else f"{hours:.1f} h"
        return (
            f"a commit costs training {self.cost_s:.2g} s, and memory{of} is expected to be lost once in {seldom} "
            f"({self.losses} so far)"
        )


def interval(seen: Exposure, grace_s: float, machines: int = 1) -> Interval | None:
    """The interval that loses least, as far as the run knows itself; None before its first commit.

    Args:
        seen: what its journal tells.
        grace_s: time between word of the end and the end [s].
        machines: how many there are each of whose losses loses state: 1 where all hold the same.

    >>> interval(Exposure(), 30.0) is None
    True
    >>> interval(Exposure(write_s=(1.0,), trained_s=36_000.0), 30.0).period
    Seconds(s=138.0)
    """
    write_s = _median(seen.write_s)
    if write_s is None:
        return None
    cost_s = max(_median(seen.slowed_s) or 0.0, LEAST_SHARE * write_s, 1e-3)
    seldom_s = (SELDOM_S if ROOM * write_s <= grace_s else ANNOUNCED_S) / machines
    between_s = expected_s(seen.losses, seen.trained_s, max(seldom_s, 2 * OFTEN_S))
    longest_s = max(LONGEST_S, cost_s / DEAR)
    # The clock starts at a commit's end, while what counts is from the beginning of one to that of the next.
    wanted_s = daly_s(cost_s, between_s) + cost_s - write_s
    every_s = max(SHORTEST_S, write_s, min(wanted_s, longest_s))
    return Interval(every_s, cost_s, between_s, seen.losses, machines)


def expected_s(losses: int, trained_s: float, seldom_s: float = SELDOM_S) -> float:
    """Training between two failures [s]: one over the mean of the rate, after what has been seen.

    Args:
        losses: failures so far.
        trained_s: time in which they came [s].
        seldom_s: how seldom they may be at most [s].

    >>> [round(expected_s(losses, 36_000.0) / 3600.0, 1) for losses in (0, 1, 10)]  # after ten hours
    [53.6, 10.0, 1.0]
    """
    least, most = 1.0 / seldom_s, 1.0 / OFTEN_S
    if losses >= _MANY:  # the ends of what was thought possible do not matter any more
        return trained_s / losses
    grid: list[float] = [least * (most / least) ** (n / _GRID) for n in range(_GRID + 1)]
    logs = [losses * math.log(rate) - rate * trained_s for rate in grid]
    highest = max(logs)
    weights = [math.exp(log - highest) for log in logs]
    return sum(weights) / sum(rate * weight for rate, weight in zip(grid, weights, strict=True))


def worth_telling(every_s: float, told_s: float | None) -> bool:
    """Whether an interval differs notably from the one that was told last.

    >>> worth_telling(100.0, None), worth_telling(100.0, 90.0), worth_telling(100.0, 60.0), worth_telling(60.0, 100.0)
    (True, False, True, True)
    """
    return told_s is None or max(every_s, told_s) >= NOTABLE * min(every_s, told_s)


def young_s(cost_s: float, between_s: float) -> float:
    """Training between two checkpoints that loses least, to first order [s].

    >>> young_s(0.5, 3600.0)
    60.0
    """
    return math.sqrt(2.0 * cost_s * between_s)


def daly_s(cost_s: float, between_s: float) -> float:
    """The same with the terms of higher order [s]; where a commit costs as much as failures leave, that is all.

    >>> round(daly_s(0.5, 3600.0), 2), daly_s(9000.0, 3600.0)
    (59.67, 3600.0)
    """
    if cost_s >= 2.0 * between_s:
        return between_s
    ratio = cost_s / (2.0 * between_s)
    return young_s(cost_s, between_s) * (1.0 + math.sqrt(ratio) / 3.0 + ratio / 9.0) - cost_s


def _median(values: tuple[float, ...]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None
