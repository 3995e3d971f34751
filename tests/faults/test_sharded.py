"""Training whose state no rank has alone: FSDP2, on the CPU over gloo."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from harness import Run
from undisturbed import assert_same

#: A rank of 3 over two processes: pieces of two rows and of one. Evaluations leave some parameters whole.
SHARDED: dict[str, Any] = {"max_steps": 7, "eval-steps": 2, "accumulate": 3, "lora-rank": 3, "shards": 2}
JOB: dict[str, Any] = {"checkpoint": {"snapshot": "1 step", "every": "3 steps"}}


def test_a_sharded_run_comes_out_the_same_after_a_kill_and_after_the_loss_of_all_memory(tmp_path: Path) -> None:
    quiet = Run(tmp_path / "quiet", args=SHARDED, job=JOB)
    assert quiet.run() == 0, quiet.said()
    run = Run(tmp_path / "hurt", args=SHARDED, job=JOB)
    run.place("step-3")
    run.start().wait_at("step-3")
    run.kill_rank(1)
    run.let_go("step-3")
    run.place("step-5")
    run.wait_at("step-5")
    run.kill_tree()
    shutil.rmtree(run.board())
    run.let_go("step-5")
    assert run.run() == 0, run.said()
    started = [(r.fields["step"], r.fields["source"]) for r in run.journal("training_started")]
    assert started == [(0, "fresh"), (2, "snapshot"), (3, "checkpoint")]
    assert_same(run, quiet)


def test_a_sharded_checkpoint_is_the_one_of_a_run_without_shards(tmp_path: Path) -> None:
    args = {**SHARDED, "max_steps": 3}
    plain, run = Run(tmp_path / "plain", args={**args, "shards": 0}), Run(tmp_path / "sharded", args=args)
    assert (plain.run(), run.run()) == (0, 0), run.said()
    for file in ("adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors"):
        own, other = ((one.run_dir / "checkpoints/checkpoint-3" / file).read_bytes() for one in (run, plain))
        assert own == other, file


def test_fsdp1_is_refused_by_name_before_it_trains(tmp_path: Path) -> None:
    run = Run(tmp_path, args={**SHARDED, "shards": 1}, job=JOB)
    assert run.run() == 2
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == ["user_error"]
    assert "FSDP1 is not supported" in run.said()
    assert not run.journal("training_started")
