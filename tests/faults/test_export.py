"""A checkpoint that leaves its run: what others make of it is what the run would have made of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from harness import PROGRAMS, Run, command


def test_a_stock_trainer_goes_on_from_an_exported_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    job = {"launch": {"processes_per_node": 1}, "checkpoint": {"every": "3 steps", "snapshot": "1 step"}}
    run = Run(tmp_path / "a", args={"max_steps": 9}, job=job)
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
    program = [sys.executable, str(PROGRAMS / "tiny_trainer.py"), "--plain", "--out", str(alone)]
    subprocess.run([*program, "--max_steps", "9", "--resume", str(stock)], check=True, timeout=120)
    there = {line["step"]: line["digest"] for line in run.trace()}
    lines = [json.loads(line) for line in (alone / "trace-0.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 5, 6, 7, 8, 9]
    assert [line for line in lines if line["digest"] != there[line["step"]]] == []

    final = command("export", str(run.run_dir / "final"), "--adapter", str(tmp_path / "adapter"))
    assert final.returncode == 0, final.stderr
    name = "adapter_model.safetensors"
    assert (tmp_path / "adapter" / name).read_bytes() == (run.run_dir / "final" / name).read_bytes()
