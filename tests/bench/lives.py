"""Runs that are hurt at random moments, and the undisturbed one they are compared with.

Shared by kill_ranks, kill_trees and sigterm. The run has what has broken resumes: dropout,
accumulation, evaluation, two data-loader workers per rank, several epochs, two ranks.
What was lost is read from the training program's own trace, not from the supervisor's journal.
"""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tests.harness import Run, until

ARGS = {"max_steps": 60, "rows": 96, "workers": 2, "eval-steps": 7, "accumulate": 2, "sleep": 0.02}
#: Moments that are waited for inside training start by this step, so that an evaluation still follows.
LAST_STEP = 50


@dataclass(frozen=True)
class Moment:
    """When to strike: at a step or later, in a certain situation, and then this share of it later."""

    kind: str
    step: int
    share: float

    def __str__(self) -> str:
        return self.kind if self.kind in ("setup", "back-off") else f"{self.kind} {self.step}+"


def moments(seed: int, count: int, kinds: dict[str, int], per_run: int) -> list[list[Moment]]:
    """Random moments, a list for each run, in the order in which they come.

    Args:
        seed: of all randomness.
        count: in all.
        kinds: their weights.
        per_run: at most so many in one run.
    """
    rng = random.Random(seed)
    listed = []
    while count > 0:
        many = min(per_run, count)
        count -= many
        steps = sorted(rng.sample(range(LAST_STEP), many))
        listed.append([Moment(rng.choices(list(kinds), list(kinds.values()))[0], s, rng.random()) for s in steps])
    return listed


def await_moment(run: Run, moment: Moment, attempt: int) -> None:
    """Wait for it, in a certain attempt of the run.

    Raises:
        AssertionError: the run ended before it came.
    """
    match moment.kind:
        case "setup":
            run.wait_for_event("attempt_started", attempt)
            until(lambda: all(b.pid for b in run.beats()) and run.beats(), "ranks")
            time.sleep(4.0 * moment.share)  # imports and loading take about five
        case "step":
            run.wait_for_step(moment.step, attempt=attempt)
            time.sleep(0.1 * moment.share)  # about one step
        case "evaluation":
            due = (moment.step // ARGS["eval-steps"] + 1) * ARGS["eval-steps"]
            run.wait_for_step(due - 1, attempt=attempt)
            until(lambda: traced(run, 0)[-1]["step"] >= due, f"end of step {due}", 30.0)
            time.sleep(ARGS["sleep"] + 0.1 * moment.share)  # an evaluation takes about so long
        case "commit":
            run.wait_for_step(moment.step, attempt=attempt)
            until(lambda: any((run.run_dir / "checkpoints").glob(".partial-*")), "commit", 30.0)
            time.sleep(0.02 * moment.share)


def fresh_run(
    base: Path,
    *,
    standby: bool = False,
    checkpoint: dict[str, str] | None = None,
    args: dict[str, float] = ARGS,
    nodes: int = 1,
) -> Run:
    """A run of its own directory, of two ranks on one node or on two.

    Every step's snapshot is asked for: `auto` takes fewer where a busy machine makes them dear,
    and then a kill may cost the steps between two of them.
    """
    launch = {"nodes": nodes, "processes_per_node": 2 // nodes, "standby": "on" if standby else "off"}
    checkpoint = {"snapshot": "1 step", **(checkpoint or {})}
    recovery = {"max_barren": 20, "grace": "15 s"}
    return Run(base, args=args, job={"recovery": recovery, "launch": launch, "checkpoint": checkpoint})


def undisturbed(base: Path, args: dict[str, float] = ARGS) -> tuple[dict[str, str], dict[int, str]]:
    """Digests of the result, and of the adapter after every step, of a run that nothing happens to."""
    run = fresh_run(base, args=args)
    assert run.run() == 0, run.said()
    found = run.digests(), {line["step"]: line["digest"] for line in run.trace()}
    shutil.rmtree(base)
    return found


def differences(run: Run, expected: tuple[dict[str, str], dict[int, str]]) -> list[str]:
    """What of a finished run is not bit-identical to the undisturbed one; nothing if all is."""
    digests, steps = expected
    wrong = [name for name, digest in run.digests().items() if digest != digests[name]]
    for rank in range(2):
        wrong += [
            f"rank {rank}, step {line['step']}, attempt {line['attempt']}"
            for line in run.trace(rank)
            if line["digest"] != steps[line["step"]]
        ]
    return wrong


def traced(run: Run, rank: int) -> list[dict]:
    """What the program wrote after every step; nothing as long as there was none."""
    return run.trace(rank) if (run.out / f"trace-{rank}.jsonl").exists() else []


def completed(run: Run, attempt: int) -> int:
    """Newest step that every rank had settled in the attempts before this one, as their traces tell.

    A rank traces step s when it has done it, so s - 1 is settled there.
    """
    newest = 0
    traces = [traced(run, rank) for rank in range(2)]
    for earlier in range(1, attempt):
        reached = [max((t["step"] for t in one if int(t["attempt"]) == earlier), default=0) for one in traces]
        newest = max(newest, min(reached) - 1)
    return newest


def resumed(run: Run) -> dict[int, tuple[int, str]]:
    """Attempt to the step and the source that it went on from, for those that came to train."""
    return {
        r.attempt or 0: (int(r.count("step") or 0), str(r.fields["source"])) for r in run.journal("training_started")
    }
