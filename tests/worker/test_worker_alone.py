"""What a step takes of a rank alone: its data and its forward passes, and nothing that it waits in."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest
import torch
from torch.utils.data import dataloader

from supervisor.worker.alone import OwnTime


class Takes(torch.nn.Module):
    """A forward pass of known length."""

    def __init__(self, lasts_s: float) -> None:
        super().__init__()
        self.lasts_s = lasts_s

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spend(self.lasts_s)
        return x


def spend(lasts_s: float) -> None:
    """The process is busy for so long, as it is with data."""
    until_s = time.perf_counter() + lasts_s
    while time.perf_counter() < until_s:
        pass


class Rows(torch.utils.data.Dataset):
    """Rows that take a known time to read."""

    def __init__(self, lasts_s: float) -> None:
        self.lasts_s = lasts_s

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> torch.Tensor:
        spend(self.lasts_s)
        return torch.ones(1)


@pytest.fixture(autouse=True)
def loaders_as_they_were() -> Iterator[None]:
    """What is put around the loaders of a rank's process stays there; not so around this one's."""
    before = dataloader._BaseDataLoaderIter.__next__
    yield
    dataloader._BaseDataLoaderIter.__next__ = before


def steps(own: OwnTime, model: torch.nn.Module, count: int, *, row_s: float, wait_s: float, passes: int = 1) -> None:
    """So many steps as the Trainer makes them: fetch, wait for the others, forward, wait in the backward pass."""
    rows = iter(torch.utils.data.DataLoader(Rows(row_s)))
    for _ in range(count):
        next(rows)
        spend(wait_s)  # tokens of all ranks are counted
        own.begins()
        for _ in range(passes):
            model(torch.ones(1))
            spend(wait_s)
        own.ended()


def test_data_and_forward_passes_count_and_what_is_waited_in_does_not() -> None:
    own, model = OwnTime(), Takes(0.01)
    own.watch(model)
    steps(own, model, 8, row_s=0.02, wait_s=0.05, passes=2)
    assert 0.04 <= own.usual_s < 0.08


def test_of_a_few_steps_nothing_is_known_yet() -> None:
    own, model = OwnTime(), Takes(0.0)
    own.watch(model)
    steps(own, model, 3, row_s=0.0, wait_s=0.0)
    assert math.isnan(own.usual_s)


def test_an_evaluation_within_a_step_is_no_part_of_it() -> None:
    own, model = OwnTime(), Takes(0.03)
    own.watch(model)
    others = iter(torch.utils.data.DataLoader(Rows(0.03)))
    for _ in range(8):
        own.begins()
        model.train()
        model(torch.ones(1))
        model.eval()
        for _ in range(3):
            model(next(others))
        own.ended()
    assert 0.03 <= own.usual_s < 0.1


def test_a_compiled_model_is_left_as_it_is_and_so_is_the_result() -> None:
    own, model = OwnTime(), Takes(0.0)
    model._compiled_call_impl = model._call_impl
    own.watch(model)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("training", [True, False])
def test_hooks_change_nothing(training: bool) -> None:
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5)).train(training)
    torch.manual_seed(2)
    before = model(torch.ones(2, 3))
    OwnTime().watch(model)
    torch.manual_seed(2)
    assert torch.equal(model(torch.ones(2, 3)), before)
