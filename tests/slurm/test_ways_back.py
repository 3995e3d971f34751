"""Every rung of the ladder on a real cluster: what the supervisor asks for is what SLURM then does."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import until
from one_machine import Cluster

from supervisor.engine.allocation import Allocation
from supervisor.launch.slurm import Incarnation

ROOT = Path(__file__).parents[2]
SCRIPT = """\
#!/bin/bash
#SBATCH --open-mode=append
trap : TERM
srun --ntasks-per-node=1 --cpu-bind=none {python} {program} "$@" &
pid=$!
while :; do
    wait $pid
    code=$?
    kill -0 $pid 2>/dev/null || break
done
exit $code
"""


class Stay:
    """A job of tests/programs/gives_back.py, and what it has left behind."""

    def __init__(self, cluster: Cluster, run_dir: Path, *options: str, arguments: tuple[str, ...] = ()) -> None:
        self.cluster, self.run_dir = cluster, run_dir
        run_dir.mkdir(mode=0o700)
        program = ROOT / "tests" / "programs" / "gives_back.py"
        script = run_dir.parent / f"{run_dir.name}.sbatch"
        script.write_text(SCRIPT.format(python=shlex.quote(sys.executable), program=shlex.quote(str(program))))
        environment = f"--export=ALL,PYTHONPATH={ROOT}"
        log = f"--output={run_dir.parent}/{run_dir.name}.log"
        self.job = cluster.slurm(
            "sbatch", "--parsable", environment, log, *options, str(script), str(run_dir), *arguments
        )
        until(lambda: self.starts, f"start of job {self.job}")

    def told(self, event: str) -> list[dict[str, Any]]:
        journal = self.run_dir / "journal"
        lines = journal.read_text().splitlines() if journal.exists() else []
        return [record for record in map(json.loads, lines) if record["event"] == event]

    @property
    def starts(self) -> list[dict[str, Any]]:
        return self.told("allocation_started")

    def verdict(self, restart: int = 0) -> dict[str, str]:
        path = self.run_dir / "verdicts" / f"{self.job}-{restart}.json"
        found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def shown(self, name: str) -> str:
        found = re.search(rf" {name}=(\S*)", self.cluster.job(self.job))
        assert found is not None
        return found[1]

    def go(self) -> None:
        (self.run_dir / "go").touch()


def test_a_job_puts_itself_back_and_starts_on_another_node_than_the_one_that_hurt_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    stay = Stay(cluster, tmp_path / "run", "-N1", arguments=("--struck",))
    first = stay.starts[0]["nodes"]
    stay.go()
    until(lambda: stay.told("adapted"), "exclusion")
    assert stay.verdict() == {"requeue": "done", "reason": "scontrol requeue"}
    # It was asked for while the job was COMPLETING, and has to outlast that.
    until(lambda: stay.shown("JobState") == "PENDING", "job in the queue")
    assert [stay.shown("ExcNodeList")] == first
    cluster.do("now", stay.job)
    until(lambda: len(stay.starts) == 2, "second start")
    assert stay.starts[1]["nodes"] != first
    assert stay.shown("Restarts") == "1"


def test_a_preempted_job_is_put_back_once_and_starts_when_there_is_room(cluster: Cluster, tmp_path: Path) -> None:
    stay = Stay(cluster, tmp_path / "run", "-N1", "-t", "9")
    node = stay.starts[0]["nodes"][0]
    cluster.submit("-p", "high", "-w", node, "-c2", "--wrap", "exec sleep 1")
    until(lambda: stay.verdict().get("requeue") == "done", "requeue")
    until(lambda: stay.shown("JobState") == "PENDING", "job in the queue")
    assert stay.shown("Restarts") == "1"
    cluster.do("now", stay.job)
    until(lambda: len(stay.starts) == 2, "second start")
    until(lambda: stay.shown("JobState") == "COMPLETED", "end of the job")
    assert stay.shown("Restarts") == "1"


def test_a_job_that_needs_every_node_gets_them_all_the_bad_one_too(cluster: Cluster, tmp_path: Path) -> None:
    stay = Stay(cluster, tmp_path / "run", "-N3", "-n3", arguments=("--struck",))
    stay.go()
    until(lambda: stay.told("requeued"), "requeue")
    until(lambda: stay.shown("JobState") == "PENDING", "job in the queue")
    assert stay.shown("ExcNodeList") == "(null)"


def test_a_job_that_may_not_be_requeued_is_followed_by_one_of_the_same_kind(cluster: Cluster, tmp_path: Path) -> None:
    stay = Stay(
        cluster, tmp_path / "run", "--no-requeue", "-N2", "-n2", "-t", "7", "-J", "a name", arguments=("--plain",)
    )
    stay.go()
    until(lambda: len(stay.starts) == 2, "start of the next job")
    new = stay.verdict()["resubmitted"]
    last = stay.starts[-1]
    assert (last["allocation"], last["after"]) == (f"{new}-0", stay.job)
    assert (len(last["nodes"]), last["arguments"]) == (2, ["--plain"])
    shown = cluster.job(new)
    for expected in (" TimeLimit=00:07:00", "JobName=a name ", " NumNodes=2", f" StdOut={tmp_path}/run.log"):
        assert expected in shown
    assert stay.shown("Restarts") == "0"
    assert len(cluster.slurm("squeue", "-h", "-t", "all", "-n", "a name", "-o", "%A").split()) == 2


def test_a_cancelled_job_stays_away(cluster: Cluster, tmp_path: Path) -> None:
    stay = Stay(cluster, tmp_path / "run")
    cluster.slurm("scancel", stay.job)
    until(lambda: stay.shown("JobState") == "CANCELLED", "end of the job")
    assert stay.verdict() == {"requeue": "no", "reason": "stopped"}
    assert (stay.shown("Restarts"), len(stay.starts)) == ("0", 1)


def test_a_cancellation_that_the_leader_was_not_told_of_is_seen_before_it_requeues(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM itself would requeue the job while its last processes are being ended."""
    job = cluster.submit("--wrap", "trap '' TERM; sleep 60")
    until(lambda: " JobState=RUNNING " in cluster.job(job), "start of the job")
    cluster.slurm("scancel", job)
    until(lambda: re.search(r" JobState=(COMPLETING|CANCELLED) ", cluster.job(job)), "cancellation")
    monkeypatch.setenv("SLURM_CONF", str(cluster.base / "slurm.conf"))
    leader = Allocation(Incarnation(job, 0), tmp_path, lambda event, **fields: None)
    assert not leader.hand_back()
    assert leader.cancelled
    leader.close("stopped")
    assert json.loads((tmp_path / "verdicts" / f"{job}-0.json").read_text())["requeue"] == "no"
    until(lambda: " JobState=CANCELLED " in cluster.job(job), "end of the job")
    assert " Restarts=0 " in cluster.job(job)


def test_only_the_task_that_hands_back_is_requeued_of_an_array(cluster: Cluster, tmp_path: Path) -> None:
    """Its last task bears the array's own id, by which SLURM would requeue them all."""
    stay = Stay(cluster, tmp_path / "run", "--array=1-2")
    until(lambda: len(stay.starts) == 2, "both tasks")
    assert f"{stay.job}-0" in [start["allocation"] for start in stay.starts]
    cluster.slurm("scancel", "--signal=TERM", f"{stay.job}_2")
    until(lambda: stay.verdict().get("requeue") == "done", "requeue")

    def states() -> dict[str, str]:
        rows = cluster.slurm("squeue", "-h", "-r", "-j", stay.job, "-o", "%K %T").splitlines()
        return dict(row.split() for row in rows)

    until(lambda: states()["2"] == "PENDING", "task in the queue")
    assert states()["1"] == "RUNNING"


def test_a_scheduler_that_is_away_is_waited_for_and_the_wish_stands_meanwhile(cluster: Cluster, tmp_path: Path) -> None:
    stay = Stay(cluster, tmp_path / "run")
    pid = int((cluster.base / "slurmctld.pid").read_text())
    os.kill(pid, signal.SIGTERM)  # it saves what it knows
    until(lambda: not Path(f"/proc/{pid}").exists(), "end of slurmctld")
    try:
        stay.go()
        until(lambda: stay.verdict().get("requeue") == "wanted", "wish")
    finally:
        cluster.slurm("/usr/sbin/slurmctld")
    until(lambda: stay.verdict()["requeue"] == "done", "requeue")
    until(lambda: stay.shown("JobState") == "PENDING", "job in the queue")
    assert stay.shown("Restarts") == "1"


@pytest.mark.parametrize("option", ["--requeue", "--no-requeue"])
def test_a_site_that_requeues_our_exit_code_gets_the_job_back_once(own: Cluster, tmp_path: Path, option: str) -> None:
    own.do("up", "--nodes", "1")
    conf = own.base / "slurm.conf"
    conf.write_text(conf.read_text() + "RequeueExit=75\n")
    own.slurm("scontrol", "reconfigure")
    stay = Stay(own, tmp_path / "run", option)
    until(lambda: stay.told("incident"), "the cluster's settings")
    assert "75 (RequeueExit)" in stay.told("incident")[0]["detail"]
    stay.go()
    until(lambda: stay.shown("JobState") == "PENDING", "job in the queue")
    assert stay.verdict()["requeue"] == ("done" if option == "--requeue" else "wanted")
    assert stay.shown("Restarts") == "1"
    assert own.slurm("squeue", "-h", "-o", "%A").split() == [stay.job]


def test_a_job_that_slurm_holds_since_it_could_not_be_launched_is_let_go(
    own: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.do("up", "--nodes", "1")
    spool, aside = own.base / "spool-n1", own.base / "aside"
    spool.rename(aside)
    spool.touch()  # slurmd cannot put a script there
    job = own.submit("--wrap", "exec sleep 60")
    until(lambda: " Priority=0 " in own.job(job), "held job")
    spool.unlink()
    aside.rename(spool)
    monkeypatch.setenv("SLURM_CONF", str(own.base / "slurm.conf"))
    told: list[str] = []
    leader = Allocation(Incarnation(job, 0), tmp_path, lambda event, **fields: told.append(f"{event} {fields}"))
    leader.why("received SIGTERM")
    assert leader.hand_back()
    leader.close("requeued")
    assert "launch_failed_requeued_held" in told[-1]
    assert json.loads((tmp_path / "verdicts" / f"{job}-0.json").read_text())["reason"].endswith("released")
    own.do("now", job)  # it starts: a held one would not
    assert " JobState=RUNNING " in own.job(job)
