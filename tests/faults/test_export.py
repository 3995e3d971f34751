"""A checkpoint that leaves its run: what others make of it is what the run would have made of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from harness import PROGRAMS, Run, command


def test_a_stock_trainer_goes_on_from_an_exported_checkpoint_and_a_run_from_its(tmp_path: Path) -> None:
    """Bit for bit: each step comes out the same in the run, in the Trainer after it, and in the run after that."""
    job = {"launch": {"processes_per_node": 1}, "checkpoint": {"every": "3 steps", "snapshot": "1 step"}}
    run = Run(tmp_path / "a", args={"max_steps": 9, "save-steps": 6}, job=job)
    run.place("step-5")
    run.start().wait_at("step-5", ranks=1)
    run.wait_for_event("checkpoint_committed")
    stock = tmp_path / "stock"
    exported = command("export", str(run.run_dir), "--hf", str(stock), "--json")  # while it runs
    assert exported.returncode == 0, exported.stderr
    told = json.loads(exported.stdout)
    assert (told["step"], told["checkpoint"]) == (3, str(run.run_dir / "checkpoints" / "checkpoint-3"))
    assert [(one["form"], one["path"]) for one in told["exported"]] == [("hf", str(stock))]
    run.let_go("step-5")
    assert run.wait() == 0, run.said()

    alone = tmp_path / "alone"
    program = [sys.executable, str(PROGRAMS / "tiny_trainer.py"), "--plain", "--out", str(alone), "--save-steps", "6"]
    subprocess.run([*program, "--max_steps", "9", "--resume", str(stock)], check=True, timeout=300)
    there = {line["step"]: line["digest"] for line in run.trace()}
    lines = [json.loads(line) for line in (alone / "trace-0.jsonl").read_text().splitlines()]
    assert [(line["step"], line["digest"]) for line in lines] == [(n, there[n]) for n in range(4, 10)]

    begun = Run(
        tmp_path / "b",
        args={"max_steps": 9},
        job={**job, "start_from": str(alone / "trainer" / "checkpoint-6")},
    )
    assert begun.run() == 0, begun.said()
    assert [(line["step"], line["digest"]) for line in begun.trace()] == [(n, there[n]) for n in range(7, 10)]
    (taken_in,) = [r for r in begun.journal("checkpoint_committed") if r.fields["reason"] == "start_from"]
    assert "weights_only=True" in taken_in.fields["detail"]
    (began,) = begun.journal("training_started")
    assert (began.fields["step"], began.fields["source"]) == (6, "checkpoint")
    assert begun.digests() == run.digests()

    final = command("export", str(run.run_dir / "final"), "--adapter", str(tmp_path / "adapter"))
    assert final.returncode == 0, final.stderr
    name = "adapter_model.safetensors"
    assert (tmp_path / "adapter" / name).read_bytes() == (run.run_dir / "final" / name).read_bytes()
