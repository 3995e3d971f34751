"""Kill-and-resume drills over programs: is the result bit for bit that of a run that nobody disturbed.

A drill is one fault of a run of two ranks: SIGKILL of a random rank, SIGTERM to everything (the run is started again,
and goes on from the disk), or SIGKILL of the supervisor (likewise, from memory), at a random step. Several drills come
one after the other in the same run, which then goes to its end. Compared are the final weights, the optimizer's state
and the log history, all but what depends on the clock and the closing mean of the losses. Kinds and steps are drawn
from a seed; where within the step a fault falls depends on the machine.

    session   tests/programs/own_loop.py: accumulation, two optimizers, a collator that draws, a registered average
    stateful  the same over torchdata's StatefulDataLoader, whole model
    trainer   tests/programs/tiny_trainer.py with our callback
    sft       tests/programs/sft_script.py: TRL's SFTTrainer, not one line of ours
    dpo       tests/programs/dpo_script.py: TRL's DPOTrainer, likewise; `dpo-whole` with a reference model

Not shown: GPUs, several nodes, shards.

Run it (exit 1 if anything differs):
    python -m tests.bench.drills --program session --runs 3 --per-run 4
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness import PROGRAMS, Run, redone, until

STEPS = 24
LOOP = {"rows": 50, "eval-steps": 5, "max_steps": STEPS}
MATRIX: dict[str, tuple[str, dict[str, Any]]] = {
    "session": ("own_loop.py", {**LOOP, "accumulate": 3, "optimizers": 2, "noise": True}),
    "stateful": ("own_loop.py", {**LOOP, "loader": "stateful", "model": "whole", "noise": True}),
    "trainer": ("tiny_trainer.py", {**LOOP, "accumulate": 2, "workers": 1}),
    "sft": ("sft_script.py", {"max_steps": STEPS}),
    "dpo": ("dpo_script.py", {"max_steps": STEPS}),
    "dpo-whole": ("dpo_script.py", {"max_steps": STEPS, "whole": True}),
}
ASSETS = ("--train-pairs", "64", "--eval-pairs", "8", "--vocabulary", "512", "--hidden", "32", "--steps", "20")


@dataclass(frozen=True)
class Drill:
    """A fault, and the step from which it comes."""

    kind: str
    step: int

    def __str__(self) -> str:
        return f"{self.kind} at step {self.step}"


def drills(seed: int, many: int) -> list[Drill]:
    """So many for one run, in the order in which they come."""
    rng = random.Random(seed)
    steps = sorted(rng.sample(range(STEPS - 2), many))
    return [Drill(rng.choice(("rank", "drain", "supervisor")), step) for step in steps]


def main() -> None:
    arguments = argparse.ArgumentParser(description="kill-and-resume drills")
    arguments.add_argument("--program", choices=MATRIX, action="append", help="may be repeated; default: all")
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--per-run", type=int, default=4)
    arguments.add_argument("--ranks", type=int, default=2)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--keep", type=Path, help="leave the runs here, to look at")
    given = arguments.parse_args()
    base = given.keep or Path(tempfile.mkdtemp(prefix="bench-drills-"))
    wrong, done = [], 0
    for program in given.program or list(MATRIX):
        expected = made(base / program / "undisturbed", program, given.ranks)
        for number in range(given.runs):
            planned = drills(given.seed + number, given.per_run)
            run = prepared(base / program / str(number), program, given.ranks)
            wrong += [f"{program} {number}: {one}" for one in disturbed(run, planned, expected, given.seed + number)]
            done += len(planned)
            print(f"{program} {number}: {', '.join(map(str, planned))}; redone {redone(run)}", flush=True)
    print(f"\n{done} drills, {'all bit-identical' if not wrong else 'NOT ALL bit-identical'}")
    print(*wrong, sep="\n")
    if not given.keep:
        shutil.rmtree(base)
    sys.exit(bool(wrong))


def prepared(base: Path, program: str, ranks: int) -> Run:
    """A run that has not begun."""
    file, args = MATRIX[program]
    if file in ("sft_script.py", "dpo_script.py"):
        args = {**args, "assets": str(assets(base.parent.parent / "assets"))}
    job = {"launch": {"processes_per_node": ranks}, "checkpoint": {"snapshot": "1 step"}}
    return Run(base, args=args, job=job, program=str(PROGRAMS / file))


def assets(directory: Path) -> Path:
    """The demo's data and base model, smaller."""
    subprocess.run([sys.executable, "-m", "jobs.demo_assets", str(directory), *ASSETS], check=True)
    return directory


def made(base: Path, program: str, ranks: int) -> Run:
    """What nobody disturbs."""
    run = prepared(base, program, ranks)
    if run.run() != 0:
        raise AssertionError(run.said())
    return run


def disturbed(run: Run, planned: list[Drill], expected: Run, seed: int) -> Iterator[str]:
    """Do the drills, and tell what differs."""
    rng = random.Random(seed)
    run.start()
    for life, drill in enumerate(planned, 1):
        if not strike(run, drill, life, rng):
            break  # it was faster than that: its end is compared all the same
    code = run.wait(300)
    if code != 0:
        yield f"exit code {code}"
        return
    for name, digest in run.digests().items():
        if digest != expected.digests()[name]:
            yield f"another {name}"
    rows = [[_exact(row) for row in one.log_history()] for one in (run, expected)]
    if rows[0] != rows[1]:
        yield f"other rows: {[pair for pair in zip(*rows, strict=False) if pair[0] != pair[1]][:1]}"


def strike(run: Run, drill: Drill, life: int, rng: random.Random) -> bool:
    """Bring the fault about, once its step has come; False if the run was over before."""

    def come() -> bool:
        # A board that is adopted still shows the beats of the life before.
        beats = run.beats() if len(run.journal("training_started")) >= life else []
        reached = bool(beats) and all(b.pid and b.resumed >= 0 and b.step >= drill.step for b in beats)
        return reached or _over(run)

    until(come, f"step {drill.step}", 180.0)
    if _over(run):
        return False
    time.sleep(rng.random() * 0.2)  # somewhere within a step
    assert run.process is not None
    try:
        if drill.kind == "rank":
            beats = run.beats()
            os.kill(rng.choice(beats).pid, signal.SIGKILL)
            until(lambda: _over(run) or _others(run, beats[0].pid), "new ranks", 60.0)
            return not _over(run)
        if drill.kind == "drain":
            run.signal_tree(signal.SIGTERM)
        else:
            run.process.kill()
    except (ProcessLookupError, IndexError):
        return not _over(run)
    code = run.process.wait(60)
    until(lambda: run.workers() == [], "end of the workers", 60.0)
    if code == 0:
        return False
    run.start()
    return True


def _others(run: Run, pid: int) -> bool:
    """Whether the first rank is another process than it was."""
    beats = run.beats()
    return bool(beats) and beats[0].pid not in (0, pid)


def _over(run: Run) -> bool:
    return run.process is not None and run.process.poll() is not None


def _exact(row: dict[str, Any]) -> dict[str, Any]:
    """All but the closing mean, which the Trainer divides by the steps of one life: its last bit may differ."""
    return {key: value for key, value in row.items() if key != "train_loss"}


if __name__ == "__main__":
    main()
