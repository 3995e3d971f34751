"""Why a scheduler ends a job: the table."""

from __future__ import annotations

import pytest

from supervisor.policy.causes import Cause
from supervisor.policy.scheduler import Fate, JobSeen, ending, stopped_for


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
        (JobSeen(state="COMPLETING", restarts=1, reason="TimeLimit"), Fate.REQUEUE, Cause.TIME_LIMIT),
        (
            JobSeen(state="COMPLETING", reason="None", start_s=100.0, end_s=160.0, limit_s=60.0),
            Fate.STOP,
            Cause.USER_STOP,
        ),
        (JobSeen(state="COMPLETING", restarts=1, reason="NodeDown"), Fate.REQUEUE, Cause.NODE_LOST),
        (JobSeen(state="SPECIAL_EXIT", restarts=1), Fate.QUEUED, Cause.PREEMPTED),
        (JobSeen(state="CANCELLED", restarts=1), Fate.STOP, Cause.USER_STOP),
        (JobSeen(state="CANCELLED", restarts=1, preempted_s=5.0), Fate.STOP, Cause.USER_STOP),
        (JobSeen(state="NODE_FAIL", restarts=1), Fate.REQUEUE, Cause.NODE_LOST),
        (JobSeen(state="RUNNING", restarts=1), Fate.REQUEUE, Cause.PREEMPTED),
        (None, Fate.REQUEUE, Cause.PREEMPTED),
    ],
)
def test_what_the_scheduler_shows_tells_why_it_ends_a_job(seen: JobSeen | None, fate: Fate, cause: Cause) -> None:
    found = ending(seen, 1, "received SIGTERM")
    assert (found.fate, found.verdict.cause) == (fate, cause)
    assert found.verdict.evidence.startswith("received SIGTERM; ")


def stay(allocation: str, *events: str) -> list[dict[str, object]]:
    return [{"event": "allocation_started", "allocation": allocation}, *({"event": event} for event in events)]


def test_a_stop_holds_for_its_job_however_often_the_scheduler_starts_it() -> None:
    records = [*stay("7-0", "requeued"), *stay("7-1", "run_stopped")]
    assert [stopped_for(records, "7", restart) for restart in (1, 2, 3)] == [False, True, True]
    assert stopped_for([*records, *stay("7-2")], "7", 3)


def test_a_new_submission_goes_on_and_does_not_free_the_old_job() -> None:
    records = [*stay("7-1", "run_stopped"), *stay("8-0", "requeued")]
    assert not stopped_for(records, "8", 1)
    assert stopped_for(records, "7", 2)


def test_a_job_id_that_comes_again_on_a_cluster_that_counts_anew_is_a_new_submission() -> None:
    assert not stopped_for(stay("7-3", "run_stopped"), "7", 0)


def test_what_was_stopped_outside_of_a_scheduler_holds_for_no_job() -> None:
    records = [*stay("node-7-4711", "run_stopped"), {"event": "run_stopped"}]
    assert not stopped_for(records, "7", 9)
    assert not stopped_for([{"event": "run_stopped"}], "7", 9)
    assert stopped_for([{"event": "run_stopped", "allocation": "7-0"}], "7", 1)
