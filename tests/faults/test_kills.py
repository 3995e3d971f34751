"""Kills of ranks, of the supervisor and of everything: no settled step is lost, no bit differs."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
from harness import BUSY_S, Run, until
from undisturbed import TRAINER_TOGETHER, assert_nothing_repeated, assert_same

from supervisor.board.pages import Phase


def test_ranks_and_trees_are_killed_and_terminated_and_nobody_can_tell_from_the_result(
    tmp_path: Path, trainer_together: Run
) -> None:
    run = Run(tmp_path, args=TRAINER_TOGETHER, job={"checkpoint": {"every": "7 steps", "snapshot": "1 step"}})
    for point in ("substep-4", "evaluation-5", "substep-13"):
        run.place(point)
    run.start()

    run.wait_at("substep-4")
    run.kill_rank(1)  # in the middle of a step
    run.let_go("substep-4")

    run.wait_at("evaluation-5")
    assert {beat.phase for beat in run.beats()} <= {Phase.TRAINING, Phase.EVALUATING}
    run.place("substep-5")
    run.kill_rank(0)
    run.let_go("evaluation-5")

    run.wait_at("substep-5")  # the first step after a resume
    assert {beat.step for beat in run.beats()} == {4}
    run.kill_tree()
    run.let_go("substep-5")
    assert run.board().is_dir()

    run.start()
    run.wait_at("substep-13")
    for _ in range(3):
        run.signal_tree(signal.SIGTERM)
    run.let_go("substep-13")
    assert run.wait(5.0 + BUSY_S) == 75
    assert not run.board().exists()

    assert run.run() == 0, run.said()
    assert_same(run, trainer_together)
    assert_nothing_repeated(run)
    assert [r.fields["source"] for r in run.journal("training_started")] == ["fresh", *["snapshot"] * 3, "checkpoint"]
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == [
        "crashed",
        "crashed",
        "unknown",
        "preempted",
        "finished",
    ]
    assert [r.fields["board_adopted"] for r in run.journal("allocation_started")] == [False, True, False]
    evaluations = [row["step"] for row in run.log_history() if "eval_loss" in row]
    assert evaluations == [5, 10, 15, 20, 24]  # each once, the one that was killed as well
    assert not run.board().exists()
    assert run.workers() == []


def test_a_killed_supervisor_takes_its_workers_along_and_the_next_start_is_exact(
    tmp_path: Path, trainer_together: Run
) -> None:
    run = Run(tmp_path, args=TRAINER_TOGETHER, job={"checkpoint": {"snapshot": "1 step"}})
    run.place("substep-9")
    run.start()
    run.wait_at("substep-9")
    pids = run.workers()
    loaders = [pid for pid in pids if _parent(pid) in {beat.pid for beat in run.beats()}]
    assert loaders, "the data loaders' processes are to be among those that go"
    assert run.process is not None
    run.process.kill()
    run.process.wait()
    until(lambda: run.workers() == [], "end of the workers", 5.0 + BUSY_S)
    run.let_go("substep-9")
    # Who has no marker any more may not be dead yet.
    until(lambda: not [pid for pid in pids if _lives(pid)], "end of the last of them", 5.0 + BUSY_S)

    assert run.run() == 0, run.said()
    assert_same(run, trainer_together)
    assert_nothing_repeated(run)
    assert run.journal("training_started")[-1].fields["source"] == "snapshot"


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _parent(pid: int) -> int | None:
    try:
        return psutil.Process(pid).ppid()
    except psutil.NoSuchProcess:
        return None
