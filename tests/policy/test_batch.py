"""The samples of a step, over other numbers of ranks and smaller micro-batches alike."""

from __future__ import annotations

from itertools import product

import pytest

from supervisor.policy.batch import Batch, accumulation_for, override_for
from supervisor.policy.shrink import smaller

TOLD = {"accumulation": 4, "own_accumulation": 1, "world_size": 2, "micro_batch": 2, "own_micro_batch": 8}


def test_ranks_make_up_the_same_samples_whatever_they_take_at_a_time() -> None:
    for own_micro, own, before, after in product((1, 2, 3, 8, 12), (1, 2, 3), (1, 2, 3, 4), (1, 2, 3, 4)):
        at: tuple[int, int] | None = (own_micro, own)
        while at is not None:
            batch = Batch(at[1], own, before, at[0], own_micro)
            times = accumulation_for(batch, after)
            assert times == accumulation_for(Batch(own, own, before), after)
            if times is not None:
                assert times * own_micro * after == at[0] * at[1] * before
            at = smaller(*at)


def test_a_smaller_micro_batch_alone_is_no_reason_to_tell_another_accumulation() -> None:
    batch = Batch.read(TOLD)
    assert batch == Batch(4, 1, 2, 2, 8)
    assert override_for(batch, 2) is None
    assert override_for(batch, 1) == 2


def test_states_of_before_micro_batches_were_told_are_still_read() -> None:
    old = {key: TOLD[key] for key in ("accumulation", "own_accumulation", "world_size")}
    batch = Batch.read({**old, "batch_size": 8})
    assert batch is not None
    assert (accumulation_for(batch, 1), accumulation_for(batch, 4)) == (8, 2)


@pytest.mark.parametrize("key", ["accumulation", "own_accumulation", "world_size"])
@pytest.mark.parametrize("wrong", [0, -1, True, "4", 2.0, None])
def test_a_state_that_does_not_tell_is_unknown(key: str, wrong: object) -> None:
    assert Batch.read({**TOLD, key: wrong}) is None


def test_ranks_that_cannot_make_up_a_step_are_told_so() -> None:
    assert accumulation_for(Batch(1, 1, 3), 2) is None
    assert accumulation_for(Batch(1, 1, 1, micro_batch=3, own_micro_batch=2), 1) is None
