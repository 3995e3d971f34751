"""The ladder by which a job gets its nodes again, one step after the other.

Rule 1: nobody requeues a job without having seen it since: SLURM requeues a cancelled job, too.
Rule 2: after a step whose outcome is not known, the job is looked at before another one is made.

The rungs: the leader requeues its job itself; where it cannot run `scontrol`, or the scheduler stays silent, the
verdict says `wanted` and the batch script goes on; where the job may not be requeued, it is submitted once
more, to start when this one has ended; where that fails, too, the verdict says `no`, and why.

What this does *not* protect against: a cancellation in the milliseconds between look and requeue.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from supervisor.policy.scheduler import Fate, JobSeen, ending

#: Pauses before a scheduler that is silent is asked again; the last one is repeated [s].
PAUSES_S = (1.0, 2.0, 4.0, 8.0)
#: With less time than this left, nothing new is begun [s].
LAST_S = 1.0


class Answer(Enum):
    """What the scheduler makes of a request."""

    DONE = "done"
    DISABLED = "disabled"  # this job may not be requeued
    SILENT = "silent"  # it could not be reached, or answered nothing in time; it may have done it
    ABSENT = "absent"  # from here it cannot be asked at all
    REFUSED = "refused"  # it will not, however often it is asked


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, and the scheduler's own words.

    Attributes:
        answer: what they mean.
        words: for people; of a submission that was accepted, the new job's id.
    """

    answer: Answer
    words: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return self.answer is Answer.DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the next step depends on.

    Attributes:
        seen: the job as it was seen since the last step; None if it was not.
        look: why it could not be seen, None if nobody has looked.
        before: the job as it was seen when the notice came.
        restart: how often this incarnation had been requeued.
        requeue: the answer to our requeue, None before.
        submission: the answer to our submission, None before.
        tries: how often the scheduler was silent.
        left_s: until this process is killed [s].
        requeued_by_code: whether the site itself requeues jobs that end as this one will.
    """

    seen: JobSeen | None = None
    look: Said | None = None
    before: JobSeen | None = None
    restart: int = 0
    requeue: Said | None = None
    submission: Said | None = None
    tries: int = 0
    left_s: float = 0.0
    requeued_by_code: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """See how the job stands."""


@dataclass(frozen=True, slots=True)
class Requeue:
    """Put the job back into the queue."""


@dataclass(frozen=True, slots=True)
class Resubmit:
    """Submit the job's own script once more, to start when this job has ended."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Let the scheduler come back."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Over:
    """No further step.

    Attributes:
        requeue: what the verdict says: `done`, `wanted` or `no`.
        reason: in words.
        cancelled: whether the job turned out to be unwanted.
        queued: whether it is this very job that waits now.
        resubmitted: the job that was submitted in its place.
        seen: the job as it waits, where that was seen.
    """

    requeue: str
    reason: str
    cancelled: bool = False
    queued: bool = False
    resubmitted: str = ""
    seen: JobSeen | None = None


Step = Look | Requeue | Resubmit | Pause | Over


def next_step(facts: Facts) -> Step:
    """Choose the next step of the ladder.

    >>> next_step(Facts(left_s=20.0))
    Look()
    >>> next_step(Facts(seen=JobSeen(state="RUNNING"), left_s=20.0))
    Requeue()
    >>> next_step(Facts(seen=JobSeen(state="RUNNING", may_requeue=False), left_s=20.0))
    Resubmit()
    """
    if facts.requeue is not None and facts.requeue.ok:
        return Over("done", "scontrol requeue", queued=True)
    if facts.submission is not None:
        return _submitted(facts.submission)
    if facts.seen is None:
        return _unseen(facts)
    return _seen(facts, facts.seen)


def _seen(facts: Facts, seen: JobSeen) -> Step:
    """What follows once it is known how the job stands."""
    fate = ending(seen, facts.restart, "").fate
    if fate is Fate.REQUEUE and facts.requeue is None and _cut_short(facts.before, seen):
        fate = Fate.STOP
    if fate is Fate.QUEUED:
        by = "scontrol requeue" if facts.requeue is not None else "the scheduler did it"
        return Over("done", by, queued=True, seen=seen)
    if fate is Fate.STOP:
        # Once a requeue was asked for, this may be that requeue, on a release that counts it later.
        return Over("no", "the job was cancelled", cancelled=facts.requeue is None)
    if seen.batch is False:
        return Over("no", "only batch jobs can be requeued, and this is none")
    if seen.may_requeue is False or (facts.requeue is not None and facts.requeue.answer is Answer.DISABLED):
        # SLURM obeys RequeueExit even where a requeue is disabled (22.05), so it may come back by its exit code.
        # A batch script that leaves with another code does the rest: two of them would be one too many.
        by_code = Over("wanted", "it may not be requeued, and the site requeues jobs with this exit code (RequeueExit)")
        return by_code if facts.requeued_by_code else Resubmit()
    return _asked(facts)


def _asked(facts: Facts) -> Step:
    """What follows for a job that is to go back, after what our requeue was answered."""
    said = facts.requeue
    if said is None or said.answer is Answer.SILENT:
        if facts.left_s > LAST_S:
            return Requeue()
        return Over("wanted", said.words if said is not None else "too little time was left")
    return Over("wanted" if said.answer is Answer.ABSENT else "no", said.words)


def _cut_short(before: JobSeen | None, seen: JobSeen) -> bool:
    """Whether a job that was being preempted ended before its grace: then somebody has cancelled it.

    Of the two, SLURM keeps showing the preemption only.
    """
    if before is None or before.preempted_s is None or before.state != "RUNNING" or seen.state != "COMPLETING":
        return False
    return before.end_s is not None and seen.end_s is not None and seen.end_s < before.end_s - 1.0


def _unseen(facts: Facts) -> Step:
    """What follows where the job has not been seen since the last step."""
    if facts.look is None:
        return Look()
    if facts.look.answer is Answer.ABSENT:
        return Over("wanted", facts.look.words)
    if facts.look.answer is Answer.REFUSED:
        return Over("no", facts.look.words)
    pause_s = PAUSES_S[min(facts.tries, len(PAUSES_S)) - 1]
    if facts.left_s - pause_s <= LAST_S:
        return Over("wanted", facts.look.words)
    return Pause(pause_s)


def _submitted(said: Said) -> Over:
    if said.ok:
        reason = f"submitted again as job {said.words}, since this one may not be requeued"
        return Over("done", reason, resubmitted=said.words)
    if said.answer is Answer.ABSENT:
        return Over("wanted", said.words)  # nothing was submitted: the batch script, outside of the container, may
    # A submission whose outcome is unknown is not repeated: twice is worse than not at all.
    return Over("no", f"the job may not be requeued, and was not submitted again: {said.words}")


#: Why a job is held although nobody wants it to be. `job_requeued_in_held_state` is not among them: that is
#: what `scontrol requeuehold` leaves, which somebody has typed.
_TOO_OFTEN = ("JobHoldMaxRequeue", "launch_failed_requeued_held")


@dataclass(frozen=True, slots=True)
class Held:
    """A job that waits, and will not start by itself.

    Attributes:
        reason: the scheduler's word.
        release: whether it may be let go: nobody holds it on purpose.
    """

    reason: str
    release: bool


def held(seen: JobSeen | None) -> Held | None:
    """Whether a job in the queue is held; None if not, or if nobody could tell.

    >>> held(JobSeen(state="PENDING", priority=0, reason="JobHoldMaxRequeue"))
    Held(reason='JobHoldMaxRequeue', release=True)
    >>> held(JobSeen(state="PENDING", priority=0, reason="JobHeldAdmin")).release
    False
    >>> held(JobSeen(state="PENDING", priority=4, reason="BeginTime"))

    Source: job_reason_string() of SLURM 21.08 to 25.11; a live 22.05.
    """
    if seen is None or seen.priority != 0 or seen.state not in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT"):
        return None
    reason = seen.reason or seen.state
    return Held(reason, release=reason.startswith(_TOO_OFTEN))
