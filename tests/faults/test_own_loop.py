"""A loop of one's own on accelerate, hurt for real: no settled step is lost, no bit differs."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from harness import PROGRAMS, Run
from undisturbed import assert_nothing_repeated

#: Accumulation, two optimizers with a scheduler each, a collator that draws, a registered average, evaluations.
EVERYTHING: dict[str, Any] = {
    "max_steps": 14,
    "rows": 50,
    "accumulate": 3,
    "optimizers": 2,
    "noise": True,
    "eval-steps": 5,
}


def loop(base: Path, args: dict[str, Any], processes: int) -> Run:
    job = {"launch": {"processes_per_node": processes}, "checkpoint": {"snapshot": "1 step"}}
    return Run(base, args=args, job=job, program=str(PROGRAMS / "own_loop.py"))


def test_two_ranks_are_killed_and_drained_and_nobody_can_tell_from_the_result(tmp_path: Path) -> None:
    undisturbed = loop(tmp_path / "undisturbed", EVERYTHING, 2)
    assert undisturbed.run() == 0, undisturbed.said()
    run = loop(tmp_path / "run", EVERYTHING, 2)
    for point in ("evaluation-5", "substep-9"):
        run.place(point)
    run.start()
    run.wait_at("evaluation-5")
    run.kill_rank(1)
    run.let_go("evaluation-5")
    run.wait_at("substep-9")
    run.signal_tree(signal.SIGTERM)
    run.let_go("substep-9")
    assert run.wait() == 75
    assert run.run() == 0, run.said()

    assert run.digests() == undisturbed.digests()
    assert run.log_history() == undisturbed.log_history()
    assert [row["step"] for row in run.log_history() if "eval_loss" in row] == [5, 10]
    digests = {line["step"]: line["digest"] for line in undisturbed.trace()}
    assert [line for line in run.trace() if line["digest"] != digests[line["step"]]] == []
    assert_nothing_repeated(run)
    assert [r.fields["source"] for r in run.journal("training_started")] == ["fresh", "snapshot", "checkpoint"]


def test_a_loader_with_a_state_of_its_own_goes_on_on_both_ranks_where_it_stood(tmp_path: Path) -> None:
    args = {**EVERYTHING, "loader": "stateful", "max_steps": 7, "model": "light"}
    undisturbed = loop(tmp_path / "undisturbed", args, 2)
    assert undisturbed.run() == 0, undisturbed.said()
    run = loop(tmp_path / "run", args, 2)
    run.place("substep-4")
    run.start().wait_at("substep-4")
    run.kill_rank(0)
    run.let_go("substep-4")
    assert run.wait() == 0, run.said()
    assert run.digests() == undisturbed.digests()
    assert run.log_history() == undisturbed.log_history()
    assert_nothing_repeated(run)


def test_a_loop_whose_loss_is_no_number_goes_back_and_passes_over_the_data_of_that_step(tmp_path: Path) -> None:
    run = loop(tmp_path, {"epochs": 1, "rows": 20, "wrong-at": 4, "loader": "stateful", "model": "light"}, 1)
    assert run.run() == 0, run.said()
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == ["diverged", "finished"]
    assert [(line["step"], line["attempt"]) for line in run.trace()] == [
        *((step, "1") for step in (1, 2, 3, 4)),
        *((step, "2") for step in range(5, 11)),
    ]
    assert (run.run_dir / "final" / "model.safetensors").is_file()
