"""What follows from a cloud's word that this machine is to go: commit, train on, and leave just in time.

Rule 1: a notice asks for a commit at once, and that commit is the safety copy.
Rule 2: training goes on until just before the deadline, for a notice may be withdrawn; what names no
deadline is obeyed at once. Advice ends nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: So long before the deadline the workers are drained, if that is no more than two thirds of what the notice
#: left [s]. A drain takes two seconds and a commit; AWS calls its deadlines approximate.
MARGIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Notice:
    """A cloud's word that the machine is to go, or that something may happen to it.

    Attributes:
        cloud: whose.
        kind: what is to happen, in the cloud's own terms.
        deadline_s: wall time from which it happens [unix s]; None if none is named.
        detail: what was read, word for word.
        urgent: the machine is lost to this run; else it is advice.
        key: which of the cloud's notices; the same one, told anew, takes the place of the older.
    """

    cloud: str
    kind: str
    deadline_s: float | None
    detail: str
    urgent: bool
    key: str = ""

    def __str__(self) -> str:
        return f"{self.cloud}: {self.kind}"


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A notice that the cloud does not show any more.

    Attributes:
        cloud: whose.
        detail: what it had said.
        key: which of the cloud's notices.
    """

    cloud: str
    detail: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Unread:
    """A cloud's notices cannot be read; it is asked again and again all the same.

    Attributes:
        cloud: whose.
        detail: what came instead.
    """

    cloud: str
    detail: str


News = Notice | Withdrawn | Unread


@dataclass(frozen=True, slots=True)
class Heard:
    """A notice that stands.

    Attributes:
        notice: what was told.
        at_s: monotonic time at which it was first heard of [s].
        deadline_s: the deadline as monotonic time [s]; None if none is named.
    """

    notice: Notice
    at_s: float
    deadline_s: float | None


@dataclass(frozen=True, slots=True)
class GoOn:
    """Nothing is to be done."""


@dataclass(frozen=True, slots=True)
class CommitNow:
    """Make the safety copy; training goes on meanwhile."""


@dataclass(frozen=True, slots=True)
class TrainOn:
    """There is a safety copy, and time left.

    Attributes:
        until_s: monotonic time at which to drain [s].
    """

    until_s: float


@dataclass(frozen=True, slots=True)
class DrainNow:
    """Leave.

    Attributes:
        notice: the one for which.
    """

    notice: Notice


Answer = GoOn | CommitNow | TrainOn | DrainNow


def take(standing: Sequence[Heard], news: Notice | Withdrawn, *, wall_s: float, now_s: float) -> tuple[Heard, ...]:
    """The notices that stand once this has been heard.

    Args:
        standing: the ones before.
        news: what has come.
        wall_s: wall time now [unix s].
        now_s: monotonic time now [s].

    >>> heard = take((), Notice("azure", "Preempt", 1030.0, "", True, "A"), wall_s=1000.0, now_s=50.0)
    >>> heard[0].deadline_s
    80.0
    >>> take(heard, Withdrawn("azure", "", "A"), wall_s=1001.0, now_s=51.0)
    ()
    """
    same = [one for one in standing if (one.notice.cloud, one.notice.key) == (news.cloud, news.key)]
    others = tuple(one for one in standing if one not in same)
    if isinstance(news, Withdrawn):
        return others
    deadline_s = None if news.deadline_s is None else now_s + (news.deadline_s - wall_s)
    return (*others, Heard(news, min((one.at_s for one in same), default=now_s), deadline_s))


def leave_at_s(heard: Heard, commit_s: float) -> float:
    """Monotonic time at which a drain has to begin [s].

    Args:
        heard: an urgent notice.
        commit_s: how long the last commit took [s].

    >>> notice = Notice("aws", "spot", None, "", True)
    >>> [leave_at_s(Heard(notice, 100.0, end), 1.5) for end in (None, 220.0, 106.0, 101.0)]
    [100.0, 208.5, 100.5, 100.0]
    """
    if heard.deadline_s is None:
        return heard.at_s
    margin_s = min(MARGIN_S, max(0.0, heard.deadline_s - heard.at_s) * 2 / 3)
    return max(heard.at_s, heard.deadline_s - margin_s - commit_s)


def answer(standing: Sequence[Heard], *, now_s: float, secured_s: float | None, commit_s: float) -> Answer:
    """What the notices that stand ask for now.

    Args:
        standing: every one that was heard of and not withdrawn.
        now_s: monotonic time [s].
        secured_s: monotonic time at which the last commit that succeeded was begun [s]; None without one.
        commit_s: how long it took [s].
    """
    urgent = [one for one in standing if one.notice.urgent]
    first = min(urgent, key=lambda one: leave_at_s(one, commit_s), default=None)
    if first is not None and now_s >= leave_at_s(first, commit_s):
        return DrainNow(first.notice)
    if any(secured_s is None or secured_s < one.at_s for one in standing):
        return CommitNow()
    return GoOn() if first is None else TrainOn(leave_at_s(first, commit_s))


def most_pressing(standing: Sequence[Heard]) -> Heard | None:
    """The notice to tell others of, if only one can be told.

    >>> advice, order = Notice("aws", "rebalance", None, "", False), Notice("aws", "spot", 90.0, "", True)
    >>> most_pressing([Heard(advice, 1.0, None), Heard(order, 2.0, 90.0)]).notice.kind
    'spot'
    >>> most_pressing([]) is None
    True
    """
    return min(
        standing,
        key=lambda one: (
            not one.notice.urgent,
            (math.inf if not one.notice.urgent else -math.inf) if one.deadline_s is None else one.deadline_s,
        ),
        default=None,
    )
