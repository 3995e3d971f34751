"""Random numbers as a function of (seed, rank, step), and of nothing that happened before."""

import random
from itertools import product
from types import SimpleNamespace

from jobs.lora_seeding import SeedEveryStep, step_seed


def drawn(seed: int, rank: int, step: int) -> tuple:
    import numpy as np
    import torch

    SeedEveryStep(seed, rank).on_step_begin(None, SimpleNamespace(global_step=step), None)
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_every_generator_starts_anew_at_each_step() -> None:
    first = drawn(7, 1, 30)
    drawn(7, 1, 31)
    assert drawn(7, 1, 30) == first


def test_another_seed_rank_or_step_gives_other_numbers() -> None:
    everywhere = [drawn(*where) for where in product((0, 1), repeat=3)]
    for numbers in zip(*everywhere, strict=True):
        assert len(set(numbers)) == 8


def test_no_two_of_many_ranks_and_steps_share_a_seed() -> None:
    """With seed + rank + step, the ranks would draw the same numbers a step apart."""
    seeds = {step_seed(42, rank, step) for rank in range(64) for step in range(500)}
    assert len(seeds) == 64 * 500
    assert all(0 <= seed < 2**63 for seed in seeds)
