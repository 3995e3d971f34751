"""When people are told, so that they hear everything and are not flooded.

Rule 1: how a run ends is told at once, and so is the first news of each kind.
Rule 2: everything else is gathered: at most one message a minute, then every two, and so on up to fifteen,
until a quarter of an hour has brought no news.
Rule 3: nothing is dropped. What could not be told stays, and is gathered into the next try.

Pure: news and times in, times out. Times are unix seconds, since the pace survives the process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from supervisor.report.words import CAUSES, duration, one_line

#: The shortest and the longest time between two messages that gather news [s].
GAP_S = 60.0
MOST_GAP_S = 900.0
#: The pause after a first failure to tell; it doubles, up to `MOST_GAP_S` [s].
RETRY_S = 30.0


class Kind(Enum):
    """What news are about."""

    STARTED = "started"
    INCIDENT = "incident"
    GAVE_UP = "gave_up"
    FINISHED = "finished"
    STOPPED = "stopped"
    REQUEUED = "requeued"
    INTERRUPTED = "interrupted"


#: The ends of a stay: nothing may come after them, so they wait for nothing.
ENDS = frozenset(Kind) - {Kind.STARTED, Kind.INCIDENT}


@dataclass(frozen=True, slots=True)
class News:
    """Something that people want to hear.

    Attributes:
        time: when it happened [unix s].
        kind: what it is about.
        sentence: what happened, in words.
        cause: of an incident.
        decision: what was done about it.
    """

    time: float
    kind: Kind
    sentence: str
    cause: str | None = None
    decision: str | None = None

    @property
    def sort(self) -> str:
        """What makes it the first of its kind: for an incident also its cause."""
        return f"{self.kind.value}:{self.cause}" if self.kind is Kind.INCIDENT else self.kind.value


@dataclass(frozen=True, slots=True)
class Pace:
    """How often one address has been told lately.

    Attributes:
        told: when it last was [unix s].
        heard: when the newest news happened that it was told [unix s].
        gap_s: how long news are gathered now [s].
        sorts: the sorts of news that are not the first any more.
        failures: tries in a row that failed.
        retry: not before then [unix s].
    """

    told: float | None = None
    heard: float | None = None
    gap_s: float = GAP_S
    sorts: frozenset[str] = frozenset()
    failures: int = 0
    retry: float = 0.0


def due(news: Sequence[News], pace: Pace, now: float, *, last_chance: bool = False) -> bool:
    """Whether it is time to tell.

    Args:
        news: what has not been told, oldest first.
        pace: of the address.
        now: the wall clock [unix s].
        last_chance: the process is about to end.

    >>> crash = News(0.0, Kind.INCIDENT, "a worker crashed", "crashed")
    >>> first = after_telling([crash], Pace(), now=0.0)
    >>> due([crash], Pace(), 0.0), due([crash], first, 59.0), due([crash], first, 60.0)
    (True, False, True)
    """
    if not news or (not last_chance and pace.failures and pace.retry - MOST_GAP_S <= now < pace.retry):
        return False
    if last_chance or pace.told is None or any(one.kind in ENDS or one.sort not in pace.sorts for one in news):
        return True
    # A clock that was put back must not silence anybody.
    return not pace.told <= now < pace.told + pace.gap_s


def after_telling(news: Sequence[News], pace: Pace, now: float) -> Pace:
    """The pace of an address that has just been told ``news``."""
    heard = max(one.time for one in news)
    sorts = frozenset(one.sort for one in news)
    if pace.heard is None or min(one.time for one in news) - pace.heard >= MOST_GAP_S:
        return Pace(told=now, heard=heard, sorts=sorts)
    gathered = sorts <= pace.sorts and not any(one.kind in ENDS for one in news)
    gap_s = min(MOST_GAP_S, 2 * pace.gap_s) if gathered else pace.gap_s
    return Pace(told=now, heard=max(heard, pace.heard), gap_s=gap_s, sorts=sorts | pace.sorts)


def after_failing(pace: Pace, now: float) -> Pace:
    """The pace of an address that could not be told.

    >>> after_failing(after_failing(Pace(), 0.0), 30.0).retry
    90.0
    """
    pause_s = min(MOST_GAP_S, RETRY_S * 2.0 ** min(pace.failures, 10))
    return replace(pace, failures=pace.failures + 1, retry=now + pause_s)


def gathered(news: Sequence[News]) -> str:
    """Several news in one line.

    >>> crash = [News(20.0 * n, Kind.INCIDENT, "", "crashed") for n in range(5)]
    >>> gathered([*crash, News(180.0, Kind.INCIDENT, "", "gpu_oom")])
    '6 incidents in 3 min: 5 × a worker crashed, 1 × out of GPU memory'
    """
    incidents = [one for one in news if one.kind is Kind.INCIDENT]
    causes = Counter(named(one.cause) for one in incidents)
    counted = f"{len(incidents)} incident{'s' if len(incidents) != 1 else ''}"
    if len(incidents) > 1:
        counted += f" in {duration(max(1.0, incidents[-1].time - incidents[0].time))}"
    listed = ", ".join(f"{count} × {name}" for name, count in causes.most_common())
    return f"{counted}: {listed}" if listed else counted


def named(cause: str | None) -> str:
    """The cause of an incident, as the subject of a message.

    >>> named("gpu_oom"), named("unknown"), named("new")
    ('out of GPU memory', 'something of unknown cause', 'new')
    """
    if cause in (None, "", "unknown"):
        return "something of unknown cause"
    return CAUSES.get(cause or "", one_line(cause))
