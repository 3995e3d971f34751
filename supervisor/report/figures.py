"""Figures that are counted from a run's history: what was lost, and how well time was used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from supervisor.report.fold import Attempt, RunHistory


@dataclass(frozen=True, slots=True)
class Span:
    """The training of one attempt.

    Attributes:
        resumed: the step it started from.
        settled: the newest step settled in it.
        training_s: from the start of training to the attempt's end [s].
    """

    resumed: int
    settled: int
    training_s: float


def goodput(spans: Sequence[Span], wall_s: float) -> float | None:
    """Share of the wall time that went into training steps that count.

    A step counts if no later attempt made it again. Of an attempt's training
    time that share counts which its counting steps are of all its steps; its
    start, the waiting before it, and what came to nothing are the rest.

    Here the second attempt makes the first one's last 10 of 50 steps again, so
    80 s of the first's 100 s count, all 60 s of the second, and 40 s were neither:

    >>> goodput([Span(0, 50, 100.0), Span(40, 70, 60.0)], wall_s=200.0)
    0.7

    Args:
        spans: of all attempts that trained, oldest first.
        wall_s: from the run's start to its end, or to now [s].

    Returns:
        0 to 1; None while nothing was trained, or no time has passed.
    """
    if not spans or wall_s <= 0:
        return None
    good_s = 0.0
    kept_below: int | None = None  # later attempts started here: what is above was made again
    for span in reversed(spans):
        end = span.settled if kept_below is None else min(span.settled, kept_below)
        if span.settled > span.resumed and end > span.resumed:
            good_s += span.training_s * (end - span.resumed) / (span.settled - span.resumed)
        kept_below = span.resumed if kept_below is None else min(kept_below, span.resumed)
    return min(1.0, max(0.0, good_s / wall_s))


def history_goodput(
    history: RunHistory, now: float, *, step: int | None = None, until: float | None = None
) -> float | None:
    """The goodput of a run.

    Of an attempt whose end nobody recorded, only the time until its last sign counts.

    Args:
        history: of the run.
        now: the wall clock [unix s].
        step: the newest settled step of an attempt without an end, where that is known.
        until: when that was so; now, if the attempt is under way [unix s].
    """
    if history.started is None:
        return None
    end = history.ended if history.ended is not None else now
    spans = [span for a in history.counted if (span := _span(a, step, until)) is not None]
    return goodput(spans, end - history.started)


def steps_redone(history: RunHistory) -> int | None:
    """Settled steps that were made again, over all resumes.

    Returns:
        None before the first attempt trained, and where an attempt's newest
        settled step was lost together with the supervisor that knew it.
    """
    trained = [a for a in history.counted if a.training is not None]
    if not trained:
        return None
    total = 0
    for before, after in pairwise(trained):
        if before.step is None or after.resumed is None:
            return None
        total += max(0, before.step - after.resumed)
    return total


def _span(attempt: Attempt, step: int | None, until: float | None) -> Span | None:
    if attempt.training is None or attempt.resumed is None:
        return None
    settled, end = attempt.reached, attempt.ended
    if end is None:
        settled = max(step, settled or 0) if step is not None else settled
        end = max(attempt.seen, until if until is not None else attempt.seen)
    return Span(attempt.resumed, max(attempt.resumed, settled or 0), max(0.0, end - attempt.training))
