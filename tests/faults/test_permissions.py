"""Nothing of a run is open to anybody else, whatever the umask: neither what it keeps nor what it passes on."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Run, command, until
from undisturbed import TRAINER_ALONE


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def tree(root: Path) -> list[Path]:
    return [root, *root.rglob("*")]


def opened(root: Path) -> dict[str, str]:
    """What below a directory its group or others have any right to; links have no rights of their own."""
    seen = {path: path.lstat() for path in tree(root)}
    return {
        str(path.relative_to(root)): stat.filemode(one.st_mode)
        for path, one in seen.items()
        if one.st_mode & 0o077 and not stat.S_ISLNK(one.st_mode)
    }


def names(root: Path) -> set[str]:
    return {path.name for path in tree(root)}


@pytest.mark.usefixtures("no_umask")
def test_what_a_run_makes_is_its_users_alone(tmp_path: Path) -> None:
    job = {
        "launch": {"processes_per_node": 2, "standby": "on"},
        "checkpoint": {"every": "1 step", "snapshot": "1 step"},
    }
    run = Run(tmp_path, args=TRAINER_ALONE, job=job, environment={"SLURM_JOB_ID": "4294967290"})
    run.place("step-2", "raise")
    run.place("step-6")
    run.start().wait_at("step-6")
    until((run.board() / "gate-3.0").exists, "workers that stand by")
    run.place("begin")
    run.kill_rank(0)
    run.wait_at("begin")
    assert names(run.board()) >= {"control", "bell", "rank-0.1", "rank-1.1", "history-2", "modules", "gate-3.0"}
    assert names(run.board()) >= {"resume.json", "optimizer.pt", "adapter_model.safetensors", "rng_state_1.pth"}
    assert opened(run.board()) == {}
    assert command("stop", str(run.run_dir)).returncode == 0
    assert run.wait() == 130, run.said()
    assert names(run.run_dir) >= {
        *("lease", "journal.jsonl", "progress.json", "job.yaml", "manifest.json"),
        *("rank-0.error.json", "rank-0.log", "rank-0.stacks.txt", "launcher.log", "accelerate.yaml"),
    }
    assert opened(run.run_dir) == {}
    run.let_go("begin")
    run.let_go("step-6")
    assert run.run() == 0, run.said()
    assert names(run.run_dir) >= {"adapter_model.safetensors", "final"}
    assert "verdicts" in names(run.run_dir)
    assert opened(run.run_dir) == {}
