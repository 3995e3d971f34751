"""slurm/cluster is a real SLURM: it starts jobs, takes them away, loses nodes, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import until
from one_machine import GRACE_S, Cluster, processes, require, script, words

#: A word in the command line of the job whose node fails.
LOST = str(98_700_000 + os.getpid())

#: Takes this many MB of memory and touches all of them.
TAKES = "import sys; held = [b'x' * 2**20 for _ in range(int(sys.argv[1]))]"

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


@pytest.fixture(scope="module", autouse=True)
def bereft(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, str]]:
    """A cluster whose only node died with this job on it.

    Made before the first test, for SLURM takes half a minute to notice, and the others use that time.
    """
    require()
    found = Cluster(tmp_path_factory.mktemp("slurm") / "bereft")
    try:
        found.up("--nodes", "1", "--slurmd-timeout", "5")
        job = found.submit("--wrap", f"exec sleep {LOST}")
        until(lambda: processes(LOST), "job's process")
        found.fail("n1")
        yield found, job
    finally:
        found.down()


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
    assert "JobState=RUNNING" in during, during
    assert re.search(r"PreemptTime=\d", during)

    until(lambda: ("batch", "TERM") in noted(notes), "SIGTERM in the batch script")
    heard = noted(notes)
    assert heard["batch", "TERM"] - heard["step", "TERM"] > GRACE_S / 2  # in whole seconds, and heard late
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
    cluster.now(job, restart=1)
    until(lambda: counts.read_text().split() == ["first", "1"], "second start")


def test_now_does_not_take_the_old_start_for_the_new_one_and_says_what_the_job_waits_for(cluster: Cluster) -> None:
    job = cluster.submit("-N1", "--wrap", "exec sleep infinity")
    until(lambda: cluster.state(job) == "RUNNING", "first start")
    cluster.slurm("scontrol", "requeuehold", job)
    refused = cluster.call("now", job, "--restart", "1", "--patience", "3")
    assert refused.returncode == 2
    assert re.search(r"did not start: JobState=(PENDING|REQUEUED|COMPLETING|REQUEUE_HOLD) .*Restarts=1", refused.stderr)


def test_a_node_that_failed_takes_its_job_along_and_can_come_back(bereft: tuple[Cluster, str]) -> None:
    cluster, job = bereft
    assert processes(LOST) == []
    log = cluster.base / "slurmctld.log"
    until(lambda: "setting DOWN" in log.read_text(), "SLURM to see it")
    until(lambda: "Restarts=1" in cluster.job(job), "requeue by SLURM")
    cluster.slurm("scancel", job)
    assert "node n1 has failed: `back n1` starts it" in cluster.call("status").stderr
    cluster.back("n1")
    until(lambda: cluster.states() == ["idle"], "idle node")
    assert cluster.call("status").stderr == ""


def test_a_node_that_fails_takes_along_what_had_left_its_parents_and_no_other_nodes_processes(own: Cluster) -> None:
    own.up("--nodes", "2")
    job = own.submit("-N2", "--wrap", "srun -N2 -n2 sh -c 'setsid sleep 76543 & sleep 65432'")
    until(lambda: len(processes("76543")) == len(processes("65432")) == 2, "processes on both nodes")
    own.fail("n2")
    assert len(processes("76543")) == len(processes("65432")) == 1
    refused = own.call("fail", "n7")
    assert refused.returncode == 2
    assert "no node n7; there are n1, n2" in refused.stderr
    own.back("n2")  # before SLURM has missed it
    until(lambda: "Restarts=1" in own.job(job), "requeue")
    until(lambda: set(own.states()) == {"idle"}, "idle nodes")


def test_a_job_that_takes_more_than_its_memory_is_killed_for_it(cluster: Cluster, tmp_path: Path) -> None:
    needs_limits(cluster)
    takes = script(tmp_path, f"exec {sys.executable} -c {shlex.quote(TAKES)} 300")
    small, large = cluster.submit("--mem=200", takes), cluster.submit("--mem=600", takes)
    until(lambda: cluster.state(small) == "OUT_OF_MEMORY", "end of the small one")
    assert "ExitCode=0:125" in cluster.job(small)
    until(lambda: cluster.state(large) == "COMPLETED", "end of the large one")


def test_each_node_of_a_job_has_a_limit_of_its_own(cluster: Cluster, tmp_path: Path) -> None:
    needs_limits(cluster)
    told = tmp_path / "told"
    step = f"{sys.executable} -c {shlex.quote(TAKES)} $((SLURM_PROCID * 300)) && echo $SLURMD_NODENAME >>{told}"
    batch = script(tmp_path, f"srun -N2 -n2 sh -c {shlex.quote(step)}")
    job = cluster.submit("-N2", "-w", "n1,n2", "--mem=200", batch)
    until(lambda: cluster.state(job) in ("FAILED", "OUT_OF_MEMORY"), "end of the job")
    assert told.read_text().split() == ["n1"]


def test_jobs_that_ask_for_no_memory_run_side_by_side(cluster: Cluster) -> None:
    jobs = [cluster.submit("-n1", "--wrap", "exec sleep infinity") for _ in range(6)]
    until(lambda: {cluster.state(job) for job in jobs} == {"RUNNING"}, "six jobs on six CPUs")


def test_preemption_switches_to_cancel_without_grace_and_back(cluster: Cluster) -> None:
    try:
        cluster.mode("CANCEL", 0)
        assert preempted(cluster) == ("PREEMPTED", "0")
        cluster.away()
        cluster.come_back()
        assert {"PreemptMode=CANCEL", "GraceTime=0"} <= partition(cluster)
        cluster.mode("REQUEUE")
        assert {"PreemptMode=REQUEUE", "GraceTime=0"} <= partition(cluster)
        assert preempted(cluster) == ("PENDING", "1")
    finally:
        cluster.mode("REQUEUE", GRACE_S)
    assert {"PreemptMode=REQUEUE", f"GraceTime={GRACE_S}"} <= partition(cluster)


def test_while_slurmctld_is_away_jobs_go_on_and_it_knows_of_their_end_when_it_is_back(
    cluster: Cluster, tmp_path: Path
) -> None:
    ended = tmp_path / "ended"
    goes_on = cluster.submit("--wrap", "exec sleep infinity")
    ends = cluster.submit("--wrap", f"while [ ! -e {ended} ]; do sleep 0.1; done")
    until(lambda: {cluster.state(goes_on), cluster.state(ends)} == {"RUNNING"}, "both jobs")
    cluster.away()
    assert cluster.tried("squeue").returncode != 0
    status = cluster.call("status")
    assert (status.returncode, status.stdout) == (0, "")
    assert "slurmctld is away: `return` starts it" in status.stderr
    for verb in (("mode", "CANCEL"), ("now", goes_on)):
        refused = cluster.call(*verb)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "slurmctld is away: `return` starts it" in refused.stderr
    ended.touch()
    cluster.come_back()
    until(lambda: cluster.state(ends) == "COMPLETED", "end of the job that ended meanwhile")
    assert cluster.state(goes_on) == "RUNNING"
    assert "Restarts=0" in cluster.job(goes_on)


@pytest.mark.parametrize(("proctrack", "hears"), [("linuxproc", ["below", "first"]), ("cgroup", ["first"])])
def test_who_hears_a_signal_to_a_step_depends_on_how_processes_are_tracked(
    own: Cluster, tmp_path: Path, proctrack: str, hears: list[str]
) -> None:
    done = own.call("up", "--nodes", "1", "--proctrack", proctrack)
    if "no --proctrack cgroup here" in done.stderr:
        pytest.skip(done.stderr)
    notes = tmp_path / "notes"
    listens = f"trap 'echo $WHO >>{notes}; exit' USR1; echo $WHO-ready >>{notes}; while :; do sleep 0.05; done"
    body = f"(WHO=below; {listens}) & WHO=first; {listens}"
    job = own.submit(script(tmp_path, f"srun bash -c {shlex.quote(body)}"))
    until(lambda: sorted(words(notes)) == ["below-ready", "first-ready"], "both processes")
    own.slurm("scancel", "-s", "USR1", job)
    until(lambda: "first" in words(notes), "signal")
    if "below" in hears:
        until(lambda: "below" in words(notes), "signal below")
    until(lambda: own.state(job) == "COMPLETED", "end of the step, and with it of all its processes")
    assert sorted(word for word in words(notes) if not word.endswith("-ready")) == hears


def test_a_nodes_shared_memory_may_be_its_own_and_dies_with_it(own: Cluster, tmp_path: Path) -> None:
    own.up("--nodes", "2", "--own-shm")
    body = f"touch /dev/shm/of-$SLURMD_NODENAME; ls /dev/shm >{tmp_path}/$SLURMD_NODENAME"
    own.slurm("sbatch", "-W", "-N2", "-o", "/dev/null", script(tmp_path, f"srun -N2 -n2 sh -c {shlex.quote(body)}"))
    assert [words(tmp_path / node) for node in ("n1", "n2")] == [["of-n1"], ["of-n2"]]
    assert not Path("/dev/shm/of-n1").exists()
    own.fail("n1")
    own.back("n1")
    own.slurm(
        "sbatch", "-W", "-w", "n1,n2", "-o", "/dev/null", script(tmp_path, f"srun -N2 -n2 sh -c {shlex.quote(body)}")
    )
    assert words(tmp_path / "n1") == ["of-n1"]


def needs_limits(cluster: Cluster) -> None:
    if not cluster.limits_memory():
        pytest.skip("no control groups of version 1 here to hold a job to its memory")


def preempted(cluster: Cluster) -> tuple[str, str]:
    """State and number of restarts of a job that was preempted; the cluster is empty again."""
    job = cluster.submit("-N3", "--exclusive", "--wrap", "exec sleep infinity")
    until(lambda: cluster.state(job) == "RUNNING", "job to be preempted")
    cluster.submit("-p", "high", "-N3", "--exclusive", "--wrap", "true")
    until(lambda: cluster.state(job) in ("PREEMPTED", "PENDING"), "preempted job")
    found = cluster.state(job), cluster.job(job).partition(" Restarts=")[2].partition(" ")[0]
    cluster.empty()
    return found


def partition(cluster: Cluster) -> set[str]:
    return set(cluster.slurm("scontrol", "show", "partition", "low", "-o").split())


def noted(notes: Path) -> dict[tuple[str, str], float]:
    """(who, what) to when, at first."""
    found: dict[tuple[str, str], float] = {}
    if notes.exists():
        for line in notes.read_text().splitlines():
            role, word, when_s = line.split()
            found.setdefault((role, word), float(when_s))
    return found
