"""slurm/cluster is a real SLURM: it starts jobs, takes them away, loses nodes, and leaves nothing behind."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from harness import until
from one_machine import GRACE_S, LOST, Cluster, left, processes

#: Batch script and step in one file; each notes when SIGTERM reaches it [monotonic seconds].
HEARS = """#!{python}
import os, signal, subprocess, sys, time

role = "step" if "SLURM_STEP_ID" in os.environ and os.environ.get("HEARS") == "step" else "batch"

def note(word):
    with open("{notes}", "a") as file:
        file.write(f"{{role}} {{word}} {{time.monotonic()}}\\n")

def term(signum, frame):
    note("TERM")
    if role == "batch":
        os._exit(0)

signal.signal(signal.SIGTERM, term)
if role == "batch":
    subprocess.Popen(["srun", "-N1", "-n1", sys.executable, "{script}"], env={{**os.environ, "HEARS": "step"}})
note("ready")
while True:
    signal.pause()
"""


def test_up_means_that_every_node_is_idle(cluster: Cluster) -> None:
    assert cluster.states() == ["idle"] * 3
    assert oct(cluster.base.stat().st_mode & 0o022) == "0o0"


def test_a_job_of_three_nodes_runs_on_three_nodes(cluster: Cluster, tmp_path: Path) -> None:
    cluster.slurm("sbatch", "-W", "-N3", "-o", str(tmp_path / "out"), "--wrap", "srun -N3 -n3 printenv SLURMD_NODENAME")
    assert sorted((tmp_path / "out").read_text().split()) == ["n1", "n2", "n3"]


def test_at_preemption_the_step_hears_of_it_at_once_and_the_batch_script_when_the_grace_is_over(
    cluster: Cluster, tmp_path: Path
) -> None:
    script, notes = tmp_path / "hears.py", tmp_path / "notes"
    script.write_text(HEARS.format(python=sys.executable, notes=notes, script=script))
    job = cluster.submit("-p", "low", "-N3", "--exclusive", str(script))
    until(lambda: {("batch", "ready"), ("step", "ready")} <= set(noted(notes)), "job and step")

    cluster.submit("-p", "high", "-N3", "--exclusive", "--wrap", "true")
    until(lambda: ("step", "TERM") in noted(notes), "SIGTERM in the step")
    assert ("batch", "TERM") not in noted(notes)
    during = cluster.job(job)
    assert "JobState=RUNNING" in during
    assert re.search(r"PreemptTime=\d", during)

    until(lambda: ("batch", "TERM") in noted(notes), "SIGTERM in the batch script")
    heard = noted(notes)
    assert heard["batch", "TERM"] - heard["step", "TERM"] > GRACE_S - 1.5  # SLURM counts whole seconds
    until(lambda: "JobState=PENDING" in cluster.job(job), "requeued job")
    assert "Restarts=1" in cluster.job(job)


def test_a_job_that_requeues_itself_starts_again_when_it_is_told_now(cluster: Cluster, tmp_path: Path) -> None:
    counts = tmp_path / "counts"
    script = tmp_path / "again.sh"
    script.write_text(
        f'#!/bin/bash\necho "${{SLURM_RESTART_COUNT:-first}}" >>{counts}\n'
        '[ -n "${SLURM_RESTART_COUNT:-}" ] || { scontrol requeue "$SLURM_JOB_ID"; exec sleep infinity; }\n'
    )
    job = cluster.submit("-N1", str(script))
    until(lambda: "Restarts=1" in cluster.job(job), "requeue")
    cluster.do("now", job)
    until(lambda: counts.read_text().split() == ["first", "1"], "second start")


def test_a_node_that_failed_takes_its_job_along_and_can_come_back(bereft: tuple[Cluster, str]) -> None:
    cluster, job = bereft
    assert processes(LOST) == []
    log = cluster.base / "slurmctld.log"
    until(lambda: "setting DOWN" in log.read_text(), "SLURM to see it")
    until(lambda: "Restarts=1" in cluster.job(job), "requeue by SLURM", 20)
    cluster.slurm("scancel", job)
    cluster.do("back", "n1")
    until(lambda: cluster.states() == ["idle"], "idle node")


def test_down_ends_jobs_and_daemons_and_removes_the_directory(own: Cluster) -> None:
    own.do("up", "--nodes", "1")
    own.submit("--wrap", "srun sleep 87654")
    until(lambda: len(processes("87654")) >= 2, "srun and its task")
    own.do("down")
    until(lambda: left(own.base) == [], "end of every process", 10)
    assert processes("87654") == []
    assert not own.base.exists()
    own.do("down")


def noted(notes: Path) -> dict[tuple[str, str], float]:
    """(who, what) to when, at first."""
    found: dict[tuple[str, str], float] = {}
    if notes.exists():
        for line in notes.read_text().splitlines():
            role, word, when_s = line.split()
            found.setdefault((role, word), float(when_s))
    return found
