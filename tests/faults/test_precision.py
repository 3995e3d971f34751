"""State that comes with few bits: a scaler of losses, a quantised base, an optimizer whose moments are bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness import Run
from undisturbed import assert_nothing_repeated, assert_same

JOB: dict[str, Any] = {"launch": {"processes_per_node": 1}, "checkpoint": {"snapshot": "1 step"}}


def assert_a_kill_changes_nothing(base: Path, args: dict[str, Any]) -> Run:
    quiet, run = Run(base / "quiet", args=args, job=JOB), Run(base / "hurt", args=args, job=JOB)
    assert quiet.run() == 0, quiet.said()
    run.place("step-5")
    run.start().wait_at("step-5", ranks=1)
    run.kill_rank(0)
    run.let_go("step-5")
    assert run.wait() == 0, run.said()
    assert_same(run, quiet)
    assert_nothing_repeated(run)
    return quiet


def test_a_scale_that_overflows_now_and_then_leaves_out_the_same_steps(tmp_path: Path) -> None:
    quiet = assert_a_kill_changes_nothing(tmp_path, {"max_steps": 9, "scale": 2.0**19})
    digests = {line["digest"] for line in quiet.trace()}
    assert 4 < len(digests) < 9  # what an overflow leaves out changes nothing


def test_an_adapter_on_four_bits_with_an_optimizer_of_eight_comes_out_the_same(tmp_path: Path) -> None:
    # Below 4096 elements the optimizer keeps 32 bits.
    args = {"max_steps": 7, "quantise": "4bit", "optim": "adamw_8bit", "lora-rank": 128}
    quiet = assert_a_kill_changes_nothing(tmp_path, args)
    optimizer = (quiet.run_dir / "checkpoints/checkpoint-7/optimizer.safetensors").read_bytes()
    assert b'state1":{"dtype":"U8","shape":[128,32]' in optimizer
