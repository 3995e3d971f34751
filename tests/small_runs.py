"""Runs of programs on GPUs with little memory (programs/small_gpu.py), and what tells them apart afterwards."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from supervisor.journal import Record
from tests.harness import PROGRAMS, Run

TRAINER = str(PROGRAMS / "small_gpu_trainer.py")


def run_of(base: Path, gpu: dict[str, Any], processes: int = 1, program: str = TRAINER, **args: Any) -> Run:
    """A run of a program on GPUs with little memory."""
    base.mkdir(exist_ok=True)
    return Run(
        base,
        args=args,
        program=program,
        job={
            "launch": {"processes_per_node": processes},
            "checkpoint": {"snapshot": "1 step"},
            "env": {"SMALL_GPU": json.dumps(gpu), "SMALL_GPU_TRACE": str(base / "out")},
        },
    )


def finished(run: Run) -> Run:
    assert run.run() == 0, run.said()
    return run


def causes(run: Run) -> list[Any]:
    return [r.fields["cause"] for r in run.journal("attempt_ended")]


def changes(run: Run) -> list[Any]:
    return [r.fields["changes"] for r in run.journal("adapted") if "changes" in r.fields]


def steps(run: Run, samples: int) -> dict[int, Counter[str]]:
    """The rows that each step was made of, so many, over all lives and ranks; of the life in which it was settled."""
    found: dict[int, Counter[str]] = {}
    worlds = {r.attempt: r.fields["world_size"] for r in run.journal("attempt_started")}
    for start in run.journal("training_started"):
        world = worlds[start.attempt]
        ranks = [rows_of(run, rank, start) for rank in range(world)]
        share = samples // world
        for at in range(0, min(map(len, ranks)) - share + 1, share):
            step = (start.count("step") or 0) + at // share
            found[step] = Counter(row for rows in ranks for row in rows[at : at + share])
    return found


def rows_of(run: Run, rank: int, start: Record) -> list[str]:
    lines = map(json.loads, (run.out / f"samples-{rank}.jsonl").read_text().splitlines())
    return [row for line in lines if line["attempt"] == start.attempt for row in line["rows"]]


def losses(run: Run) -> list[float]:
    return [row["loss"] for row in run.log_history() if "loss" in row]


def adapter(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.run_dir / "final" / "adapter_model.safetensors")


def difference(run: Run, other: Run) -> float:
    """The largest between two adapters, over the largest weight of each tensor."""
    one, two = adapter(run), adapter(other)
    assert one.keys() == two.keys()
    return max(float((one[n] - two[n]).abs().max() / two[n].abs().max().clamp_min(1e-3)) for n in one)
