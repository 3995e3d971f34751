"""The global batch, kept while the number of ranks changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Batch:
    """How an optimizer step was made up when a state was taken.

    Attributes:
        accumulation: micro-batches of each rank.
        own: what the program itself asked for; another number was put in its place when ranks were fewer.
        world_size: ranks.
    """

    accumulation: int
    own: int
    world_size: int

    @staticmethod
    def read(told: object) -> Batch | None:
        """What a snapshot tells of its data; None if it does not tell.

        >>> Batch.read({"accumulation": 2, "own_accumulation": 2, "world_size": 3, "epoch": 0.5})
        Batch(accumulation=2, own=2, world_size=3)
        >>> Batch.read({"accumulation": 0}) is None
        True
        """
        if not isinstance(told, Mapping):
            return None
        numbers: list[Any] = [told.get(key) for key in ("accumulation", "own_accumulation", "world_size")]
        if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers):
            return None
        return Batch(*numbers)


def accumulation_for(batch: Batch, world_size: int) -> int | None:
    """Micro-batches of each of so many ranks that make up the same step; None if they do not divide.

    The samples of a step stay the same, and so does the schedule; what is drawn within a step (dropout) is
    drawn by other ranks, and sums are rounded in another order.

    >>> accumulation_for(Batch(2, 2, 3), 2), accumulation_for(Batch(3, 2, 2), 3), accumulation_for(Batch(1, 1, 3), 2)
    (3, 2, None)
    """
    micro_batches = batch.accumulation * batch.world_size
    return micro_batches // world_size if micro_batches % world_size == 0 else None


def override_for(batch: Batch, world_size: int) -> int | None:
    """What the program is to be told instead of its own number; None where its own is right.

    >>> override_for(Batch(2, 2, 3), 3), override_for(Batch(3, 2, 2), 2), override_for(Batch(3, 2, 2), 3)
    (None, 3, 2)
    """
    wanted = accumulation_for(batch, world_size)
    return None if world_size == batch.world_size and wanted == batch.own else wanted
