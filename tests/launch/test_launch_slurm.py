"""`scontrol`'s words: read whatever a user called the job, and its silence is an answer, too."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from supervisor.launch.slurm import ask, parse, requeue
from supervisor.policy.scheduler import JobSeen

LINE = (
    "JobId=7 JobName={name} UserId=me(1000) GroupId=me(1000) MCS_label=N/A Priority=1 Nice=0 Account=(null) QOS=(null) "
    "JobState=RUNNING Reason=None Dependency=(null) Requeue=1 Restarts=3 BatchFlag=1 Reboot=0 ExitCode=0:0 "
    "RunTime=00:00:04 TimeLimit=1-00:01:00 TimeMin=N/A SubmitTime=2026-11-24T02:00:00 EligibleTime=2026-11-24T02:00:00 "
    "AccrueTime=2026-11-24T02:00:00 StartTime=2026-11-24T02:00:01 EndTime=2026-11-25T02:01:01 Deadline=N/A "
    "PreemptEligibleTime=2026-11-24T02:00:01 PreemptTime={preempt} SuspendTime=None SecsPreSuspend=0 Partition=low "
    "Command=(null) Comment=JobState=CANCELLED Restarts=99"
)


def local(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


@pytest.mark.parametrize("name", ["demo", "a JobState=CANCELLED Restarts=9", "x;rm -rf $HOME"])
def test_a_jobs_line_is_read_whatever_its_name_is(name: str) -> None:
    assert parse(LINE.format(name=name, preempt="None")) == JobSeen(
        state="RUNNING",
        restarts=3,
        may_requeue=True,
        start_s=local("2026-11-24T02:00:01"),
        end_s=local("2026-11-25T02:01:01"),
        limit_s=86_460.0,
        preempted_s=None,
    )


def test_a_preemption_shows_and_what_is_no_job_is_none() -> None:
    seen = parse(LINE.format(name="a", preempt="2026-11-24T02:10:00"))
    assert seen is not None
    assert seen.preempted_s == local("2026-11-24T02:10:00")
    assert parse("") is None
    assert parse("slurm_load_jobs error: Invalid job id specified") is None
    unknown = parse("JobId=7 UserId=me(1) JobState=PENDING TimeLimit=UNLIMITED StartTime=Unknown EndTime=N/A")
    assert unknown == JobSeen(state="PENDING")


def test_a_scheduler_that_refuses_or_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask("7") is None
    assert "scontrol" in str(requeue("7"))
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\necho 'Requested operation is presently disabled for job 7' >&2\nexit 1\n")
    scontrol.chmod(0o755)
    assert ask("7") is None
    assert requeue("7") == "scontrol requeue: Requested operation is presently disabled for job 7"
    scontrol.write_text('#!/bin/sh\n[ "$1 $2" = "requeue 7" ]\n')
    assert requeue("7") is None
