"""`scontrol`'s words: read whatever a user called the job, and its silence is an answer, too."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from supervisor.errors import JobError
from supervisor.launch.slurm import Place, addresses, ask, ask_site, incarnation, place, requeue, usable
from supervisor.launch.slurm_text import Site, expand, nodes_up, parse
from supervisor.policy.handback import Answer, Said
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


@pytest.mark.parametrize(
    "name",
    [
        "demo",
        "a JobState=CANCELLED Restarts=9",
        "two\nlines JobState=CANCELLED",
        "UserId=root JobState=CANCELLED",
        "UserId=root(0) JobState=CANCELLED",
        "x;rm -rf $HOME",
    ],
)
def test_a_jobs_line_is_read_whatever_its_name_is(name: str) -> None:
    assert parse(LINE.format(name=name, preempt="None")) == JobSeen(
        state="RUNNING",
        restarts=3,
        may_requeue=True,
        start_s=local("2026-11-24T02:00:01"),
        end_s=local("2026-11-25T02:01:01"),
        limit_s=86_460.0,
        reason="None",
        priority=1,
        batch=True,
        partition="low",
    )


def test_a_preemption_shows_and_what_is_no_job_is_none() -> None:
    seen = parse(LINE.format(name="a", preempt="2026-11-24T02:10:00"))
    assert seen is not None
    assert seen.preempted_s == local("2026-11-24T02:10:00")
    assert parse("") is None
    assert parse("slurm_load_jobs error: Invalid job id specified") is None
    unknown = parse("JobId=7 UserId=me(1) JobState=PENDING TimeLimit=UNLIMITED StartTime=Unknown EndTime=N/A")
    assert unknown == JobSeen(state="PENDING")


class Scontrol:
    """A `scontrol` that says and exits as it is told, alone on the path."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "scontrol"

    def says(self, *, out: str = "", err: str = "", code: int = 0) -> None:
        words = "".join(f"echo '{text}' {to}\n" for text, to in ((out, ""), (err, ">&2")) if text)
        self.path.write_text(f"#!/bin/sh\n{words}exit {code}\n")
        self.path.chmod(0o755)


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scontrol:
    monkeypatch.setenv("PATH", str(tmp_path))
    return Scontrol(tmp_path)


@pytest.mark.usefixtures("scontrol")
def test_where_scontrol_is_not_installed_nothing_can_be_asked() -> None:
    assert ask("7") == Said(Answer.ABSENT, "scontrol: No such file or directory")
    assert requeue("7").answer is Answer.ABSENT
    assert ask_site() is None
    assert usable("low") is None


@pytest.mark.parametrize(
    ("words", "means"),
    [
        # Of a live 22.05; the second and third while its slurmctld was dead, after 18 s and 9 s.
        ("Requested operation is presently disabled for job 7", Answer.DISABLED),
        ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", Answer.SILENT),
        ("Unexpected message received for job 7", Answer.SILENT),
        ("Job is pending execution for job 7", Answer.DONE),
        ("Invalid job id specified for job 7", Answer.REFUSED),
        # slurm_errno.c, the same from 21.08 to 25.11.
        ("Access/permission denied for job 7", Answer.REFUSED),
        ("Only batch jobs are accepted or processed for job 7", Answer.REFUSED),
        ("Socket timed out on send/recv operation for job 7", Answer.SILENT),
        ("Zero Bytes were transmitted or received for job 7", Answer.SILENT),
        ("Job can not be altered now, try again later for job 7", Answer.SILENT),
        ("Slurm backup controller in standby mode for job 7", Answer.SILENT),
        ("Protocol authentication error for job 7", Answer.ABSENT),
        ("scontrol: fatal: Could not establish a configuration source", Answer.ABSENT),
        ("error: If munged is up, restart with --num-threads=10", Answer.ABSENT),
    ],
)
def test_a_refusal_is_understood_and_kept_in_its_own_words(scontrol: Scontrol, words: str, means: Answer) -> None:
    scontrol.says(err=words, code=1)
    assert requeue("7") == Said(means, f"scontrol requeue: {words}")
    assert ask("7") == Said(means, f"scontrol show: {words}")


def test_an_exit_code_that_somebody_else_has_reaped_does_not_hide_the_refusal(scontrol: Scontrol) -> None:
    """Asked from a thread while the loop reaps every child, python reports 0."""
    scontrol.says(err="Unable to contact slurm controller (connect failure)", code=0)
    assert requeue("7").answer is Answer.SILENT
    scontrol.says()
    assert requeue("7").ok


def test_an_answer_that_does_not_come_is_silence(scontrol: Scontrol) -> None:
    scontrol.path.write_text("#!/bin/sh\nread never < /dev/zero\n")
    scontrol.path.chmod(0o755)
    assert ask("7", 0.2) == Said(Answer.SILENT, "scontrol show: no answer within 0 s")


def test_times_are_read_however_the_user_likes_them_printed(
    scontrol: Scontrol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_TIME_FORMAT", "%s")
    scontrol.path.write_text('#!/bin/sh\necho "JobId=7 UserId=me(1) GroupId=me(1) JobState=$SLURM_TIME_FORMAT"\n')
    scontrol.path.chmod(0o755)
    assert ask("7") == JobSeen(state="standard")


def test_the_cluster_tells_how_long_a_kill_takes_and_which_exit_codes_it_requeues(scontrol: Scontrol) -> None:
    scontrol.says(
        out="KillWait                = 5 sec\nRequeueExit             = 1,73-75\nRequeueExitHold         = 130"
    )
    assert ask_site() == Site(5.0, frozenset({1, 73, 74, 75}), frozenset({130}))
    scontrol.says(out="RequeueExit             = (null)")
    assert ask_site() == Site()


def test_nodes_that_are_down_or_drained_are_not_usable() -> None:
    shown = "n1 idle\nn2 down*\nn3 drng\nn4 alloc\nn5 mix~\nn6 idle*\nn7 drain\nn8 comp\nn1 idle\nn9 inval\n"
    assert nodes_up(shown) == ("n1", "n4", "n5", "n8")


#: What srun gave its second task on nodes 2 and 3 of a job of three nodes (22.05).
STEP = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NODELIST": "n[1-3]",
    "SLURM_NNODES": "2",
    "SLURM_NTASKS": "2",
    "SLURM_NODEID": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "n[2-3]",
}


def test_a_task_knows_its_place_among_the_nodes_of_its_step() -> None:
    assert place(STEP) == Place(1, ("n2", "n3"))


@pytest.mark.parametrize("step", ["", "4294967291", "4294967290", "batch"])
def test_outside_of_a_step_there_is_no_place(step: str) -> None:
    """A batch script, the interactive shell of `salloc`, and no SLURM at all."""
    assert place({**STEP, "SLURM_STEP_ID": step}) is None
    assert place({}) is None


def test_two_tasks_on_one_node_are_refused_with_the_remedy() -> None:
    with pytest.raises(JobError, match=r"4 tasks on 2 nodes.*--ntasks-per-node=1"):
        place({**STEP, "SLURM_STEP_NUM_TASKS": "4"})


@pytest.mark.parametrize("told", ["n[2-3", "n[3-2]", "n2", "n[2,,3]", "n[a-b]", ",n2"])
def test_nodes_that_cannot_be_told_are_refused(told: str) -> None:
    with pytest.raises(JobError, match="do not name one of 2 nodes"):
        place({**STEP, "SLURM_STEP_NODELIST": told})


@pytest.mark.parametrize("told", ["n[1-99999]", "n[1-300]m[1-300]", "n[1-65536],m"])
def test_a_list_longer_than_any_cluster_is_refused(told: str) -> None:
    with pytest.raises(ValueError, match=r"is no|more than"):
        expand(told)


def test_a_task_of_an_array_is_asked_for_by_the_arrays_name_and_a_plain_job_by_its_own() -> None:
    last = incarnation({**STEP, "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "4", "SLURM_NO_KILL": "1"})
    assert last is not None
    assert (last.name, last.task, last.nodes, last.no_kill) == ("7-0", "7_4", ("n1", "n2", "n3"), True)
    plain = incarnation({**STEP, "SLURM_RESTART_COUNT": "2"})
    assert plain is not None
    assert (plain.name, plain.task, plain.no_kill) == ("7-2", "7", False)


def test_addresses_come_from_one_question_and_names_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert addresses(("n1", "n2")) == {"n1": "n1", "n2": "n2"}
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
        "echo 'NodeName=n1 Arch=x86_64 NodeAddr=10.0.0.1 NodeHostName=a Port=6818 OS=Linux 6 Comment=NodeAddr=x'\n"
    )
    scontrol.chmod(0o755)
    assert addresses(("n1", "n2")) == {"n1": "10.0.0.1", "n2": "n2"}
    assert (tmp_path / "asked").read_text() == "show node -o n1,n2\n"
    assert addresses(()) == {}
