"""Going the ladder of `policy.handback`: each step done, its outcome looked at, until there is none left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from supervisor.launch.slurm import ask, requeue
from supervisor.policy.handback import Answer, Facts, Look, Over, Pause, Requeue, Resubmit, Said, next_step

#: Longer than SLURM's own MessageTimeout (10 s): a slurmctld that is busy answers at its end [s].
TRY_S = 12.0


def go(task: str, facts: Facts, until_s: float, submit: Callable[[Facts, float], Said]) -> Over:
    """Go the ladder to its end.

    Args:
        task: how SLURM is asked for the job.
        facts: what is known already.
        until_s: monotonic time at which this process is killed [s].
        submit: submits the job once more, given the facts and the seconds left.
    """
    while True:
        facts = replace(facts, left_s=until_s - time.monotonic())
        step = next_step(facts)
        if isinstance(step, Over):
            return step
        facts = _after(step, task, facts, submit)


def _after(step: Look | Requeue | Resubmit | Pause, task: str, facts: Facts, submit: Callable[..., Said]) -> Facts:
    """What is known after a step."""
    patience_s = min(TRY_S, max(1.0, facts.left_s))
    match step:
        case Look():
            seen = ask(task, patience_s)
            if isinstance(seen, Said):
                return replace(facts, look=seen, tries=facts.tries + 1)
            return replace(facts, seen=seen, look=None)
        case Requeue():
            said = requeue(task, patience_s)
            if said.answer is not Answer.SILENT:
                return replace(facts, requeue=said)
            # It may have been done all the same: nothing is known until the job has been seen again.
            return replace(facts, requeue=said, seen=None, look=said, tries=facts.tries + 1)
        case Resubmit():
            return replace(facts, submission=submit(facts, patience_s))
        case Pause(seconds):
            time.sleep(seconds)
            return replace(facts, look=None)
