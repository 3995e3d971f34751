"""A trainer's running measures go to the next life as they are, and nothing that is not one of them."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.worker import sums


def trainer(train: dict[str, list[Any]], tokens: int = 0) -> Any:
    lists = {"train": defaultdict(list, train), "eval": defaultdict(list)}
    return SimpleNamespace(_metrics=lists, _total_train_tokens=tokens, _tr_loss=0.0, current_flos=2.5)


def test_what_was_measured_since_the_last_row_comes_back_into_lists_that_still_grow() -> None:
    other = trainer({"entropy": [9.0]})
    lists = other._metrics["train"]
    sums.restore(other, sums.told(trainer({"entropy": [0.5, 0.25], "num_tokens": [7]}, tokens=7)))
    lists["new"].append(1.0)
    assert other._metrics["train"] is lists
    assert lists == {"entropy": [0.5, 0.25], "num_tokens": [7], "new": [1.0]}
    assert other._total_train_tokens == 7


@pytest.mark.parametrize("kept", [{"a": [object()]}, {"a": [0.0] * 2001}, {"a": 3.0}])
def test_what_is_no_measure_or_too_much_stays_where_it_is(kept: dict[str, Any]) -> None:
    told = sums.told(trainer(kept))
    assert "_metrics" not in told
    other = trainer({"a": [1.0]})
    sums.restore(other, told)
    assert other._metrics["train"] == {"a": [1.0]}
    assert other.current_flos == 2.5
