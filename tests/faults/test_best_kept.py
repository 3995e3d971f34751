"""The state that was measured best is on disk, whatever the period says, and stays there."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness import Run, until

JOB = {
    "launch": {"processes_per_node": 1},
    "checkpoint": {"every": "5 steps", "snapshot": "1 step", "keep_last": 2},
}
ARGS = {"max_steps": 18, "eval-steps": 3, "sleep": 0.05}


def start_measuring(run: Run, *periodic: int) -> None:
    """Start, and have training wait for the checkpoints that are looked at: it may be ahead of whoever makes them."""
    run.place("evaluation-3")
    for step in (3, *periodic):
        run.place(f"step-{step + 1}")
    run.start().wait_at("evaluation-3", ranks=1)
    until(lambda: run.orders()[0].due_at == 3, "word that the state under evaluation is to be spared")
    run.let_go("evaluation-3")
    for step in (3, *periodic):
        run.wait_at(f"step-{step + 1}", ranks=1)
        run.wait_for_commit(step)
        run.let_go(f"step-{step + 1}")


def test_the_best_evaluation_makes_a_checkpoint_of_its_step_which_outlives_the_newer_ones(tmp_path: Path) -> None:
    # The loss falls, so the highest one is the first: the best is neither periodic nor among the last.
    checkpoint = {**JOB["checkpoint"], "keep_best": {"metric": "eval_loss", "mode": "max"}}
    run = Run(tmp_path, args=ARGS, job={**JOB, "checkpoint": checkpoint})
    start_measuring(run, 15)
    assert run.wait() == 0, run.said()
    best = [r for r in run.journal("checkpoint_committed") if r.fields["reason"] == "best"]
    assert [(r.count("step"), r.fields["trained"]) for r in best] == [(3, False)]
    kept = {p.name for p in (run.run_dir / "checkpoints").iterdir()}
    assert kept == {"checkpoint-3", "checkpoint-15", "checkpoint-18"}
    assert run.journal("checkpoint_committed")[-1].fields["reason"] == "final"
    assert [r.fields["detail"] for r in run.journal("incident")] == []


def test_a_metric_that_nobody_measures_is_named_once_with_those_that_are(tmp_path: Path) -> None:
    checkpoint = {**JOB["checkpoint"], "keep_best": {"metric": "eval_f1"}}
    run = Run(tmp_path, args={**ARGS, "max_steps": 6}, job={**JOB, "checkpoint": checkpoint})
    assert run.run() == 0, run.said()
    (incident,) = run.journal("incident")
    detail = "checkpoint.keep_best.metric: the program does not tell eval_f1; what is measured: eval_loss"
    assert incident.fields["detail"] == detail


def test_a_machine_that_has_only_the_mirror_knows_what_was_best_and_keeps_it(tmp_path: Path) -> None:
    checkpoint = {**JOB["checkpoint"], "keep_best": {"metric": "eval_loss", "mode": "max"}}
    checkpoint["mirror"] = f"file://{tmp_path / 'mirror'}"
    run = Run(tmp_path / "run", args=ARGS, job={**JOB, "name": "demo", "checkpoint": checkpoint})
    run.place("step-13")
    start_measuring(run, 10)
    run.wait_at("step-13", ranks=1)
    until(lambda: {3, 10} <= {r.count("step") for r in run.journal("mirrored")}, "steps 3 and 10 in the mirror")
    run.kill_tree()
    shutil.rmtree(run.board(), ignore_errors=True)
    shutil.rmtree(run.run_dir)
    run.let_go("step-13")

    run.start_committing(15, ranks=1)
    assert run.wait() == 0, run.said()
    assert [(r.count("step"), r.fields["source"]) for r in run.journal("training_started")] == [
        (0, "fresh"),
        (10, "mirror"),
    ]
    assert [r.count("step") for r in run.journal("checkpoint_committed") if r.fields["reason"] == "best"] == [3]
    kept = {p.name for p in (run.run_dir / "checkpoints").iterdir()}
    assert kept == {"checkpoint-3", "checkpoint-15", "checkpoint-18"}
