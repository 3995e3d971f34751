"""`supervisor verify` tells what it found, and that it could look is all that its exit code says."""

from __future__ import annotations

import json
import time
from pathlib import Path

from checkpoint_samples import RUN, commit_step
from harness import command

from supervisor.journal import Journal


def test_the_exit_code_is_0_also_beside_torn_ones(tmp_path: Path) -> None:
    Journal.open(tmp_path, time.time, "here").append("run_started", run_id=RUN, name="run", mathematics="m")
    for step in (10, 20):
        commit_step(tmp_path / "checkpoints", step)
    (tmp_path / "checkpoints" / "checkpoint-20" / "optimizer.safetensors").unlink()
    answer = command("verify", str(tmp_path), "--json")
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert {one["step"]: one["state"] for one in told["checkpoints"]} == {10: "intact", 20: "torn"}
    assert told["resume_from"] == str(tmp_path / "checkpoints" / "checkpoint-10")
