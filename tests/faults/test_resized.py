"""One run with now more and now fewer processes: what each step is made of stays."""

from __future__ import annotations

import json
import signal
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from harness import Run

#: Six micro-batches a step, three steps an epoch without a rest.
ARGS: dict[str, Any] = {"max_steps": 7, "accumulate": 3, "rows": 36, "samples": True}


def job(processes: int) -> dict[str, Any]:
    return {"launch": {"processes_per_node": processes}, "checkpoint": {"snapshot": "1 step"}}


def samples(run: Run) -> dict[int, list[str]]:
    """The samples of each step that counts, of all ranks, in the order of their bytes."""
    found: dict[tuple[int, int], list[str]] = defaultdict(list)
    for path in run.out.glob("samples-*.jsonl"):
        for line in map(json.loads, path.read_text().splitlines()):
            found[line["step"], int(line["life"])] += line["rows"]
    newest = {step: max(life for at, life in found if at == step) for step, _ in found}
    return {step: sorted(found[step, life]) for step, life in sorted(newest.items())}


def live(run: Run, sizes: Sequence[int], stops: Sequence[int]) -> None:
    """Train with each of these numbers of processes in turn, stopped in each of these steps."""
    for processes, step in zip(sizes, stops, strict=False):
        run.job = job(processes)
        run.place(f"step-{step}")
        run.start().wait_at(f"step-{step}", ranks=processes)
        run.signal_tree(signal.SIGTERM)
        assert run.wait() == 75, run.said()
        run.let_go(f"step-{step}")
    run.job = job(sizes[-1])
    assert run.run() == 0, run.said()


def test_each_step_is_made_of_the_same_samples_whatever_the_number_of_processes(tmp_path: Path) -> None:
    quiet = Run(tmp_path / "quiet", args=ARGS, job=job(2))
    assert quiet.run() == 0, quiet.said()
    run = Run(tmp_path / "resized", args=ARGS)
    live(run, (2, 1, 3), (3, 5))

    assert samples(run) == samples(quiet)
    assert [len(of) for of in samples(run).values()] == [12] * 7
    assert [r.fields["step"] for r in run.journal("training_started")] == [0, 2, 4]
    logged, expected = ([row for row in one.log_history() if "loss" in row] for one in (run, quiet))
    for key in ("step", "learning_rate", "epoch"):
        assert [row[key] for row in logged] == [row[key] for row in expected]
    nearly = pytest.approx([row["loss"] for row in expected], rel=0.02)  # dropout is drawn by others
    assert [row["loss"] for row in logged] == nearly

    told = run.journal("adapted")
    assert [(r.fields["world_size"], r.fields["accumulation"]) for r in told] == [(1, 6), (3, 2)]
    assert (
        told[0]
        .fields["detail"]
        .startswith(
            "1 processes go on where 2 were, with 6 micro-batches each: step, schedule, data position and the samples"
        )
    )


@pytest.mark.parametrize(
    ("sizes", "more"),
    [
        pytest.param((2, 1, 2), {}, id="over several passes"),
        # One process draws an order from the common random state, several from a generator: within a pass it stays.
        pytest.param((1, 2, 1), {"rows": 96, "accumulate": 4}, id="within a pass that one process began"),
    ],
)
def test_so_is_each_step_of_a_loop_of_ones_own(tmp_path: Path, sizes: tuple[int, ...], more: dict[str, int]) -> None:
    loop: dict[str, Any] = {"args": {**ARGS, **more, "model": "light"}}
    quiet = Run(tmp_path / "quiet", job=job(sizes[0]), **loop)
    assert quiet.run() == 0, quiet.said()
    run = Run(tmp_path / "resized", **loop)
    live(run, sizes, (3, 5))

    assert samples(run) == samples(quiet)
    assert [len(of) for of in samples(run).values()] == [2 * loop["args"]["accumulate"] * sizes[0]] * 7
    assert [r.fields["step"] for r in run.journal("training_started")] == [0, 2, 4]
    rates = [{line["step"]: line["rate"] for line in one.trace()} for one in (run, quiet)]
    assert rates[0] == rates[1]
    assert [r.fields["world_size"] for r in run.journal("adapted")] == list(sizes[1:])
