"""What the log history of a checkpoint says that was measured, and of which state."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.checkpoint.evaluations import Evaluation, Measured, evaluation, evaluations, measured

TRAINED = {"loss": 0.4, "learning_rate": 1e-4, "epoch": 0.1, "step": 10}
MEASURED = {"eval_loss": 0.5, "eval_runtime": 1.0, "eval_samples_per_second": 9.0, "epoch": 0.1, "step": 10}


def checkpoint(directory: Path, rows: list[dict[str, Any]], **more: Any) -> Path:
    (directory / "trainer_state.json").write_text(json.dumps({"best_metric": None, **more, "log_history": rows}))
    return directory


def test_rows_of_evaluations_are_found_among_others(tmp_path: Path) -> None:
    states = {"EarlyStoppingCallback": {"args": {"early_stopping_patience": 1}, "attributes": {"eval_loss": 3}}}
    there = checkpoint(tmp_path, [TRAINED, MEASURED, TRAINED | {"step": 11}], stateful_callbacks=states)
    assert evaluations(there) == [Evaluation(10, {"eval_loss": 0.5})]


def test_a_metric_of_another_name_counts_where_it_is_asked_for(tmp_path: Path) -> None:
    there = checkpoint(tmp_path, [TRAINED, {"test_f1": 0.7, "step": 12}])
    assert evaluations(there) == []
    assert evaluations(there, "test_f1") == [Evaluation(12, {"test_f1": 0.7})]


def test_a_row_across_the_pieces_of_a_long_history_is_found(tmp_path: Path) -> None:
    rows = [TRAINED | {"step": step, "padding": "x" * 1000} for step in range(1, 10_000)]
    rows[4_200:4_200] = [MEASURED | {"step": step} for step in range(4_200, 4_300)]
    found = evaluations(checkpoint(tmp_path, rows))
    assert [one.step for one in found] == list(range(4_200, 4_300))


def test_a_history_that_is_not_there_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        evaluations(tmp_path)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_break_the_reading_of_a_row(row: bytes) -> None:
    for line in (row, b'{"eval_loss": ' + row + b', "step": 3}'):
        found = evaluation(line, "eval_loss")
        assert found is None or all(abs(value) < float("inf") for value in found.metrics.values())


@pytest.mark.parametrize(
    "row",
    [
        '{"eval_loss": NaN, "step": 3}',
        '{"eval_loss": "low", "step": 3}',
        '{"eval_loss": 0.5}',
        '{"eval_loss": 0.5, "step": true}',
        '["eval_loss", "step"]',
        '{"eval_runtime": 2.0, "step": 3}',
    ],
)
def test_what_measures_nothing_is_no_evaluation(row: str) -> None:
    assert evaluation(row.encode()) is None


ROWS = [Evaluation(step, {"eval_loss": step / 100}) for step in (10, 20, 30)]


@pytest.mark.parametrize(
    ("step", "after", "expected"),
    [
        (20, 10, Measured(0.2, 20)),
        (25, 10, Measured(0.2, 20)),
        (25, 20, None),  # it says something of the checkpoint of step 20
        (9, -1, None),
        (40, 5, Measured(0.3, 30)),
    ],
)
def test_a_state_has_the_newest_figure_since_the_checkpoint_before(
    step: int, after: int, expected: Measured | None
) -> None:
    assert measured(ROWS, "eval_loss", step=step, after=after) == expected
    assert measured(ROWS, "eval_f1", step=step, after=after) is None


def test_of_two_evaluations_of_one_step_the_later_counts() -> None:
    again = [*ROWS, Evaluation(30, {"eval_loss": 0.9})]
    assert measured(again, "eval_loss", step=30, after=0) == Measured(0.9, 30)
