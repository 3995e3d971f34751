"""Why a scheduler ends a job: the table."""

from __future__ import annotations

import pytest

from supervisor.policy.causes import Cause
from supervisor.policy.scheduler import Fate, JobSeen, ending


@pytest.mark.parametrize(
    ("seen", "fate", "cause"),
    [
        (JobSeen(state="RUNNING", restarts=1, preempted_s=5.0), Fate.REQUEUE, Cause.PREEMPTED),
        (JobSeen(state="COMPLETING", restarts=1, preempted_s=5.0), Fate.REQUEUE, Cause.PREEMPTED),
        (JobSeen(state="PREEMPTED", restarts=1), Fate.REQUEUE, Cause.PREEMPTED),
        (JobSeen(state="COMPLETING", restarts=2, preempted_s=5.0), Fate.QUEUED, Cause.PREEMPTED),
        (JobSeen(state="COMPLETING", restarts=2), Fate.QUEUED, Cause.PREEMPTED),
        (JobSeen(state="PENDING", restarts=None), Fate.QUEUED, Cause.PREEMPTED),
        (JobSeen(state="TIMEOUT"), Fate.REQUEUE, Cause.TIME_LIMIT),
        (JobSeen(state="COMPLETING", start_s=100.0, end_s=160.0, limit_s=60.0), Fate.REQUEUE, Cause.TIME_LIMIT),
        (JobSeen(state="COMPLETING", start_s=100.0, end_s=130.0, limit_s=60.0), Fate.STOP, Cause.USER_STOP),
        (JobSeen(state="COMPLETING", restarts=1, start_s=100.0, end_s=130.0), Fate.STOP, Cause.USER_STOP),
        (JobSeen(state="CANCELLED", restarts=1), Fate.STOP, Cause.USER_STOP),
        (JobSeen(state="NODE_FAIL", restarts=1), Fate.REQUEUE, Cause.NODE_LOST),
        (JobSeen(state="RUNNING", restarts=1), Fate.REQUEUE, Cause.PREEMPTED),
        (None, Fate.REQUEUE, Cause.PREEMPTED),
    ],
)
def test_what_the_scheduler_shows_tells_why_it_ends_a_job(seen: JobSeen | None, fate: Fate, cause: Cause) -> None:
    found = ending(seen, 1, "received SIGTERM")
    assert (found.fate, found.verdict.cause) == (fate, cause)
    assert found.verdict.evidence.startswith("received SIGTERM; ")
