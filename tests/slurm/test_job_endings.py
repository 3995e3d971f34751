"""A run on two nodes of a real cluster, and the ways in which SLURM takes its job away.

More of them, and how often they go well, is in tests/bench/slurm_endings.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import BUSY_S, Run
from one_machine import Cluster, require

from tests.faults.undisturbed import assert_same
from tests.slurm.submitted import Submitted

ARGS: dict[str, Any] = {"max_steps": 24, "accumulate": 2, "eval-steps": 5, "model": "light"}
#: Training waits at the end of this one, so that steps 1 to 7 are settled when its end comes.
HELD = 8


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require()
    found = Cluster(tmp_path_factory.mktemp("endings") / "c")
    preemption = ("--preempt-mode", "CANCEL", "--grace-time", "0")
    try:
        yield found.up("--nodes", "5", "--slurmd-timeout", "5", "--kill-wait", "10", *preemption)
    finally:
        found.down()


@pytest.fixture(scope="module", autouse=True)
def limited(site: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Submitted:
    """A job that may run for two minutes; the other tests use that time."""
    return submit(site, tmp_path_factory.mktemp("limited"), "--time=2")


@pytest.fixture(scope="module")
def undisturbed(limited: Submitted, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("undisturbed"), args=ARGS)
    assert run.run() == 0, run.said()
    return run


def submit(site: Cluster, base: Path, *options: str) -> Submitted:
    """A run on two nodes, which holds in the middle of training."""
    launch = {"nodes": 2, "processes_per_node": 1, "standby": "off"}
    run = Run(base, args=ARGS, job={"launch": launch, "checkpoint": {"snapshot": "1 step"}})
    run.place(f"step-{HELD}")
    return Submitted.submit(site, run, "--nodes=2", *options)


def assert_resumed(job: Submitted, undisturbed: Run, *, lost: bool = False, limited: bool = False) -> None:
    """It is requeued once, loses no step, and gives what it would have given.

    On a busy machine a job with two minutes to run reaches that limit more than once.

    A lost rank's share of the loss since the last line of the log is gone with it: then the log is not compared.
    """
    job.run.let_go(f"step-{HELD}")
    job.again(1)
    assert job.over() == "COMPLETED", job.log()
    restarts = int(job.shown("Restarts"))
    assert restarts == 1 or (limited and restarts > 1)
    assert job.verdict(restarts) == {"requeue": "no", "reason": "finished"}
    first, second, *more = job.told("training_started")
    assert not more or limited
    assert (first.fields["source"], second.fields["source"]) == ("fresh", "checkpoint")
    assert second.fields["step"] == HELD - 1
    if not lost:
        assert_same(job.run, undisturbed)
    assert job.run.digests() == undisturbed.digests()
    digests = {line["step"]: line["digest"] for line in undisturbed.trace()}
    assert [line for line in job.run.trace() if line["digest"] != digests[line["step"]]] == []


def test_a_preempted_run_comes_back_and_one_that_has_finished_ends_at_once(
    site: Cluster, tmp_path: Path, undisturbed: Run
) -> None:
    job = submit(site, tmp_path)
    job.at_step(HELD)
    job.preempt()
    assert job.left()["requeue"] == "done"
    assert job.told("attempt_ended")[0].fields["cause"] == "preempted"
    assert_resumed(job, undisturbed)

    site.slurm("scontrol", "requeue", job.job)
    job.again(2)
    assert job.over() == "COMPLETED", job.log()
    assert job.shown("ExitCode") == "0:0"
    assert len(job.told("run_started")) == 2


def test_a_cancelled_run_is_kept_and_stays_away(site: Cluster, tmp_path: Path) -> None:
    job = submit(site, tmp_path)
    job.at_step(HELD)
    site.slurm("scancel", job.job)
    assert job.over() == "CANCELLED"
    assert job.left() == {"requeue": "no", "reason": "stopped"}
    assert job.shown("Restarts") == "0"
    assert job.told("run_stopped")[0].fields["step"] == HELD - 1
    assert job.told("checkpoint_committed")[-1].fields["step"] == HELD - 1


def test_a_run_that_loses_its_leaders_node_goes_on_elsewhere_from_what_the_other_node_had(
    site: Cluster, tmp_path: Path, undisturbed: Run
) -> None:
    """A member's is lost in tests/bench/slurm_endings.py."""
    job = submit(site, tmp_path)
    job.at_step(HELD)
    lost, left = job.nodes()
    assert job.lose(lost, [left]) < 5.0 + BUSY_S
    try:
        assert_resumed(job, undisturbed, lost=True)
        assert job.told("attempt_ended")[0].fields["cause"] == "node_lost"
        assert lost not in job.nodes()
    finally:
        site.back(lost)


def test_a_run_whose_time_is_up_leaves_before_and_comes_back(limited: Submitted, undisturbed: Run) -> None:
    assert limited.left()["requeue"] == "done"
    assert limited.told("notice")[0].fields["kind"] == "the end of the allocation"
    assert limited.told("attempt_ended")[0].fields["cause"] == "time_limit"
    assert_resumed(limited, undisturbed, limited=True)
