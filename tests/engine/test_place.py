"""Where a machine stands among the nodes: as SLURM, or the command line, says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from supervisor.engine.members.place import Options, Stand, find_stand
from supervisor.errors import SupervisorError
from supervisor.job import Job

BY_HAND = Options(node_rank=0, nodes=2, leader="127.0.0.1:29400")


def job_of(nodes: int = 1) -> Job:
    made: Any = {"program": "jobs.lora", "run_dir": Path("/run"), "launch": {"nodes": nodes}}
    return Job(**made)


def step(nodes: int, rank: int = 0) -> dict[str, str]:
    """The environment of a job step's task."""
    names = "n1" if nodes == 1 else f"n[1-{nodes}]"
    return {
        "SLURM_JOB_ID": "12",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": names,
        "SLURM_STEP_NUM_NODES": str(nodes),
        "SLURM_NNODES": str(nodes),
        "SLURM_NODEID": str(rank),
        "SLURM_PROCID": str(rank),
        "SLURM_NTASKS": str(nodes),
        "SLURM_STEP_NUM_TASKS": str(nodes),
        "SLURM_JOB_NODELIST": names,
        "SLURM_JOB_NUM_NODES": str(nodes),
    }


def test_alone_is_alone_with_and_without_a_scheduler() -> None:
    assert find_stand(job_of(), Options(), {}) == Stand()
    assert find_stand(job_of(), Options(), step(1)) == Stand()
    assert find_stand(job_of(), Options(node_rank=0, nodes=1), {}) == Stand()


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_command_line_names_a_place(nodes: int) -> None:
    assert find_stand(job_of(nodes), BY_HAND, {}) == Stand(0, 2, "", "127.0.0.1", 29400)
    assert find_stand(job_of(nodes), Options(1, 2, "localhost:65535"), {}).port == 65535
    assert find_stand(job_of(nodes), Options(1, 2, "[::1]:29400"), {}).host == "::1"


def test_a_member_under_slurm_learns_its_leader_in_the_run_directory() -> None:
    stand = find_stand(job_of(2), Options(), step(2, rank=1))
    assert (stand.node, stand.nodes, stand.host) == (1, 2, None)
    assert stand.allocation.endswith(".0")


REFUSED = [
    (2, Options(), {}, "this process stands alone", "--node-rank"),
    (2, Options(), step(3), "the job step has 3 nodes", "launch.nodes: 3"),
    (1, Options(), step(2), "the job step has 2 nodes", "launch.nodes: 2"),
    (3, BY_HAND, {}, "launch.nodes is 3, --nodes is 2", "let both say the same"),
    (1, Options(nodes=2), {}, "--node-rank None", "give both"),
    (1, Options(node_rank=2, nodes=2, leader="h:1"), {}, "--node-rank 2 and --nodes 2", "give both"),
    (1, Options(node_rank=-1, nodes=2, leader="h:1"), {}, "--node-rank -1", "give both"),
    (1, Options(leader="h:1"), {}, "--node-rank None", "give both"),
    *(
        (1, Options(0, 2, leader), {}, f"--leader {leader or ''} names no address", "such as --leader node1:29400")
        for leader in (None, "", "h", "h:", ":1", "h:0", "h:65536", "h:x", "h:-1", "h:١", "h:" + "9" * 5000)
    ),
    *(
        (1, Options(0, 2, f"{host}:29400"), {}, f"--leader {host}:29400: ", "give a name that resolves")
        for host in ("no-such-host.invalid", "a..b", "x" * 70)
    ),
]


@pytest.mark.parametrize(("nodes", "options", "environment", "problem", "remedy"), REFUSED)
def test_every_refusal_names_the_remedy(
    nodes: int, options: Options, environment: dict[str, str], problem: str, remedy: str
) -> None:
    with pytest.raises(SupervisorError) as refused:
        find_stand(job_of(nodes), options, environment)
    assert problem in refused.value.problem
    assert remedy in refused.value.remedy


def test_a_token_that_is_none_is_refused_with_the_way_to_make_one(tmp_path: Path) -> None:
    options = Options(node_rank=1, nodes=2, leader="127.0.0.1:29400")
    with pytest.raises(
        SupervisorError, match=r"SUPERVISOR_LINK_TOKEN .* not to 64 hexadecimal digits; .*openssl rand -hex 32"
    ):
        find_stand(Job(program="t.py", run_dir=tmp_path), options, {"SUPERVISOR_LINK_TOKEN": "secret"})
    stand = find_stand(Job(program="t.py", run_dir=tmp_path), options, {"SUPERVISOR_LINK_TOKEN": "0a" * 32})
    assert stand.token == b"\n" * 32
    assert "token" not in repr(stand)
