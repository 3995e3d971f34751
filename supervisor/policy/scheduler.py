"""What a scheduler means by the end of a job, and what is to become of it.

Pure. What was seen of the job is a value; the text that it was read from is `launch.slurm`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from supervisor.policy.causes import Cause, Verdict

#: An end this much before the limit still is the limit: slurmctld looks once in a while [s].
LIMIT_SLACK_S = 5.0
#: A job that is shown so waits to start, again or for the first time.
QUEUED = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")


class Fate(Enum):
    """What is to become of the job."""

    STOP = "stop"  # somebody wants it gone
    QUEUED = "queued"  # it is back in the queue already
    REQUEUE = "requeue"  # it ends for good unless it is put back


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSeen:
    """A job as the scheduler shows it; None for what it does not say.

    Attributes:
        state: one word, such as RUNNING; while processes are being ended often just COMPLETING.
        restarts: how often it was requeued.
        may_requeue: whether it was submitted so that it can be.
        start_s: when it began [unix s].
        end_s: when it ends or has ended [unix s].
        limit_s: how long it may run [s].
        preempted_s: when it was chosen to make room [unix s].
        reason: one word: why it waits, or why it ended.
        priority: 0 while it is held.
        batch: whether it has a script of its own.
        partition: where it runs; several names with commas while it waits.
        nodes: how many it needs.
        requested: nodes that it must have, in the scheduler's short form.
        excluded: nodes that it must not have, in the same form.
    """

    state: str
    restarts: int | None = None
    may_requeue: bool | None = None
    start_s: float | None = None
    end_s: float | None = None
    limit_s: float | None = None
    preempted_s: float | None = None
    reason: str | None = None
    priority: int | None = None
    batch: bool | None = None
    partition: str | None = None
    nodes: int | None = None
    requested: str = ""
    excluded: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """Why the scheduler ends a job, and what follows.

    Attributes:
        fate: what is to become of it.
        verdict: for the attempt under way.
    """

    fate: Fate
    verdict: Verdict


def ending(seen: JobSeen | None, restart: int, received: str) -> Ending:
    """Find out why a job was signalled.

    While a job's processes are being ended, the text forms show COMPLETING instead of why; then
    what else stands there has to tell: a restart more, a preemption, the reason, the limit. Who
    cancels a job leaves nothing of these.

    Args:
        seen: the job, None if nobody could be asked.
        restart: how often this incarnation had been requeued.
        received: the signal, or what else told that the end is near.

    Source: job_state_string() of SLURM 22.05 to 25.11, and a live 22.05.
    """
    if seen is None:
        return Ending(Fate.REQUEUE, Verdict(Cause.PREEMPTED, f"{received}; the scheduler could not be asked why"))
    fate, cause, words = _read(seen, restart)
    return Ending(fate, Verdict(cause, f"{received}; {words}"))


def _read(seen: JobSeen, restart: int) -> tuple[Fate, Cause, str]:  # noqa: PLR0911 - one case per fate
    if (seen.restarts is not None and seen.restarts > restart) or seen.state in QUEUED:
        return Fate.QUEUED, Cause.PREEMPTED, "the scheduler put the job back into the queue"
    if seen.state == "CANCELLED":
        return Fate.STOP, Cause.USER_STOP, "the job was cancelled"
    if seen.preempted_s is not None or seen.state == "PREEMPTED":
        return Fate.REQUEUE, Cause.PREEMPTED, "the scheduler needs the nodes for another job (PreemptTime)"
    if seen.state in ("TIMEOUT", "DEADLINE") or _at_limit(seen):
        return Fate.REQUEUE, Cause.TIME_LIMIT, "the job's time limit is reached"
    if seen.state in ("NODE_FAIL", "BOOT_FAIL") or seen.reason == "NodeDown":
        return Fate.REQUEUE, Cause.NODE_LOST, "a node of the job failed"
    if seen.state == "COMPLETING":
        return Fate.STOP, Cause.USER_STOP, "the job was cancelled"
    return Fate.REQUEUE, Cause.PREEMPTED, f"the scheduler shows the job as {seen.state}"


def _at_limit(seen: JobSeen) -> bool:
    if seen.reason is not None:
        return seen.reason == "TimeLimit"
    if seen.state != "COMPLETING" or seen.start_s is None or seen.end_s is None or seen.limit_s is None:
        return False
    return seen.end_s >= seen.start_s + seen.limit_s - LIMIT_SLACK_S


def stopped_for(records: Iterable[Mapping[str, Any]], job_id: str, restart: int) -> bool:
    """Whether the user has stopped the run in this very job, which the scheduler has started once more.

    A stop holds for the job in which it was obeyed; who submits the run again wants it to go on. A
    job id that comes a second time, on a cluster that counts anew, begins with restart 0.

    Args:
        records: of the run's journal, oldest first.
        job_id: the scheduler's job that runs now.
        restart: how often it was requeued.

    >>> stopped = [{"event": "allocation_started", "allocation": "7-0"}, {"event": "run_stopped"}]
    >>> stopped_for(stopped, "7", 1), stopped_for(stopped, "8", 0)
    (True, False)
    """
    allocation = None
    for record in records:
        if record.get("event") == "allocation_started":
            allocation = record.get("allocation")
        elif record.get("event") == "run_stopped":
            job, _, before = str(record.get("allocation") or allocation).rpartition("-")
            if job == job_id and before.isdigit() and int(before) < restart:
                return True
    return False
