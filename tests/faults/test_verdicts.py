"""Real deaths of real processes: each is given its cause, the right number of attempts, and is explained."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from harness import PROGRAMS, Run, command, until

from supervisor.watch.cgroups import find

ONE_PROCESS: dict[str, Any] = {"launch": {"processes_per_node": 1}, "recovery": {"max_barren": 1}}


def ended(base: Path, how: str) -> dict[str, Any]:
    run = Run(base, args={"how": how}, job=ONE_PROCESS, program=str(PROGRAMS / "dies.py"))
    assert run.run() == 3, run.said()
    [end] = run.journal("attempt_ended")
    return dict(end.fields)


@pytest.mark.parametrize(
    ("how", "cause", "root", "evidence"),
    [
        ("segfault", "crashed", "segfault", "wrote: Fatal Python error: Segmentation fault, and was ended by SIGSEGV"),
        ("killed", "crashed", "killed", "rank 0 was killed by SIGKILL, it recorded no error of its own"),
        ("exit", "crashed", "exit 7", "rank 0 left with exit code 7, it recorded no error of its own"),
        ("gpu_oom", "gpu_oom", "gpu_oom_neighbour", "rank 0 raised builtins.RuntimeError: CUDA out of memory. Tried"),
        ("disk_full", "disk_full", "enospc", "raised builtins.OSError: [Errno 28] No space left on device"),
        ("value", "user_error", "builtins.ValueError: no such column", "raised builtins.ValueError: no such column"),
        ("wrapped", "disk_full", "enospc", "rank 0 raised builtins.RuntimeError: the cache could not be made"),
        ("network", "network", "refused", "raised builtins.ConnectionRefusedError: [Errno 111] Connection refused"),
        ("abort", "crashed", "illegal_access", "CUDA error: an illegal memory access was encountered, and was ended"),
    ],
)  # fmt: skip
def test_each_death_is_given_its_cause(tmp_path: Path, how: str, cause: str, root: str, evidence: str) -> None:
    end = ended(tmp_path, how)
    assert (end["cause"], end["root"]) == (cause, root)
    assert evidence in end["evidence"]


def test_further_evidence_is_shown_to_whoever_asks_why(tmp_path: Path) -> None:
    end = ended(tmp_path, "gpu_oom")
    told = (
        "rank 0: 2.0 GiB were wanted, 1.0 GiB are free, the device has 80.0 GiB, this process held 9.0 GiB, others held"
    )
    assert end["details"][0].startswith(told)
    assert told in command("why", str(tmp_path / "run")).stdout
    assert '"root": "gpu_oom_neighbour"' in command("why", str(tmp_path / "run"), "--json").stdout


def test_a_rank_that_the_kernel_kills_for_memory_is_told_from_one_that_somebody_kills(tmp_path: Path) -> None:
    groups = find()
    if groups is None or not os.access(groups.chain[0], os.W_OK):
        pytest.skip("memory control groups cannot be made here: needs root")
    job = groups.chain[0] / f"supervisor-verdicts-{os.getpid()}"
    job.mkdir()
    if not (job / groups.names.limit).exists():
        job.rmdir()
        pytest.skip("the memory controller is not passed on to groups here")
    run = Run(tmp_path, args={"how": "eat"}, job=ONE_PROCESS, program=str(PROGRAMS / "dies.py"))
    try:
        (job / groups.names.limit).write_text(str(800 << 20))
        assert run.start().process is not None
        (job / "cgroup.procs").write_text(str(run.process.pid))  # long before it starts anything
        assert run.wait() == 3, run.said()
    finally:
        until(lambda: not job.rmdir(), f"end of {job}")
    [end] = run.journal("attempt_ended")
    assert (end.fields["cause"], end.fields["root"]) == ("host_oom", "host_oom")
    said = "rank 0 was killed by SIGKILL, and the kernel killed 1 process for memory on its node"
    assert end.fields["evidence"] == said
