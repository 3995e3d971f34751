"""`supervisor submit` on a real SLURM, and what its batch script does when the supervisors have ended.

Except in the first test a bash script stands in for the supervisor: it says what it was called with, leaves the
verdict that it is told to, and ends.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import PROGRAMS, until
from one_machine import Cluster

ROOT = Path(__file__).parents[2]

#: Called in place of python: notes its words and its job, then does what stands in `acts`.
STAND_IN = """#!/bin/bash
home={home}
say() {{
  mkdir -p "$run_dir/verdicts"
  echo "{{\\"requeue\\": \\"$1\\", \\"reason\\": \\"$2\\"}}" >"$verdict.partial"
  mv "$verdict.partial" "$verdict"
}}
run_dir=$(printf '%s\\n' "$@" | sed -n 's/^run_dir="\\(.*\\)"$/\\1/p')
run_dir=${{run_dir:-$home/runs/job}}
restart=${{SLURM_RESTART_COUNT:-0}}
verdict=$run_dir/verdicts/$SLURM_JOB_ID-$restart.json
[ "$SLURM_NODEID" = 0 ] || exit 0
mkdir -p "$home/calls"
printf '%s\\0' "$SLURM_JOB_ID" "$restart" "$@" >"$home/calls/$SLURM_JOB_ID-$restart"
. "$home/acts"
"""


@dataclass
class Site:
    """A directory to submit from, on a cluster."""

    home: Path
    cluster: Cluster

    def acts(self, text: str) -> None:
        (self.home / "acts").write_text(text)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "SLURM_CONF": str(self.cluster.base / "slurm.conf")}
        return subprocess.run(
            [sys.executable, "-m", "supervisor", *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.home,
            env=environment,
            timeout=300,
        )

    def submit(self, *words: str, **slurm: Any) -> str:
        job = {
            "program": str(PROGRAMS / "fails.py"),
            "slurm": {"partition": "low", "time": 10, "python": shlex.quote(str(self.home / "stand-in")), **slurm},
        }
        (self.home / "job.yaml").write_text(yaml.safe_dump(job))
        done = self.command("submit", "job.yaml", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def calls(self) -> list[list[str]]:
        """Words of each call behind job and restart, in the order of those."""
        files = (self.home / "calls").iterdir()
        return sorted(
            (path.read_text().split("\0")[:-1] for path in files), key=lambda words: (int(words[0]), words[1])
        )

    def verdict(self, job: str, run: str = "job") -> str:
        try:
            told = json.loads((self.home / "runs" / run / "verdicts" / f"{job}-0.json").read_text())
        except FileNotFoundError:
            return ""
        return f"{told['requeue']}: {told['reason']}"

    def jobs(self) -> list[str]:
        """Every job that is not over."""
        return self.cluster.slurm("squeue", "-h", "-r", "-o", "%i").split()

    def wait_over(self, job: str, state: str) -> None:
        seen = until(
            lambda: re.search(r"JobState=(COMPLETED|FAILED|CANCELLED)", self.cluster.job(job)), "end of the job"
        )
        assert seen[1] == state, self.cluster.job(job) + self.log()

    def log(self, run: str = "job") -> str:
        return "".join(path.read_text() for path in sorted((self.home / "runs" / run / "logs").glob("slurm-*.log")))


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Site:
    home = tmp_path / "a $(touch pwned) 'home' 100%"
    home.mkdir()
    stand_in = home / "stand-in"
    stand_in.write_text(STAND_IN.format(home=shlex.quote(str(home))))
    stand_in.chmod(0o755)
    return Site(home, cluster)


def test_a_job_is_submitted_once_runs_to_its_end_and_shows_in_the_status(site: Site, cluster: Cluster) -> None:
    """With the real supervisor, and no training: a program that cannot work ends the run with exit code 3."""
    cluster.slurm("scontrol", "update", "partitionname=low", "state=down")
    try:
        job = site.submit("--set", "env.NOTE=$(touch pwned)", python=None, setup=["export SETUP_RAN=1"])
        until(lambda: "Reason=PartitionDown" in cluster.job(job), "word of what it waits for")
        second = site.command("submit", "job.yaml")
        waiting = json.loads(site.command("status", "runs/job", "--json").stdout)
        every = json.loads(site.command("status", "--json").stdout)
        shown = site.command("status", "runs/job").stdout
    finally:
        cluster.slurm("scontrol", "update", "partitionname=low", "state=up")
    assert second.returncode == 2
    assert f"is job {job} already (PENDING)" in second.stderr
    assert waiting["state"] == "pending"
    assert waiting["queue"] == {"job_id": job, "state": "PENDING", "reason": "PartitionDown", "expected_start": None}
    assert [one["queue"] for one in every] == [waiting["queue"]]
    assert f"job {job} is PENDING (PartitionDown)" in shown

    site.wait_over(job, "FAILED")
    assert "ExitCode=3:0" in cluster.job(job)
    assert site.verdict(job) == "no: gave_up"
    run_dir = site.home / "runs" / "job"
    assert all(path.stat().st_mode & 0o077 == 0 for path in (run_dir, run_dir / "logs", run_dir / "control"))
    assert not list(site.home.rglob("pwned"))


def test_the_script_for_people_who_write_their_own_runs_a_job_too(site: Site, cluster: Cluster) -> None:
    tools = site.home / "tools"
    tools.mkdir()
    (tools / "supervisor").write_text(f'#!/bin/bash\nexec {sys.executable} -m supervisor "$@"\n')
    (tools / "supervisor").chmod(0o755)
    (site.home / "job.yaml").write_text(yaml.safe_dump({"program": str(PROGRAMS / "fails.py")}))
    run_dir = site.home / 'my "runs"'
    words = ["job.yaml", "--set", f"run_dir={json.dumps(str(run_dir))}"]
    environment = f"--export=ALL,PATH={tools}:{os.environ['PATH']}"
    options = ["--parsable", environment, f"--chdir={site.home}", "--output=%j.log", "--cpus-per-task=1"]
    job = cluster.slurm("sbatch", *options, str(ROOT / "slurm" / "run.sbatch"), *words)
    site.wait_over(job, "FAILED")
    assert "ExitCode=3:0" in cluster.job(job)
    assert verdicts(run_dir) == ["no: gave_up"]


def test_the_command_reaches_the_node_word_for_word(site: Site) -> None:
    site.acts("pwd; exit 0")
    job = site.submit("--set", 'env.A=it\'s "$HOME" `id` \\n', "--set", "args.x='  '")
    site.wait_over(job, "COMPLETED")
    expected = [
        "-m", "supervisor", "run", str(site.home / "job.yaml"),
        "--set", "env.A=it's \"$HOME\" `id` \\n", "--set", "args.x='  '",
    ]  # fmt: skip
    assert site.calls() == [[job, "0", *expected]]
    assert str(site.home) in site.log()
    assert not list(site.home.rglob("pwned"))


def test_a_requeue_that_is_wanted_is_done_by_the_batch_script(site: Site, cluster: Cluster) -> None:
    site.acts('if [ -z "${SLURM_RESTART_COUNT:-}" ]; then say wanted "no scontrol here"; exit 75; fi; say no finished')
    job = site.submit()
    until(lambda: site.verdict(job) == "done: scontrol requeue by the batch script", "requeue")
    assert "Restarts=1" in cluster.job(job)
    cluster.do("now", job)
    site.wait_over(job, "COMPLETED")
    assert [call[:2] for call in site.calls()] == [[job, "0"], [job, "1"]]
    assert site.jobs() == []


def test_a_requeue_that_was_done_but_not_written_down_is_not_done_twice(site: Site, cluster: Cluster) -> None:
    """The leader was killed between its `scontrol requeue` and the word that it was done."""
    site.acts("trap : TERM; say wanted 'being asked for'; scontrol requeue $SLURM_JOB_ID; exit 75")
    job = site.submit()
    until(lambda: site.verdict(job).startswith("done"), "word of the batch script")
    until(lambda: "JobState=PENDING" in cluster.job(job), "the job in the queue")
    assert "Restarts=1" in cluster.job(job)
    assert site.verdict(job) == "done: the job was in the queue already"
    assert site.jobs() == [job]


def test_where_requeueing_is_disabled_a_successor_is_submitted(site: Site, cluster: Cluster) -> None:
    site.acts('[ -e "$home/again" ] && { say no finished; exit 0; }; touch "$home/again"; say wanted x; exit 75')
    job = site.submit(additional_parameters={"requeue": False})
    site.wait_over(job, "FAILED")
    record = json.loads((site.home / "runs" / "job" / "control" / "slurm.json").read_text())
    successor = record["job_id"]
    assert site.verdict(job) == "done: resubmitted"
    site.wait_over(successor, "COMPLETED")
    assert [call[:2] for call in site.calls()] == [[job, "0"], [successor, "0"]]
    assert site.calls()[0][2:] == site.calls()[1][2:]
    assert site.jobs() == []


def test_a_job_that_was_cancelled_is_not_put_back_whatever_the_verdict_says(site: Site, cluster: Cluster) -> None:
    """In a container without scontrol the leader takes every SIGTERM for a preemption."""
    site.acts("trap 'say wanted \"no scontrol here\"; exit 75' TERM; echo ready; while :; do sleep 0.1; done")
    job = site.submit()
    until(lambda: "ready" in site.log(), "program")
    cluster.slurm("scancel", job)
    site.wait_over(job, "CANCELLED")
    assert site.verdict(job) == "no: the job was cancelled"
    assert "Restarts=0" in cluster.job(job)
    assert site.jobs() == []


def test_a_job_that_is_preempted_is_put_back(site: Site, cluster: Cluster) -> None:
    site.acts("trap 'say wanted \"no scontrol here\"; exit 75' TERM; echo ready; while :; do sleep 0.1; done")
    job = site.submit(additional_parameters={"exclusive": True})
    until(lambda: "ready" in site.log(), "program")
    cluster.submit("-p", "high", "-N3", "--exclusive", "--wrap", "true")
    until(lambda: site.verdict(job).startswith("done"), "word of the batch script")
    assert site.verdict(job) == "done: scontrol requeue by the batch script"


@pytest.mark.parametrize(
    ("acts", "code"),
    [("exit 127", "127:0"), ("say no stopped; exit 130", "130:0"), ("say done 'scontrol requeue'; exit 75", "75:0")],
    ids=["a supervisor that never started", "a run that was stopped", "a leader that saw to it itself"],
)
def test_nothing_is_put_back_that_nobody_wants_back(site: Site, cluster: Cluster, acts: str, code: str) -> None:
    site.acts(acts)
    job = site.submit(teardown=["echo torn down"])
    site.wait_over(job, "FAILED")
    assert f"ExitCode={code}" in cluster.job(job)
    assert "Restarts=0" in cluster.job(job)
    assert site.jobs() == []
    assert "torn down" in site.log()


def test_a_job_whose_run_has_finished_is_a_success_whatever_srun_makes_of_it(site: Site, cluster: Cluster) -> None:
    site.acts("say no finished; exit 1")
    job = site.submit()
    site.wait_over(job, "COMPLETED")
    assert "ExitCode=0:0" in cluster.job(job)


def test_a_sites_requeue_exit_codes_do_not_bring_back_a_run_that_was_stopped(own: Cluster, tmp_path: Path) -> None:
    own.do("up", "--nodes", "1", "--kill-wait", "2")
    conf = own.base / "slurm.conf"
    conf.write_text(f"{conf.read_text()}RequeueExit=130\n")
    own.slurm("scontrol", "reconfigure")
    until(lambda: "130" in own.slurm("scontrol", "show", "config").partition("RequeueExit ")[2][:40], "its code")
    stand_in = tmp_path / "stand-in"
    stand_in.write_text(STAND_IN.format(home=shlex.quote(str(tmp_path))))
    stand_in.chmod(0o755)
    site = Site(tmp_path, own)
    site.acts("say no stopped; exit 130")
    job = site.submit()
    site.wait_over(job, "FAILED")
    assert "Restarts=0" in own.job(job)
    assert "ExitCode=131:0" in own.job(job)


def test_a_signal_that_reaches_only_the_batch_script_reaches_the_supervisor_too(site: Site, cluster: Cluster) -> None:
    site.acts("trap 'echo heard USR1; say no drained; exit 0' USR1; echo ready; while :; do sleep 0.1; done")
    job = site.submit()
    until(lambda: "ready" in site.log(), "program")
    cluster.slurm("scancel", "--batch", "--signal=USR1", job)
    site.wait_over(job, "COMPLETED")
    assert "heard USR1" in site.log()


def test_several_nodes_get_one_supervisor_each_and_all_of_their_cpus(site: Site, cluster: Cluster) -> None:
    """Written by hand, since a job file has one node for now."""
    from supervisor.launch.submission import Batch, script

    head = '[ "$SLURM_NODEID" = 0 ] && scontrol show step "$SLURM_JOB_ID.$SLURM_STEP_ID"; echo "node $SLURM_NODEID"'
    batch = Batch(
        name="many",
        nodes=2,
        command=("-c", head),
        run_dir=site.home,
        cwd=site.home,
        log=f"{site.home}/log".replace("%", "%%"),
    )
    path = site.home / "many.sbatch"
    text = script(batch, {"python": "bash", "cpus_per_task": 2, "additional_parameters": {"no-kill": True}})
    path.write_text(text)
    job = cluster.slurm("sbatch", "--parsable", "-p", "low", str(path))
    site.wait_over(job, "COMPLETED")
    said = (site.home / "log").read_text()
    assert sorted(line for line in said.splitlines() if line.startswith("node ")) == ["node 0", "node 1"]
    assert "CPUs=4 Tasks=2" in said


def test_the_runs_of_a_sweep_have_directories_of_their_own_and_come_back_alone(site: Site, cluster: Cluster) -> None:
    """The number of an array's last task is that of the whole array: put back by it, all would come back."""
    again = '[ "$SLURM_ARRAY_TASK_ID" != 2 ] || [ -n "${SLURM_RESTART_COUNT:-}" ] || { say wanted x; exit 75; }'
    site.acts(f"{again}; say no finished; exit 0")
    job = site.submit("--sweep", "args.r=1,$(id)", "--sweep", "args.t=a b,'#'", array_parallelism=2)
    home = site.home / "runs" / "job"
    own = {name: json.loads((home / name / "control" / "slurm.json").read_text())["job_id"] for name in tasks(home)}
    assert own == {f"job-{index}": f"{job}_{index}" for index in range(4)}
    until(lambda: [f"{job}_2"] == site.jobs(), "the one that came back")
    cluster.do("now", f"{job}_2")
    until(lambda: site.jobs() == [], "end of all")
    sets = {call[-1]: call[-7:-3:2] for call in site.calls()}
    assert sets[f'run_dir="{home}/job-3"'] == ["args.r=$(id)", "args.t='#'"]
    assert len(sets) == 4
    assert len(site.calls()) == 5
    assert {verdict for name in tasks(home) for verdict in verdicts(home / name)} == {
        "no: finished",
        "done: scontrol requeue by the batch script",
    }
    assert not list(site.home.rglob("pwned"))


def tasks(home: Path) -> list[str]:
    return sorted(path.name for path in home.iterdir() if path.name.startswith("job-"))


def verdicts(run_dir: Path) -> list[str]:
    told = [json.loads(path.read_text()) for path in (run_dir / "verdicts").iterdir()]
    return [f"{one['requeue']}: {one['reason']}" for one in told]
