"""slurm/cluster comes up and goes down as it says, beside others, and never takes what is not its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import until
from one_machine import SCRIPT, Cluster, left, processes


def test_where_no_control_groups_can_be_made_it_comes_up_without_and_says_so(own: Cluster) -> None:
    # A mount namespace whose /sys/fs/cgroup is empty, as in many a container.
    hidden = 'mount -t tmpfs hidden /sys/fs/cgroup && exec "$@"'
    command = [str(SCRIPT), "--dir", str(own.base), "up", "--nodes", "1"]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hidden, "sh", *command], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert "jobs are not held to their --mem here, memory: " in done.stderr
    assert not own.limits_memory()
    job = own.submit("--wrap", "srun true")
    until(lambda: own.state(job) == "COMPLETED", "a job without limits")


def test_a_site_may_refuse_requeues_and_set_what_it_likes(own: Cluster) -> None:
    own.up("--nodes", "1", "--no-requeue", "--set", "KillOnBadExit=1", "--set", "MinJobAge=77")
    config = own.slurm("scontrol", "show", "config")
    assert re.search(r"JobRequeue +=( 0)\n", config)
    assert re.search(r"KillOnBadExit +=( 1)\n", config)
    assert re.search(r"MinJobAge +=( 77) sec", config)
    job = own.submit("--wrap", "exec sleep infinity")
    until(lambda: own.state(job) == "RUNNING", "job")
    assert "Requested operation is presently disabled" in own.tried("scontrol", "requeue", job).stderr
    assert "is no KEY=VALUE" in own.call("up", "--set", "nothing").stderr


def test_a_cluster_that_does_not_come_up_says_why_and_leaves_nothing(own: Cluster) -> None:
    failed = own.call("up", "--set", "SchedulerType=sched/nothing")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "its nodes did not come up; slurmctld is away" in failed.stderr
    assert "fatal: Failed to initialize sched plugin" in failed.stderr
    assert not own.base.exists()
    assert left(own.base) == []


def test_up_again_says_that_it_runs_or_what_to_do_about_what_does_not(own: Cluster) -> None:
    first = own.do("up", "--nodes", "2")
    again = own.call("up", "--nodes", "2")
    assert (again.returncode, again.stdout) == (0, first)
    assert "it was up already" in again.stderr

    own.away()
    own.fail("n2")
    broken = own.call("up", "--nodes", "2")
    assert (broken.returncode, broken.stdout) == (2, "")
    assert "slurmctld is away: `return` starts it; node n2 has failed: `back n2` starts it" in broken.stderr
    own.back("n2")
    own.come_back()
    assert own.do("up") == first


def test_nobody_elses_process_is_ended_whatever_a_pid_file_says(own: Cluster, tmp_path: Path) -> None:
    own.up("--nodes", "1")
    program = tmp_path / "slurmd"
    program.symlink_to(Path(sys.executable).resolve())
    looks_like_it = [str(program), "-c", "import signal; signal.pause()", "-N", "n1"]
    stranger = subprocess.Popen(looks_like_it, env={**os.environ, "SLURM_CONF": "/elsewhere/slurm.conf"})
    try:
        for name in ("slurmctld", "slurmd-n1", "munge"):
            (own.base / f"{name}.pid").write_text(f"{stranger.pid}\n")
        own.fail("n1")
        own.down()
        assert left(own.base) == []
        assert stranger.poll() is None
        assert Path(f"/proc/{stranger.pid}/comm").read_text() == "slurmd\n"
    finally:
        stranger.kill()
        stranger.wait()


def test_two_clusters_with_the_same_names_do_not_hurt_each_other(cluster: Cluster, own: Cluster) -> None:
    own.up("--nodes", "3")
    keeps = cluster.submit("-N3", "--wrap", "srun -N3 -n3 sleep 43210")
    own.submit("-N3", "--wrap", "srun -N3 -n3 sleep 32101")
    until(lambda: len(processes("43210")) >= 4 and len(processes("32101")) >= 4, "jobs of both")
    own.fail("n1")
    own.away()
    own.down()
    assert processes("32101") == []
    assert len(processes("43210")) >= 4
    assert cluster.state(keeps) == "RUNNING"
    assert cluster.call("status").stderr == ""


def test_a_directory_too_long_for_slurms_sockets_is_refused_before_anything_starts(own: Cluster) -> None:
    longest = 75  # 107 bytes of sun_path less `/spool-n3/n3_67043328.4294967291`
    below = own.base.parent
    if len(str(below)) > longest - 2:
        pytest.skip(f"{below} is itself too long to try it")
    long = Cluster(below / ("c" * (longest - len(str(below)) - 1)))
    longer = Cluster(below / f"{long.base.name}c")
    refused = longer.call("up")
    assert (refused.returncode, longer.base.exists()) == (2, False)
    assert f"76 bytes long; the sockets of SLURM's steps need it in {longest} or fewer" in refused.stderr
    try:
        long.up("--set", "FirstJobId=67043327")
        job = long.submit("--wrap", "exec sleep infinity")
        until(lambda: long.state(job) == "RUNNING", "job")
        until(lambda: f"{long.base}/spool-n1/n1_67043327.4294967291" in Path("/proc/net/unix").read_text(), "socket")
    finally:
        long.down()


def test_no_directory_but_a_clusters_is_taken_or_removed(own: Cluster) -> None:
    own.base.mkdir()
    kept = own.base / "kept"
    kept.touch()
    for verb in ("up", "down", "away"):
        refused = own.call(verb)
        assert refused.returncode == 2
        assert str(own.base) in refused.stderr
    assert list(own.base.iterdir()) == [kept]
    kept.unlink()
    own.base.rmdir()
    assert "letters, digits" in Cluster(own.base.parent / "with space").call("up").stderr


def test_down_ends_jobs_and_daemons_and_removes_the_directory(own: Cluster) -> None:
    own.up("--nodes", "1")
    groups = [link.resolve() for link in (own.base / "cgroup").glob("*")]
    own.submit("--wrap", "srun sleep 87654")
    until(lambda: len(processes("87654")) >= 2, "srun and its task")
    own.down()
    until(lambda: left(own.base) == [], "end of every process")
    assert processes("87654") == []
    assert not own.base.exists()
    assert not [group for group in groups if group.exists()]
    own.down()


def test_the_examples_in_the_settings_hold() -> None:
    settings = SCRIPT.parent / "settings.py"
    assert ">>> " in settings.read_text()
    subprocess.run([sys.executable, "-m", "doctest", str(settings)], check=True, timeout=60)
