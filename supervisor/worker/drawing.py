"""What a data loader draws from: the random state, its own generators, its samplers' seeds.

Everything is found by walking from the loader to its samplers, and named by the sampler's class, so that the names stay
the same when accelerate puts a sampler of its own between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import SeedableRandomSampler
from torch.utils.data import RandomSampler

from supervisor.worker import randomness, tree

#: A raw random state (`randomness.raw`), and under ``generators`` the states of a loader's own.
Random = dict[str, Any]
#: Whole numbers from which samplers make their order.
_SEEDS = ("initial_seed", "seed", "epoch")


def state(loader: Any) -> Random:
    """The random state as it is."""
    return {**randomness.raw(), "generators": generator_states(loader)}


def put(loader: Any, state: Random) -> None:
    """Put it back."""
    randomness.put(state)
    there = _generators(loader)
    for name, saved in state["generators"].items():
        if name in there:
            there[name].set_state(saved)


def same(one: Random, other: Random) -> bool:
    """Whether nothing was drawn between two states."""
    named, others = one["generators"], other["generators"]
    return (
        one["python"] == other["python"]
        and torch.equal(one["cpu"], other["cpu"])
        and all(np.array_equal(a, b) for a, b in zip(one["numpy"], other["numpy"], strict=True))
        and ("cuda" not in one or torch.equal(one["cuda"], other["cuda"]))
        and named.keys() == others.keys()
        and all(torch.equal(named[name], others[name]) for name in named)
    )


def encode(state: Random) -> dict[str, Any]:
    """A state as a JSON value."""
    return {"rng": randomness.encode(state), "generators": tree.encode(state["generators"])}


def decode(told: Mapping[str, Any]) -> Random:
    """The state of a JSON value."""
    return {**randomness.stock(told["rng"]), "generators": tree.decode(told["generators"])}


def generator_states(loader: Any) -> dict[str, torch.Tensor]:
    """Of the generators that a loader, its samplers and its data set have of their own, by name."""
    return {name: one.get_state() for name, one in _generators(loader).items()}


def make_generators(loader: Any, states: Mapping[str, Any]) -> None:
    """Give samplers that draw from nothing of their own what they had: with one process accelerate gives them none."""
    for name, one in _samplers(loader).items():
        if name in states and getattr(one, "generator", _generators) is None:
            one.generator = torch.Generator()


def take_generators(loader: Any, states: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Have samplers that drew from none draw from none in the pass under way; each with the generator that it had.

    With several processes accelerate gives them one, which would make another order than the one process had.
    """
    taken = []
    for name, one in _samplers(loader).items():
        generator = getattr(one, "generator", None)
        if name not in states and type(one) is RandomSampler and generator is not None:
            taken.append((one, generator))
            one.generator = None
    return taken


def seeds(loader: Any) -> dict[str, dict[str, int]]:
    """Numbers from which the samplers make their order, by name; a program that sets no seed has others each time."""
    found = {name: {key: getattr(one, key, None) for key in _SEEDS} for name, one in _samplers(loader).items()}
    return {name: {key: v for key, v in told.items() if type(v) is int} for name, told in found.items()}


def set_seeds(loader: Any, told: Mapping[str, Mapping[str, int]]) -> None:
    """Put them back."""
    for name, one in _samplers(loader).items():
        for attribute, value in told.get(name, {}).items():
            setattr(one, attribute, value)


def _samplers(loader: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    todo = [loader.batch_sampler, loader.sampler]
    while todo:
        one = todo.pop(0)
        one = one.inner if isinstance(one, Indices) else one
        if one is None or any(one is other for other in found.values()):
            continue
        name = type(one).__name__
        found[name if name not in found else f"{name} {len(found)}"] = one
        todo += [getattr(one, "batch_sampler", None), getattr(one, "sampler", None)]
    return found


def _generators(loader: Any) -> dict[str, torch.Generator]:
    places = {"loader": loader, "dataset": loader.dataset, **_samplers(loader)}
    found: dict[str, torch.Generator] = {}
    for name, place in places.items():
        one = getattr(place, "generator", None)
        if isinstance(one, torch.Generator) and not isinstance(place, SeedableRandomSampler):
            found[name] = one
    return found


class Base:
    """A loader that accelerate draws from, with another iteration; all else is the loader's."""

    def __init__(self, loader: Any, fetch: Callable[[Any], Iterator[Any]]) -> None:
        self.loader, self._fetch = loader, fetch

    def __iter__(self) -> Iterator[Any]:
        return self._fetch(self.loader)

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        if name == "loader":
            raise AttributeError(name)
        return getattr(self.loader, name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # accelerate's own wrapper answers with the class of what it wraps
        return self.loader.__class__


class Indices:
    """A sampler that passes over its first indices, once, and tells when it is about to draw the first that is used."""

    def __init__(self, inner: Any, skip: int, first: int, before: Callable[[int], None]) -> None:
        self.inner, self._skip, self._first, self._before = inner, skip, first, before
        self.passed_over = skip

    def __iter__(self) -> Iterator[Any]:
        skip, first, self._skip, self._first = self._skip, self._first, 0, -1
        iterator = iter(self.inner)
        number = 0
        while True:
            if number == first:
                self._before(first)
            try:
                index = next(iterator)
            except StopIteration:
                return
            if number >= skip:
                yield index
            number += 1

    def __len__(self) -> int:
        return len(self.inner)

    def __getattr__(self, name: str) -> Any:
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)
