"""What a rank says that it does, before it does it: asked of the Trainer's own rules, in the order of its own calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments
from worker_samples import make_board, seat_at

from supervisor.board.pages import Phase
from supervisor.worker.phases import Phases
from supervisor.worker.seat import Seat


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Seat]:
    board = make_board(tmp_path)
    seat = seat_at(board)
    seat.publish(phase=Phase.TRAINING)
    yield seat
    board.remove()


def settings(tmp_path: Path, **more: Any) -> TrainingArguments:
    return TrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True, report_to="none", **more)


def state(step: int, most: int = 100, every: int = 5) -> TrainerState:
    return TrainerState(global_step=step, max_steps=most, eval_steps=every, save_steps=every, logging_steps=500)


def said(at: Seat) -> Phase:
    return Phase(at.control.beat(0).phase)


def test_a_step_after_which_nothing_is_due_changes_nothing(tmp_path: Path, at: Seat) -> None:
    control = TrainerControl()
    args = settings(tmp_path, eval_strategy="steps", eval_steps=5, save_strategy="steps", save_steps=5)
    Phases(at).step_ends(args, state(4), control)
    assert said(at) is Phase.TRAINING
    Phases(at).step_ends(args, state(5), control)
    assert (control.should_evaluate, control.should_save) == (False, False)  # it was asked about a copy


def test_an_evaluation_and_the_save_behind_it_are_said_before_they_begin(tmp_path: Path, at: Seat) -> None:
    args = settings(tmp_path, eval_strategy="steps", eval_steps=5, save_strategy="steps", save_steps=5)
    phases, control = Phases(at), TrainerControl()
    phases.step_ends(args, state(5), control)
    assert said(at) is Phase.EVALUATING
    phases.evaluates()
    assert said(at) is Phase.EVALUATING
    phases.evaluated(args, TrainerControl(should_save=True))
    assert said(at) is Phase.SAVING
    phases.saved()
    assert said(at) is Phase.TRAINING


@pytest.mark.parametrize("when", ["steps", "epoch"])
def test_a_save_alone_is_said_at_a_steps_or_an_epochs_end(tmp_path: Path, at: Seat, when: str) -> None:
    args = settings(tmp_path, save_strategy=when, save_steps=5)
    phases = Phases(at)
    if when == "steps":
        phases.step_ends(args, state(10), TrainerControl())
    else:
        phases.epoch_ends(args, state(12), TrainerControl())
    assert said(at) is Phase.SAVING
    phases.saved()
    assert said(at) is Phase.TRAINING


def test_whether_a_model_is_the_best_and_saved_for_it_is_found_out_after_the_evaluation(
    tmp_path: Path, at: Seat
) -> None:
    best = {"metric_for_best_model": "loss", "save_strategy": "best"}
    args = settings(tmp_path, eval_strategy="steps", eval_steps=5, **best)
    phases = Phases(at)
    phases.step_ends(args, state(5), TrainerControl())
    phases.evaluated(args, TrainerControl())
    assert said(at) is Phase.SAVING  # it may be


def test_at_the_last_step_all_that_follows_is_like_a_save(tmp_path: Path, at: Seat) -> None:
    """The best model is loaded then, and our own last state is taken."""
    args = settings(tmp_path, eval_strategy="steps", eval_steps=5, save_strategy="steps", save_steps=5)
    phases = Phases(at)
    phases.step_ends(args, state(100), TrainerControl())
    assert said(at) is Phase.EVALUATING
    phases.evaluates()
    phases.evaluated(args, TrainerControl(should_save=True))
    phases.saved()
    assert said(at) is Phase.SAVING
    phases.epoch_ends(settings(tmp_path, save_strategy="no"), state(100), TrainerControl())
    assert said(at) is Phase.SAVING


@pytest.mark.parametrize("phase", [Phase.LOADING, Phase.TRAINED])
def test_a_programs_own_evaluation_leads_back_to_where_it_was_made(tmp_path: Path, at: Seat, phase: Phase) -> None:
    at.publish(phase=phase)
    phases = Phases(at)
    phases.evaluates()
    phases.evaluates()
    assert said(at) is Phase.EVALUATING
    phases.evaluated(settings(tmp_path, save_strategy="no"), TrainerControl())
    assert said(at) is phase
    phases.evaluated(settings(tmp_path), TrainerControl())  # a second trainer's, in which no batch was told of
    assert said(at) is phase
