"""What a checkpoint is going to take, told before the first step: the weights are there, the moments are foreseen.

What is not foreseen: buffers that training changes, what a program registers, and the state of optimizers whose kind
is not known here. The first checkpoint tells of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from supervisor.board.footprint import NAMED, Footprint, Weights, leave_footprint
from supervisor.checkpoint.contents import ADAPTER
from supervisor.worker.capture import Tensors
from supervisor.worker.seat import Seat

#: How many tensors like a parameter an optimizer of torch keeps for it, by the class that makes its state.
#: Source: torch.optim, `_init_group` of each; the step is one number more.
_LIKE_THE_PARAMETER: Mapping[str, Callable[[Mapping[str, Any]], int]] = {
    "Adam": lambda group: 3 if group["amsgrad"] else 2,
    "AdamW": lambda group: 3 if group["amsgrad"] else 2,  # is an Adam, until dynamo gives it a method of its own
    "Adadelta": lambda group: 2,
    "Adamax": lambda group: 2,
    "NAdam": lambda group: 2,
    "RAdam": lambda group: 2,
    "RMSprop": lambda group: 1 + bool(group["centered"]) + (group["momentum"] > 0),
    "SGD": lambda group: int(group["momentum"] != 0),
}
#: The same for bitsandbytes, whose states are kept in 8 or in 32 bits.
_STATES = {"Optimizer1State": 1, "Optimizer2State": 2}
#: Of a state in 8 bits: elements that share a factor, and the size of the table of values, which each has of its own.
#: Source: bitsandbytes.optim.optimizer, `init_state`.
_BLOCK, _TABLE_BYTES = 256, 1024


def foretell(
    at: Seat, models: Sequence[torch.nn.Module], files: Mapping[str, Tensors], optimizers: Sequence[Any]
) -> None:
    """Leave word of a checkpoint's size on the board.

    Args:
        at: this rank's seat.
        models: that are trained, not wrapped.
        files: file name to the tensors that a checkpoint has now.
        optimizers: as the program has them, wrapped by accelerate or not.
    """
    try:
        leave_footprint(at.board, footprint(models, files, optimizers))
    except OSError:
        return  # a full board: then the first checkpoint tells


def footprint(models: Sequence[torch.nn.Module], files: Mapping[str, Tensors], optimizers: Sequence[Any]) -> Footprint:
    """What a checkpoint is going to take; arguments of `foretell`. Of what is sharded the whole counts."""
    inner = [_unwrapped(one) for one in optimizers if one is not None]
    known = {id(parameter) for one in inner for _, parameter in _parameters(one)}
    adapter: Tensors = {}
    trained: Tensors = {}
    untrained: Tensors = {}
    for file, tensors in files.items():
        for name, tensor in tensors.items():
            if not isinstance(tensor, torch.nn.Parameter):
                continue
            if known and id(tensor) not in known:
                untrained[name] = tensor
            else:
                (adapter if file == ADAPTER else trained)[name] = tensor
    stored = {id(t) for kind in (adapter, trained, untrained) for t in kind.values()}
    kept = [kept_bytes(one) for one in inner]
    return Footprint(
        adapter=_weights(adapter),
        trained=_weights(trained),
        untrained=_weights(untrained),
        frozen_bytes=sum(_bytes(p) for model in models for p in model.parameters() if id(p) not in stored),
        optimizer=", ".join(sorted({type(one).__name__ for one in inner})),
        optimizer_bytes=None if not kept or None in kept else sum(one or 0 for one in kept),
    )


def kept_bytes(optimizer: Any) -> int | None:
    """What an optimizer keeps once it has made a step [B]; None if its kind is not known."""
    total = 0
    for group, parameter in _parameters(optimizer):
        there = optimizer.state.get(parameter)
        own = _kept(optimizer, group, parameter) if not there else sum(map(_bytes, _tensors(there.values())))
        if own is None:
            return None
        total += own
    return total


def _kept(optimizer: Any, group: Mapping[str, Any], parameter: torch.Tensor) -> int | None:
    """For one parameter for which it keeps nothing yet."""
    like = _LIKE_THE_PARAMETER.get(_maker(optimizer, "_init_group", "torch.optim."))
    if like is not None:
        return like(group) * _bytes(parameter)
    states = _STATES.get(_maker(optimizer, "init_state", "bitsandbytes."))
    if states is None:
        return None
    elements = int(parameter.numel())
    if optimizer.args.optim_bits != 8 or elements < optimizer.args.min_8bit_size:
        return states * 4 * elements
    return states * (elements + 4 * -(-elements // _BLOCK) + _TABLE_BYTES)


def _maker(optimizer: Any, method: str, library: str) -> str:
    """Name of the class that says what an optimizer keeps, if it is one of the library's."""
    of = next((one for one in type(optimizer).__mro__ if method in vars(one)), None)
    return of.__name__ if of is not None and of.__module__.startswith(library) else ""


def _unwrapped(optimizer: Any) -> Any:
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def _parameters(optimizer: Any) -> Iterator[tuple[Mapping[str, Any], torch.Tensor]]:
    return ((group, parameter) for group in optimizer.param_groups for parameter in group["params"])


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    return (value for value in values if isinstance(value, torch.Tensor))


def _weights(tensors: Tensors) -> Weights:
    sizes = sorted(((name, _bytes(tensor)) for name, tensor in tensors.items()), key=lambda one: -one[1])
    return Weights(sum(size for _, size in sizes), tuple(sizes[:NAMED]))


def _bytes(tensor: torch.Tensor) -> int:
    return int(tensor.numel() * tensor.element_size())
