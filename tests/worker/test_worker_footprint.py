"""What a checkpoint is going to take is known before the first step, and is what it takes after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from worker_samples import make_board, seat_at, tiny_lora

from supervisor.board.footprint import Footprint, find_footprint
from supervisor.worker.capture import ModelCapture, flat, split_optimizer
from supervisor.worker.footprint import footprint, foretell, kept_bytes

#: A step's number, and NAdam's product, stand beside the moments of each parameter.
NUMBERS_BYTES = 16

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "AdamW": torch.optim.AdamW,
    "AdamW, amsgrad": lambda p: torch.optim.AdamW(p, amsgrad=True),
    "Adam": torch.optim.Adam,
    "NAdam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "Adamax": torch.optim.Adamax,
    "Adadelta": torch.optim.Adadelta,
    "Adagrad": torch.optim.Adagrad,
    "RMSprop": torch.optim.RMSprop,
    "RMSprop, centered": lambda p: torch.optim.RMSprop(p, centered=True, momentum=0.9),
    "SGD": torch.optim.SGD,
    "SGD with momentum": lambda p: torch.optim.SGD(p, momentum=0.9),
}


def parameters(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in ((64, 80), (7,), (3, 5))]


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    tensors, _ = split_optimizer(optimizer.state_dict())
    return sum(t.numel() * t.element_size() for t in tensors.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_what_an_optimizer_will_keep_is_foreseen(
    make: Callable[[Any], torch.optim.Optimizer], dtype: torch.dtype
) -> None:
    trained = parameters(dtype)
    optimizer = make(trained)
    foreseen = kept_bytes(optimizer)
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert foreseen is not None
    assert foreseen <= state_bytes(optimizer) <= foreseen + NUMBERS_BYTES * len(trained)
    assert kept_bytes(optimizer) == state_bytes(optimizer), "once it is there it is counted"


@pytest.mark.parametrize("kind", ["AdamW", "AdamW8bit", "PagedAdamW8bit", "Lion", "Lion8bit", "SGD8bit"])
def test_what_one_of_bitsandbytes_will_keep_is_foreseen(kind: str) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    trained = parameters()
    more = {"momentum": 0.9} if kind == "SGD8bit" else {}
    optimizer = getattr(bitsandbytes.optim, kind)(trained, lr=0.1, **more)
    foreseen = kept_bytes(optimizer)
    optimizer.is_paged = False  # that lays the same state elsewhere, where a GPU is
    for index, parameter in enumerate(trained):
        optimizer.init_state(optimizer.param_groups[0], parameter, 0, index)
    assert foreseen == state_bytes(optimizer) > 0


class Own(torch.optim.Optimizer):
    """Keeps nobody knows what."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})


def test_what_an_unknown_one_will_keep_is_unknown() -> None:
    assert kept_bytes(Own(parameters())) is None
    model = tiny_lora()
    foot = footprint([model], ModelCapture(model).files(), [Own(model.parameters())])
    assert (foot.optimizer, foot.optimizer_bytes) == ("Own", None)
    assert foot.bytes == foot.adapter.bytes


def told(model: Any, trained: list[torch.nn.Parameter]) -> Footprint:
    return footprint([model], ModelCapture(model).files(), [torch.optim.AdamW(trained)])


def of_lora(model: Any) -> list[torch.nn.Parameter]:
    return [p for name, p in model.named_parameters() if "lora_" in name]


def test_an_adapter_and_its_moments_are_all_of_a_checkpoint_whose_base_is_frozen() -> None:
    model = tiny_lora()
    foot = told(model, of_lora(model))
    stored = sum(t.numel() * 4 for t in flat(ModelCapture(model).files()))
    assert (foot.adapter.bytes, foot.optimizer_bytes, foot.bytes) == (stored, 2 * stored, 3 * stored)
    assert (foot.trained.bytes, foot.untrained.bytes) == (0, 0)
    assert foot.frozen_bytes == sum(p.numel() * 4 for p in model.parameters()) - stored


def test_a_base_that_wants_gradients_is_told_from_one_that_is_trained() -> None:
    model = tiny_lora()
    lora = of_lora(model)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    saved, trained = told(model, lora), told(model, list(model.parameters()))
    base = sum(p.numel() * 4 for p in model.parameters()) - saved.adapter.bytes
    assert (saved.untrained.bytes, saved.trained.bytes, saved.frozen_bytes) == (base, 0, 0)
    assert (trained.untrained.bytes, trained.trained.bytes, trained.frozen_bytes) == (0, base, 0)
    assert saved.untrained.largest == trained.trained.largest
    (name, size), *_ = saved.untrained.largest
    assert size == max(p.numel() * 4 for n, p in model.named_parameters() if "lora_" not in n)
    assert dict(model.named_parameters())[name].numel() * 4 == size


def test_it_is_read_from_the_board_as_it_was_left_and_a_full_board_is_no_error(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    try:
        assert find_footprint(board.directory) is None
        model = tiny_lora()
        optimizer = torch.optim.AdamW(of_lora(model))
        for _ in range(2):  # the next attempt tells it again
            foretell(seat_at(board), [model], ModelCapture(model).files(), [optimizer])
        assert find_footprint(board.directory) == told(model, of_lora(model))
        (board.directory / "footprint").write_text('{"adapter": 7}')
        assert find_footprint(board.directory) is None
    finally:
        board.remove()
