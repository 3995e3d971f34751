"""The ladder: every rung, every silence, and a SLURM that loses answers at every place."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.policy.handback import (
    PAUSES_S,
    Answer,
    Facts,
    Look,
    Over,
    Pause,
    Requeue,
    Resubmit,
    Said,
    held,
    next_step,
)
from supervisor.policy.scheduler import JobSeen

RUNNING = JobSeen(state="RUNNING", restarts=0, may_requeue=True, batch=True, reason="None")
GONE = replace(RUNNING, state="COMPLETING")
SEEN = [
    None,
    RUNNING,
    GONE,
    replace(RUNNING, state="COMPLETING", reason="TimeLimit"),
    replace(RUNNING, state="COMPLETING", restarts=1),
    replace(RUNNING, state="PENDING", restarts=1),
    replace(RUNNING, state="CANCELLED", preempted_s=5.0),
    replace(RUNNING, may_requeue=False),
    replace(RUNNING, batch=False),
]
SAID = [None, *(Said(answer, answer.value) for answer in Answer)]
CASES = [
    Facts(
        seen=seen, look=look, requeue=requeue, submission=submission, tries=tries, left_s=left_s, requeued_by_code=code
    )
    for seen, look, requeue, submission, tries, left_s, code in product(
        SEEN, SAID[:1] + SAID[3:], SAID, SAID, (1, 9), (0.0, 20.0), (False, True)
    )
]


def test_there_is_a_step_for_everything_and_a_last_one_when_time_is_over() -> None:
    for facts in CASES:
        step = next_step(facts)
        assert isinstance(step, Look | Requeue | Resubmit | Pause | Over)
        if facts.left_s == 0.0 and facts.look is not None and facts.seen is None:
            assert isinstance(step, Over)


def test_nobody_requeues_a_job_without_having_seen_that_it_is_wanted() -> None:
    for facts in CASES:
        if isinstance(next_step(facts), Requeue | Resubmit):
            assert facts.seen is not None
            assert facts.seen.state in ("RUNNING", "COMPLETING")
            assert facts.seen != GONE
            assert facts.seen.restarts == 0


def test_a_job_goes_back_in_one_way_only() -> None:
    for facts in CASES:
        step = next_step(facts)
        if facts.submission is not None or (facts.requeue is not None and facts.requeue.answer is Answer.DONE):
            assert isinstance(step, Over)
        if facts.requeued_by_code:
            assert step != Resubmit()


def test_a_site_that_requeues_our_exit_code_by_itself_gets_no_second_job() -> None:
    facts = Facts(seen=replace(RUNNING, may_requeue=False), left_s=20.0)
    assert next_step(facts) == Resubmit()
    over = next_step(replace(facts, requeued_by_code=True))
    assert isinstance(over, Over)
    assert (over.requeue, "RequeueExit" in over.reason, over.queued) == ("wanted", True, False)


@pytest.mark.parametrize(
    ("answer", "requeue"),
    [(Answer.DONE, "done"), (Answer.ABSENT, "wanted"), (Answer.REFUSED, "no")],
)
def test_the_verdict_says_what_the_scheduler_answered(answer: Answer, requeue: str) -> None:
    over = next_step(Facts(seen=RUNNING, requeue=Said(answer, "its words"), left_s=20.0))
    assert isinstance(over, Over)
    assert over.requeue == requeue
    assert requeue == "done" or over.reason == "its words"


def test_a_silent_scheduler_is_asked_less_and_less_and_in_the_end_left_to_the_batch_script() -> None:
    silence = Said(Answer.SILENT, "no answer")
    steps = [next_step(Facts(look=silence, tries=tries, left_s=60.0)) for tries in range(1, 7)]
    assert steps == [Pause(s) for s in (*PAUSES_S, PAUSES_S[-1], PAUSES_S[-1])]
    assert next_step(Facts(look=silence, tries=4, left_s=8.5)) == Over("wanted", "no answer")
    assert next_step(Facts(look=Said(Answer.ABSENT, "scontrol: not found"), tries=1, left_s=60.0)) == Over(
        "wanted", "scontrol: not found"
    )


def test_a_cancellation_within_the_grace_of_a_preemption_is_seen_by_its_early_end() -> None:
    """SLURM goes on showing PreemptTime: of a job that is preempted, the end is that of its grace."""
    before = replace(RUNNING, preempted_s=100.0, end_s=115.0)
    ended = replace(before, state="COMPLETING")
    facts = Facts(before=before, left_s=20.0)
    early = next_step(replace(facts, seen=replace(ended, end_s=102.0)))
    assert isinstance(early, Over)
    assert (early.requeue, early.cancelled) == ("no", True)
    assert next_step(replace(facts, seen=replace(ended, end_s=115.0))) == Requeue()
    again = next_step(replace(facts, seen=replace(ended, end_s=102.0, restarts=1)))
    assert isinstance(again, Over)
    assert (again.requeue, again.cancelled) == ("done", False)
    assert next_step(replace(facts, before=replace(before, end_s=None), seen=replace(ended, end_s=102.0))) == Requeue()


def test_after_a_requeue_that_may_have_been_heard_nothing_is_taken_for_a_cancellation() -> None:
    """A release that counts restarts later would show the requeue itself as one."""
    silence = Said(Answer.SILENT, "no answer")
    over = next_step(Facts(seen=GONE, requeue=silence, left_s=20.0))
    assert isinstance(over, Over)
    assert (over.requeue, over.cancelled) == ("no", False)
    preempted = replace(RUNNING, preempted_s=100.0, end_s=115.0)
    early = replace(preempted, state="COMPLETING", end_s=102.0)
    assert next_step(Facts(before=preempted, seen=early, requeue=silence, left_s=20.0)) == Requeue()


def test_an_interactive_job_and_one_without_time_are_left_as_they_are() -> None:
    over = next_step(Facts(seen=replace(RUNNING, batch=False), left_s=20.0))
    assert isinstance(over, Over)
    assert (over.requeue, "only batch jobs" in over.reason) == ("no", True)
    assert next_step(Facts(seen=RUNNING, left_s=0.5)) == Over("wanted", "too little time was left")


@dataclass
class Slurm:
    """A scheduler that does what it is told and may lose the question or the answer.

    Attributes:
        losses: of each call, whether the question is lost, the answer, or nothing.
        cancelled_at: before which call somebody cancels the job, None for never.
    """

    losses: list[str]
    cancelled_at: int | None
    disabled: bool
    calls: int = 0
    requeues: int = 0
    submissions: int = 0
    after_cancel: int = 0
    job: JobSeen = field(default=RUNNING)

    def answer(self, does: Answer) -> tuple[Answer, bool]:
        """What comes back, and whether it is done."""
        if self.calls == self.cancelled_at and self.job.state == "RUNNING":
            self.job = GONE
        loss = self.losses[self.calls] if self.calls < len(self.losses) else "nothing"
        self.calls += 1
        return (does if loss == "nothing" else Answer.SILENT), loss != "question"

    def after(self, facts: Facts, step: Look | Requeue | Resubmit | Pause) -> Facts:
        match step:
            case Pause(seconds):
                return replace(facts, look=None, left_s=facts.left_s - seconds)
            case Look():
                answer, _ = self.answer(Answer.DONE)
                if answer is Answer.SILENT:
                    return replace(facts, look=Said(answer), tries=facts.tries + 1)
                return replace(facts, seen=self.job, look=None)
            case Requeue():
                answer, heard = self.answer(Answer.DISABLED if self.disabled else Answer.DONE)
                if heard and not self.disabled:
                    self.requeues += self.job.state != "PENDING"
                    self.after_cancel += self.job == GONE
                    self.job = replace(RUNNING, state="PENDING", restarts=1)
                if answer is not Answer.SILENT:
                    return replace(facts, requeue=Said(answer))
                return replace(facts, requeue=Said(answer), seen=None, look=Said(answer), tries=facts.tries + 1)
            case Resubmit():
                answer, heard = self.answer(Answer.DONE)
                self.submissions += heard
                return replace(facts, submission=Said(answer, "8"))


@given(
    losses=st.lists(st.sampled_from(["nothing", "question", "answer"]), max_size=12),
    cancelled_at=st.none() | st.integers(0, 8),
    disabled=st.booleans(),
)
def test_a_scheduler_that_loses_questions_and_answers_gets_one_job_back_and_no_cancelled_one(
    losses: list[str], cancelled_at: int | None, disabled: bool
) -> None:
    slurm, facts, looked = Slurm(losses, cancelled_at, disabled), Facts(left_s=60.0), False
    for _ in range(60):
        step = next_step(facts)
        if isinstance(step, Over):
            break
        # What happens between look and requeue nobody can see: there it is left out.
        if isinstance(step, Requeue | Resubmit) and slurm.calls == slurm.cancelled_at:
            slurm.cancelled_at = None
        facts, looked = slurm.after(facts, step), looked or isinstance(step, Look)
    assert isinstance(step, Over)
    assert looked
    assert slurm.requeues + slurm.submissions <= 1
    assert slurm.after_cancel == 0
    if step.requeue == "done":
        assert slurm.requeues + slurm.submissions == 1
    if step.cancelled:
        assert slurm.job == GONE
        assert slurm.requeues == 0


def test_only_a_hold_that_nobody_wanted_is_let_go() -> None:
    waiting = replace(RUNNING, state="PENDING", priority=0)
    free = ["JobHoldMaxRequeue", "launch_failed_requeued_held"]
    for reason in [*free, "JobHeldUser", "JobHeldAdmin", "job_requeued_in_held_state", None]:
        found = held(replace(waiting, reason=reason))
        assert found is not None
        assert found.release == (reason in free)
    assert held(replace(waiting, state="RUNNING")) is None
    assert held(replace(waiting, priority=None)) is None
