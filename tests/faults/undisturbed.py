"""The jobs that the fault tests disturb, and what the disturbed ones are held against."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from harness import Run, redone

#: A Trainer's two ranks, dropout, evaluation, loader workers, accumulation; three epochs of eight steps.
TRAINER_TOGETHER: dict[str, Any] = {"max_steps": 24, "workers": 1, "accumulate": 2, "eval-steps": 5}
TRAINER_ALONE: dict[str, Any] = {"max_steps": 12, "eval-steps": 5}
#: The same of a loop that starts in half the time: for what is around a program, whatever it is.
TOGETHER: dict[str, Any] = {**TRAINER_TOGETHER, "model": "light"}
#: One process, which starts faster still: for what does not depend on the number of ranks.
ALONE: dict[str, Any] = {**TRAINER_ALONE, "model": "light"}


def assert_same(run: Run, undisturbed: Run) -> None:
    """The result is bit for bit the undisturbed one's, and so is the way there."""
    assert run.digests() == undisturbed.digests()
    assert exact_rows(run) == exact_rows(undisturbed)
    assert _mean_losses(run) == pytest.approx(_mean_losses(undisturbed), rel=1e-12)
    digests = {line["step"]: line["digest"] for line in undisturbed.trace()}
    assert {line["step"] for line in run.trace()} == set(digests)
    assert [line for line in run.trace() if line["digest"] != digests[line["step"]]] == []


def exact_rows(run: Run) -> list[dict[str, Any]]:
    """All but the closing mean, which the Trainer divides by the steps of one life: its last bit may differ."""
    return [{key: value for key, value in row.items() if key != "train_loss"} for row in run.log_history()]


def _mean_losses(run: Run) -> list[float]:
    return [row["train_loss"] for row in run.log_history() if "train_loss" in row]


def assert_nothing_repeated(run: Run) -> None:
    """No settled step was lost, and of the others at most the one under way came twice."""
    assert redone(run) == [0] * (len(run.journal("training_started")) - 1)
    steps = [line["step"] for line in run.trace()]
    assert all(after in (before, before + 1) for before, after in itertools.pairwise(steps)), steps
