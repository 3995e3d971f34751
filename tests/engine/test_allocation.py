"""The job of a scheduler: its end foreseen, its way back into the queue, and what the batch script is told."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from harness import BUSY_S, until

from supervisor.engine.allocation import ASK_EVERY_S, FRESH_S, Allocation
from supervisor.launch.slurm import Incarnation
from supervisor.policy.causes import Cause
from supervisor.policy.strikes import Strikes

AT = Incarnation("7", 2)
START_S = 1_800_000_000.0
SILENCE = "echo 'Unable to contact slurm controller (connect failure)' >&2; exit 1"


class Site:
    """A `scontrol` that shows a job and notes what it is asked; and a journal."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.events: list[str] = []
        self.fields: list[dict[str, Any]] = []
        self.show(limit_s=3600.0)
        self.refuse("")
        scontrol = base / "scontrol"
        scontrol.write_text(
            f'#!/bin/sh\necho "$@" >> {base}/asked\n'
            f'if [ "$2" = config ]; then echo "$SITE"; exit 0; fi\n'
            f'if [ "$1" = write ]; then echo "#!/bin/sh"; echo "#SBATCH -p low"; exit 0; fi\n'
            f'if [ "$1" = show ]; then while read -r line; do echo "$line"; done < {base}/job; exit 0; fi\n'
            f'[ -s {base}/refusal ] && {{ while read -r line; do echo "$line" >&2; done < {base}/refusal; exit 1; }}\n'
            "exit 0\n"
        )
        scontrol.chmod(0o755)
        self.program("sinfo", 'echo "n1 idle"; echo "n2 idle"; echo "n3 mix"; echo "n4 down"')

    def program(self, name: str, body: str) -> None:
        """Another command of SLURM's on the path."""
        path = self.base / name
        path.write_text(f'#!/bin/sh\necho "{name} $@" >> {self.base}/asked\n{body}\n')
        path.chmod(0o755)

    def show(
        self,
        *,
        state: str = "RUNNING",
        limit_s: float,
        restarts: int = 2,
        preempt: str = "None",
        more: str = "Requeue=1",
    ) -> None:
        start, end = (time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(at)) for at in (START_S, START_S + limit_s))
        (self.base / "job").write_text(
            f"JobId=7 JobName=a UserId=me(1) GroupId=me(1) JobState={state} Restarts={restarts} BatchFlag=1 "
            f"TimeLimit=99:00:00 StartTime={start} EndTime={end} PreemptTime={preempt} {more}\n"
        )

    def refuse(self, words: str) -> None:
        (self.base / "refusal").write_text(words)

    def asked(self) -> list[str]:
        asked = self.base / "asked"
        return asked.read_text().splitlines() if asked.exists() else []

    def write(self, event: str, **fields: Any) -> None:
        self.events.append(event)
        self.fields.append(fields)

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
    assert site.asked() == ["show job -o 7", "show config"]

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


def test_a_scheduler_that_does_not_answer_is_asked_less_and_less_often(site: Site) -> None:
    site.program("scontrol", SILENCE)
    job = Allocation(AT, site.base, site.write)
    asked_s = []
    for now_s in range(int(START_S), int(START_S) + 2000, 5):
        before = len(site.asked())
        assert not job.time_is_up(float(now_s), 30.0)
        until(lambda: job._asked is None or job._asked.done(), "answer")
        if len(site.asked()) > before:
            asked_s.append(now_s - int(START_S))
    assert asked_s == [0, 35, 100, 225, 470, 955, 1560]  # 30, 60, 120, 240, 480, 600 s after each silence
    job.close("interrupted")


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
    # Once for the reason, once to see what became of it.
    assert site.asked() == ["show job -o 7", "requeue 7", "show job -o 7"]
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


def test_a_job_that_was_cancelled_after_its_reason_was_asked_for_is_not_requeued(site: Site) -> None:
    job = Allocation(AT, site.base, site.write)
    until(lambda: job.time_is_up(START_S + 3599.0, 30.0), "end of time")
    site.show(limit_s=60.0, state="COMPLETING")
    assert not job.hand_back()
    assert job.cancelled
    job.close("stopped")
    assert site.verdict() == {"requeue": "no", "reason": "the job was cancelled"}
    assert not any("requeue" in asked for asked in site.asked())


def test_what_was_seen_a_while_ago_is_looked_at_again_before_the_requeue(site: Site) -> None:
    job = Allocation(AT, site.base, site.write)
    job.why("received SIGTERM")
    seen_s = time.monotonic()
    site.show(limit_s=60.0, state="COMPLETING")
    until(lambda: time.monotonic() - seen_s > FRESH_S, "second")
    assert not job.hand_back()
    assert job.cancelled
    assert site.asked() == ["show job -o 7"] * 2


def test_where_scontrol_is_missing_the_batch_script_is_asked_to(site: Site) -> None:
    (site.base / "scontrol").unlink()
    job = Allocation(AT, site.base, site.write)
    verdict = job.why("received SIGTERM")
    assert verdict is not None
    assert "could not be asked why" in verdict.evidence
    assert not job.hand_back()
    job.close("interrupted")
    assert site.verdict() == {"requeue": "wanted", "reason": "scontrol: No such file or directory"}
    assert site.events == []


def test_a_silent_scheduler_is_asked_until_the_process_is_nearly_killed(site: Site) -> None:
    site.program("scontrol", SILENCE)
    job = Allocation(AT, site.base, site.write)
    began_s = time.monotonic()
    job.why("received SIGTERM")
    assert not job.hand_back(noticed_s=began_s - 22.0)  # of the 30 s that SLURM gives unless it tells otherwise
    assert 3.0 <= time.monotonic() - began_s < 6.0 + BUSY_S
    assert site.verdict()["requeue"] == "wanted"
    assert "Unable to contact" in site.verdict()["reason"]
    assert site.asked() == ["scontrol show job -o 7"] * 4  # for the reason, then after 1 s and 2 s more


def test_a_scheduler_that_comes_back_finds_the_job_waiting_for_it(site: Site) -> None:
    (site.base / "scontrol").rename(site.base / "back")
    job = Allocation(AT, site.base, site.write)
    steps = f"if [ -e {site.base}/two ]; then exec {site.base}/back $@; fi"
    once = f"[ -e {site.base}/one ] && : > {site.base}/two; : > {site.base}/one"
    site.program("scontrol", f"{steps}\n{once}\n{SILENCE}")
    assert job.hand_back()
    assert site.verdict() == {"requeue": "done", "reason": "scontrol requeue"}
    assert [one for one in site.asked() if not one.startswith("scontrol")] == [
        "show job -o 7",
        "requeue 7",
        "show job -o 7",
    ]


def test_a_job_that_nobody_has_begun_to_end_outwaits_its_kill(site: Site) -> None:
    """It was RUNNING when it was seen; a scheduler that does not answer can end nothing."""
    job = Allocation(AT, site.base, site.write)
    job.why("received SIGTERM")
    (site.base / "scontrol").rename(site.base / "back")
    site.program("scontrol", f"[ -e {site.base}/one ] && exec {site.base}/back $@; : > {site.base}/one; {SILENCE}")
    assert job.hand_back(noticed_s=time.monotonic() - 60.0)
    assert site.verdict()["requeue"] == "done"


def test_a_requeue_whose_answer_is_lost_is_not_repeated(site: Site) -> None:
    job = Allocation(AT, site.base, site.write)
    job.why("received SIGTERM")
    site.program(
        "scontrol",
        f'if [ "$1" = requeue ]; then : > {site.base}/heard; echo "Zero Bytes were transmitted" >&2; exit 1; fi\n'
        f"[ -e {site.base}/heard ] && echo 'JobId=7 JobName=a UserId=me(1) GroupId=me(1) JobState=PENDING Restarts=3'",
    )
    assert job.hand_back()
    assert site.verdict() == {"requeue": "done", "reason": "scontrol requeue"}
    assert [one for one in site.asked() if "requeue" in one] == ["scontrol requeue 7"]


def test_a_job_that_may_not_be_requeued_is_submitted_once_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.show(limit_s=3600.0, more="Requeue=0 Partition=low NumNodes=1 Command=/r/run.sbatch job.yaml WorkDir=/r")
    site.program("sbatch", f'echo "$SUPERVISOR_AFTER $SLURM_NODEID$SLURM_RESTART_COUNT" > {site.base}/told; echo 12')
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    monkeypatch.setenv("SLURM_NODEID", "0")
    monkeypatch.setenv("SLURM_JOB_NAME", "a b")
    job = Allocation(AT, site.base, site.write)
    job.why("received SIGTERM")
    assert job.hand_back()
    script = site.base / "control" / "again-7.sbatch"
    assert script.read_text() == "#!/bin/sh\n#SBATCH -p low\n"
    assert site.asked()[-1] == (
        "sbatch --parsable --dependency=afterany:7 --open-mode=append --job-name=a b "
        f"--partition=low --time=99:00:00 --nodes=1 {script} job.yaml"
    )
    assert (site.base / "told").read_text() == "7 \n"  # nothing of this job's place is left in the new one's
    told = site.verdict()
    assert (told["requeue"], told["resubmitted"]) == ("done", "12")
    assert (site.events, site.fields[0]["resubmitted"]) == (["requeued"], "12")


def test_a_task_of_an_array_is_submitted_as_a_task_of_an_array(site: Site) -> None:
    site.show(limit_s=3600.0, more="Requeue=0")
    site.program("sbatch", "echo 12")
    assert Allocation(Incarnation("9", 2, "7_4"), site.base, site.write).hand_back()
    assert "--dependency=afterany:7_4 --open-mode=append --array=4 " in site.asked()[-1]
    assert site.fields[0]["resubmitted"] == "12_4"


def test_a_recorded_submission_is_repeated_word_for_word_and_named_anew(site: Site) -> None:
    site.show(limit_s=3600.0, more="Requeue=0")
    site.program("sbatch", "echo '12;cluster'")
    script = site.base / "the script"
    script.write_text("#!/bin/sh\n")
    (site.base / "control").mkdir()
    record = site.base / "control" / "slurm.json"
    record.write_text(json.dumps({"job_id": 7, "script": str(script), "options": ["-p", "low"], "arguments": ["a b"]}))
    assert Allocation(AT, site.base, site.write).hand_back()
    assert site.asked()[-1].endswith(f" -p low {script} a b")
    assert json.loads(record.read_text())["job_id"] == "12"


def test_a_record_of_another_job_is_not_repeated(site: Site) -> None:
    site.show(limit_s=3600.0, more="Requeue=0")
    site.program("sbatch", "echo 12")
    script = site.base / "the script"
    script.write_text("#!/bin/sh\n")
    (site.base / "control").mkdir()
    (site.base / "control" / "slurm.json").write_text(json.dumps({"job_id": "6", "script": str(script)}))
    assert Allocation(AT, site.base, site.write).hand_back()
    assert site.asked()[-1].endswith("/control/again-7.sbatch")


def test_a_job_that_cannot_go_back_in_any_way_ends_with_the_reason(site: Site) -> None:
    site.refuse("Requested operation is presently disabled\n")
    site.program("sbatch", "echo 'Batch job submission failed: Invalid account' >&2; exit 1")
    job = Allocation(AT, site.base, site.write)
    job.why("received SIGTERM")
    assert not job.hand_back()
    job.close("interrupted")
    assert site.verdict()["requeue"] == "no"
    assert "Invalid account" in site.verdict()["reason"]
    assert site.events == []


def test_a_cluster_that_requeues_our_exit_codes_is_named_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE", "RequeueExit = 75\nRequeueExitHold = 130\nKillWait = 30 sec")
    site.show(limit_s=3600.0, more="Requeue=0")
    site.program("sbatch", "echo 12")
    first = Allocation(Incarnation("7", 0), site.base, site.write)
    until(lambda: first.time_is_up(START_S, 30.0) or first._end_s, "answer")
    assert site.events == ["incident", "incident"]
    assert ["75 (RequeueExit)" in str(site.fields[0]["detail"]), "130 (RequeueExitHold)" in str(site.fields[1])] == [
        True,
        True,
    ]
    again = Allocation(Incarnation("7", 1), site.base, site.write)
    until(lambda: again.time_is_up(START_S, 30.0) or again._end_s, "answer")
    assert len(site.events) == 2
    site.show(limit_s=3600.0, restarts=1, more="Requeue=0")
    again.why("received SIGTERM")
    assert not again.hand_back()
    assert not any("sbatch" in asked for asked in site.asked())  # one way back is enough
    told = json.loads((site.base / "verdicts" / "7-1.json").read_text())
    assert (told["requeue"], "RequeueExit" in told["reason"]) == ("wanted", True)


@pytest.mark.parametrize(
    ("reason", "released"),
    [("JobHoldMaxRequeue", True), ("JobHeldAdmin", False), ("job_requeued_in_held_state", False)],
)
def test_a_hold_is_said_and_let_go_unless_somebody_wanted_it(site: Site, reason: str, released: bool) -> None:
    site.show(limit_s=3600.0, state="PENDING", restarts=3, more=f"Priority=0 Reason={reason}")
    job = Allocation(AT, site.base, site.write)
    job.why("received SIGTERM")
    assert job.hand_back()
    assert ("release 7" in site.asked()) == released
    assert site.events == ["requeued", "incident"]
    assert reason in site.verdict()["reason"]
    assert ("released" in site.verdict()["reason"]) == released


def test_struck_nodes_are_excluded_once_the_job_is_in_the_queue(site: Site) -> None:
    job = Allocation(AT, site.base, site.write)
    site.show(limit_s=3600.0, more="Requeue=1 Partition=low NumNodes=1 ReqNodeList=(null) ExcNodeList=n3")
    job.why("received SIGTERM")
    assert job.hand_back(strikes=Strikes(nodes=("n1", "n4"), excluded=()))
    assert site.asked()[-2:] == ["sinfo -h -N -p low -o %N %t", "update jobid=7 ExcNodeList=n3,n1,n4"]
    assert (site.events, site.fields[1]["excluded"]) == (["requeued", "adapted"], ["n1", "n4"])


def test_a_job_of_several_nodes_keeps_room_for_all_of_them(site: Site) -> None:
    """While it is COMPLETING, SLURM counts only the nodes that have not ended it yet."""
    job = Allocation(Incarnation("7", 2, nodes=("n1", "n2", "n3")), site.base, site.write)
    site.show(limit_s=3600.0, more="Requeue=1 Partition=low NumNodes=1")
    job.why("received SIGTERM")
    assert job.hand_back(strikes=Strikes(nodes=("n1",)))
    assert not any(one.startswith("update") for one in site.asked())
    assert site.events == ["requeued"]


def test_an_expired_strike_frees_its_node_and_leaves_the_users_own_exclusion(site: Site) -> None:
    job = Allocation(AT, site.base, site.write)
    site.show(limit_s=3600.0, more="Requeue=1 Partition=low NumNodes=1 ExcNodeList=n[1,3]")
    job.why("received SIGTERM")
    assert job.hand_back(strikes=Strikes(nodes=(), excluded=("n1",)))
    assert site.asked()[-1] == "update jobid=7 ExcNodeList=n3"
    assert site.fields[1]["excluded"] == []


def test_a_resubmitted_job_keeps_away_from_struck_nodes(site: Site) -> None:
    site.show(limit_s=3600.0, more="Requeue=0 Partition=low NumNodes=1 ExcNodeList=n3")
    site.program("sbatch", "echo 12")
    job = Allocation(AT, site.base, site.write)
    job.why("received SIGTERM")
    assert job.hand_back(strikes=Strikes(nodes=("n1",)))
    assert "--exclude=n3,n1 " in site.asked()[-1]
    assert Allocation(AT, site.base, site.write).hand_back()
    assert "--exclude=n3 " in site.asked()[-1]


def test_outside_of_a_scheduler_nothing_is_asked_or_told(site: Site) -> None:
    here = Allocation(None, site.base, site.write)
    assert not here.time_is_up(0.0, 30.0)
    assert here.why("received SIGTERM") is None
    assert not here.hand_back()
    here.close("interrupted")
    assert site.asked() == []
    assert not (site.base / "verdicts").exists()
