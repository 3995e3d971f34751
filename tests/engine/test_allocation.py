"""The job of a scheduler: its end foreseen, its way back into the queue, and what the batch script is told."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from harness import until

from supervisor.engine.allocation import ASK_EVERY_S, Allocation
from supervisor.launch.slurm import Incarnation
from supervisor.policy.causes import Cause

AT = Incarnation("7", 2)
START_S = 1_800_000_000.0


class Site:
    """A `scontrol` that shows a job and notes what it is asked; and a journal."""

    def __init__(self, base: Path) -> None:
        self.base, self.events = base, []  # type: Path, list[str]
        self.show(limit_s=3600.0)
        self.refuse("")
        scontrol = base / "scontrol"
        scontrol.write_text(
            f'#!/bin/sh\necho "$@" >> {base}/asked\n'
            f'if [ "$1" = show ]; then while read -r line; do echo "$line"; done < {base}/job; exit 0; fi\n'
            f'[ -s {base}/refusal ] && {{ while read -r line; do echo "$line" >&2; done < {base}/refusal; exit 1; }}\n'
            "exit 0\n"
        )
        scontrol.chmod(0o755)

    def show(self, *, state: str = "RUNNING", limit_s: float, restarts: int = 2, preempt: str = "None") -> None:
        start, end = (time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(at)) for at in (START_S, START_S + limit_s))
        (self.base / "job").write_text(
            f"JobId=7 JobName=a UserId=me(1) JobState={state} Requeue=1 Restarts={restarts} "
            f"TimeLimit=99:00:00 StartTime={start} EndTime={end} PreemptTime={preempt}\n"
        )

    def refuse(self, words: str) -> None:
        (self.base / "refusal").write_text(words)

    def asked(self) -> list[str]:
        asked = self.base / "asked"
        return asked.read_text().splitlines() if asked.exists() else []

    def write(self, event: str, **_fields: Any) -> None:
        self.events.append(event)

    def verdict(self) -> dict[str, str]:
        told: dict[str, str] = json.loads((self.base / "verdicts" / "7-2.json").read_text())
        return told


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    one = Site(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    return one


def test_the_end_is_asked_for_once_and_again_before_it_counts(site: Site) -> None:
    job = Allocation(AT, site.base, site.write)
    assert job.name == "7-2"
    until(lambda: job.time_is_up(START_S, 30.0) or job._end_s, "answer")
    for s in range(100):
        assert not job.time_is_up(START_S + s, 30.0)
    assert len(site.asked()) == 1

    site.show(limit_s=7200.0)  # an administrator is kind
    near_s = START_S + 3600.0 - 30.0
    assert near_s - START_S > ASK_EVERY_S
    until(lambda: job.time_is_up(near_s, 30.0) or job._end_s == START_S + 7200.0, "answer")
    assert not job.time_is_up(near_s, 30.0)

    near_s = START_S + 7200.0 - 30.0
    until(lambda: job.time_is_up(near_s, 30.0), "end of time")
    verdict = job.why("the end of the allocation")
    assert verdict is not None
    assert verdict.cause is Cause.TIME_LIMIT
    job.close("requeued")


def test_a_limit_shorter_than_the_grace_leaves_time_to_train(site: Site) -> None:
    site.show(limit_s=20.0)
    job = Allocation(AT, site.base, site.write)
    until(lambda: job.time_is_up(START_S, 30.0) or job._end_s, "answer")
    assert not job.time_is_up(START_S + 14.0, 30.0)
    until(lambda: job.time_is_up(START_S + 15.0, 30.0), "end of time")
    job.close("requeued")


def test_a_preempted_job_goes_back_into_the_queue_and_says_so(site: Site) -> None:
    site.show(limit_s=3600.0, preempt="2026-11-24T02:10:00")
    job = Allocation(AT, site.base, site.write)
    verdict = job.why("received SIGTERM")
    assert verdict is not None
    assert (verdict.cause, job.cancelled) == (Cause.PREEMPTED, False)
    assert job.hand_back()
    assert site.asked() == ["show job -o 7", "requeue 7"]
    assert site.events == ["requeued"]
    job.close("requeued")
    assert site.verdict() == {"requeue": "done", "reason": "scontrol requeue"}


def test_a_job_that_the_scheduler_has_put_back_is_not_requeued_twice(site: Site) -> None:
    site.show(limit_s=3600.0, state="COMPLETING", restarts=3)
    job = Allocation(AT, site.base, site.write)
    job.why("received SIGTERM")
    assert job.hand_back()
    assert site.asked() == ["show job -o 7"]
    job.close("requeued")
    assert site.verdict() == {"requeue": "done", "reason": "the scheduler did it"}


def test_a_cancelled_job_stays_away(site: Site) -> None:
    site.show(limit_s=60.0, state="COMPLETING")
    job = Allocation(AT, site.base, site.write)
    verdict = job.why("received SIGTERM")
    assert verdict is not None
    assert (verdict.cause, job.cancelled) == (Cause.USER_STOP, True)
    job.close("stopped")
    assert site.verdict() == {"requeue": "no", "reason": "stopped"}


def test_where_the_leader_may_not_requeue_the_batch_script_is_asked_to(site: Site) -> None:
    site.refuse("Requested operation is presently disabled\n")
    job = Allocation(AT, site.base, site.write)
    job.why("received SIGTERM")
    assert not job.hand_back()
    job.close("interrupted")
    assert site.verdict() == {
        "requeue": "wanted",
        "reason": "scontrol requeue: Requested operation is presently disabled",
    }
    assert site.events == []


def test_outside_of_a_scheduler_nothing_is_asked_or_told(site: Site) -> None:
    here = Allocation(None, site.base, site.write)
    assert not here.time_is_up(0.0, 30.0)
    assert here.why("received SIGTERM") is None
    assert not here.hand_back()
    here.close("interrupted")
    assert site.asked() == []
    assert not (site.base / "verdicts").exists()
