"""A restored random state draws what the captured one would have drawn, and is what the stock Trainer writes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from worker_samples import tiny_lora

from supervisor.worker import randomness


def draw() -> tuple[Any, ...]:
    return (
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.standard_normal()),
        torch.rand(3).tolist(),
        torch.randn(2).tolist(),
    )


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(state, allow_nan=False)))


@pytest.mark.parametrize("before", range(4))
def test_what_is_restored_draws_the_same_also_between_the_two_halves_of_a_normal_pair(before: int) -> None:
    random.seed(before)
    np.random.seed(before)
    torch.manual_seed(before)
    for _ in range(before):
        random.gauss(0, 1)
        np.random.standard_normal()
        torch.randn(1)
    state = through_json(randomness.capture())
    first = draw()
    randomness.restore(state)
    assert draw() == first
    assert draw() != first


def test_what_a_block_draws_is_as_if_it_had_not_been_drawn() -> None:
    state = randomness.capture()
    with pytest.raises(IndexError), randomness.untouched():
        draw()[99]
    assert randomness.capture() == state
    draw()
    assert randomness.capture() != state


def test_the_stock_form_is_what_the_trainer_itself_writes(tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    trainer = Trainer(tiny_lora(), TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True))
    random.gauss(0, 1)  # half of a pair is kept
    np.random.standard_normal()
    state = through_json(randomness.capture())
    trainer._save_rng_state(str(tmp_path))
    written = torch.load(tmp_path / "rng_state.pth", weights_only=False)
    made = randomness.stock(state)
    assert made["python"] == written["python"]
    assert made["numpy"][0] == written["numpy"][0]
    assert (made["numpy"][1] == written["numpy"][1]).all()
    assert made["numpy"][1].dtype == written["numpy"][1].dtype
    assert made["numpy"][2:] == written["numpy"][2:]
    assert torch.equal(made["cpu"], written["cpu"])
    assert set(made) == set(written)


def test_the_trainer_reads_the_stock_form_as_it_reads_its_own(tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    trainer = Trainer(tiny_lora(), TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True))
    torch.save(randomness.stock(through_json(randomness.capture())), tmp_path / "rng_state.pth")
    first = draw()
    trainer._load_rng_state(str(tmp_path))
    assert draw() == first
