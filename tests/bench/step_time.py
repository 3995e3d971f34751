"""How much longer a step takes under the supervisor than under `accelerate launch` alone.

Measured: the same stock Trainer script (LoRA on all linear layers, AdamW, one thread a rank, no line of ours in it),
in turn under `accelerate launch` and under `supervisor run` with its defaults: a snapshot of every step, the look at
losses and gradient norms, all sensors, and a checkpoint of every fiftieth step. The steps' own clock is the program's.
Runs alternate, and each pair gives a ratio of lower quartiles, since other work on the machine only ever lengthens a
step; the first steps, which everybody pays for once, are left out.

Not shown: GPUs, where the copy overlaps the next step.

Run it:
    python -m tests.bench.step_time --pairs 5 --ranks 1
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.harness import PROGRAMS, Run

PROGRAM = PROGRAMS / "timed_trainer.py"
#: Steps at the beginning that are not counted: allocations, first layout, first optimizer step.
WARM = 10


def main() -> None:
    arguments = argparse.ArgumentParser(description="step time, on against off")
    arguments.add_argument("--pairs", type=int, default=5)
    arguments.add_argument("--ranks", type=int, default=1)
    arguments.add_argument("--steps", type=int, default=150)
    arguments.add_argument("--hidden", type=int, default=256)
    given = arguments.parse_args()
    ratios = []
    for pair in range(given.pairs):
        with tempfile.TemporaryDirectory(prefix="bench-step-") as base:
            off, on = (way(Path(base), given) for way in ((alone, supervised), (supervised, alone))[pair % 2])
            off, on = (off, on) if pair % 2 == 0 else (on, off)
        ratios.append(on / off)
        print(f"off {1000 * off:.1f} ms, on {1000 * on:.1f} ms: {on / off:.4f}", flush=True)
    print(
        f"{given.pairs} pairs, {given.ranks} rank(s): ratio {statistics.median(ratios):.4f}, "
        f"from {min(ratios):.4f} to {max(ratios):.4f}; load {os.getloadavg()[0]:.1f}"
    )


def alone(base: Path, given: argparse.Namespace) -> float:
    """A step under the launcher alone [s]."""
    times = base / "off"
    command = ["accelerate", "launch", "--cpu", "--num_processes", str(given.ranks), "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--multi_gpu"] if given.ranks > 1 else []
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", *command[1:]]
    told = [str(PROGRAM), "--times", str(times), "--max-steps", str(given.steps), "--hidden", str(given.hidden)]
    subprocess.run([*command, *told], check=True, capture_output=True)
    return usual(times / "rank-0")


def supervised(base: Path, given: argparse.Namespace) -> float:
    """A step under the supervisor [s]."""
    times = base / "on"
    run = Run(
        base / "run",
        program=str(PROGRAM),
        job={
            "args": ["--times", str(times), "--max-steps", given.steps, "--hidden", given.hidden],
            "launch": {"processes_per_node": given.ranks},
            "checkpoint": {"every": "50 steps"},
        },
    )
    assert run.run() == 0, run.said()
    return usual(times / "rank-0")


def usual(path: Path) -> float:
    """A step's lower quartile [s]."""
    began_s = [float(line.split()[1]) for line in path.read_text().splitlines()][WARM:]
    return statistics.quantiles((after - before for before, after in itertools.pairwise(began_s)), n=4)[0]


if __name__ == "__main__":
    main()
