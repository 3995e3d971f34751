"""Why an attempt ended: what was wished, what was seen, and what the ranks recorded, in that order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from supervisor.board.pages import Beat
from supervisor.engine.ranks.node import Testimony
from supervisor.engine.wishes import Wishes
from supervisor.policy.causes import Cause, Verdict
from supervisor.policy.diagnosis import diagnose
from supervisor.policy.lifecycle import Wish


def verdict_of(
    testimony: Testimony,
    wishes: Wishes,
    beats: Sequence[Beat],
    early: Verdict | None,
    scheduler: Verdict | None,
    *,
    trained_before: bool = False,
) -> Verdict:
    """Find out why an attempt ended.

    Args:
        testimony: what the workers of all nodes left; none of them lives.
        wishes: what somebody outside wanted.
        beats: of ranks that had begun to train; none if they had not.
        early: what was seen while they lived, and for which they were ended.
        scheduler: why a scheduler takes the machine back, where one does.
        trained_before: the run has settled steps before.
    """
    if testimony.finished:
        return _returned(beats)
    match wishes.wish:
        case Wish.HAND_BACK:
            return scheduler or Verdict(Cause.PREEMPTED, f"the supervisor received {wishes.by}")
        case Wish.STOP | Wish.KILL:
            return scheduler or Verdict(Cause.USER_STOP, f"asked by {wishes.by}")
    found = diagnose(testimony.ends, testimony.launcher, oom_kills=testimony.oom_kills, trained_before=trained_before)
    return found if early is None else _with_words_of(early, found)


def _with_words_of(early: Verdict, found: Verdict) -> Verdict:
    """What was seen while they lived, with what they left as its details: a lost node's peers tell the rest."""
    told = () if found.cause is Cause.UNKNOWN else (found.evidence, *found.details)
    return replace(early, root=early.root or early.cause.value, details=(*early.details, *told))


def _returned(beats: Sequence[Beat]) -> Verdict:
    """Every program returned: that is the end only if training had reached its own."""
    if all(beat.trained for beat in beats):
        return Verdict(Cause.FINISHED, "every rank's program returned")
    at = f"at step {min(beat.step for beat in beats)} of {beats[0].max_steps}"
    return Verdict(Cause.CRASHED, f"the program returned {at}, before the end of training")
