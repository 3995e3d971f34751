"""The global batch, kept while the number of ranks changes, and while they take fewer samples at a time.

The two are independent: what is told here is in micro-batches of the program's own size, of which
the worker makes smaller ones where memory ran out.
"""

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
        micro_batch: samples of each.
        own_micro_batch: what the program itself asked for; fewer were put in its place when memory ran out.
    """

    accumulation: int
    own: int
    world_size: int
    micro_batch: int = 1
    own_micro_batch: int = 1  # of states that tell neither, the two were the same

    @staticmethod
    def read(told: object) -> Batch | None:
        """What a snapshot tells of its data; None if it does not tell.

        >>> Batch.read({"accumulation": 2, "own_accumulation": 2, "world_size": 3, "epoch": 0.5})
        Batch(accumulation=2, own=2, world_size=3, micro_batch=1, own_micro_batch=1)
        >>> Batch.read({"accumulation": 4, "own_accumulation": 2, "world_size": 1, "micro_batch": 3})
        Batch(accumulation=4, own=2, world_size=1, micro_batch=1, own_micro_batch=1)
        >>> Batch.read({"accumulation": 0}) is None
        True
        """
        if not isinstance(told, Mapping):
            return None
        numbers = _counts(told, "accumulation", "own_accumulation", "world_size")
        return Batch(*numbers, *_counts(told, "micro_batch", "own_micro_batch")) if numbers else None

    @property
    def own_micro_batches(self) -> int | None:
        """Micro-batches of the program's own size in a step, of all ranks; None if its samples do not make them up.

        >>> Batch(4, 1, 2, micro_batch=2, own_micro_batch=8).own_micro_batches
        2
        """
        samples = self.micro_batch * self.accumulation * self.world_size
        return samples // self.own_micro_batch if samples % self.own_micro_batch == 0 else None


def _counts(told: Mapping[str, Any], *keys: str) -> list[int]:
    """These, or none of them if one is missing or no count."""
    found = [told.get(key) for key in keys]
    counts = [n for n in found if isinstance(n, int) and not isinstance(n, bool) and n > 0]
    return counts if len(counts) == len(keys) else []


def accumulation_for(batch: Batch, world_size: int) -> int | None:
    """Micro-batches, of the program's own size, of each of so many ranks that make up the same step.

    None if they do not divide.

    The samples of a step stay the same, and so does the schedule; what is drawn within a step (dropout) is
    drawn by other ranks, and sums are rounded in another order.

    >>> accumulation_for(Batch(2, 2, 3), 2), accumulation_for(Batch(3, 2, 2), 3), accumulation_for(Batch(1, 1, 3), 2)
    (3, 2, None)
    >>> accumulation_for(Batch(8, 1, 2, micro_batch=1, own_micro_batch=4), 1)
    4
    """
    micro_batches = batch.own_micro_batches
    return micro_batches // world_size if micro_batches and micro_batches % world_size == 0 else None


def resized(before: int, after: int, accumulation: int | None) -> str:
    """What goes on as it was with another number of ranks, and what does not.

    >>> resized(4, 2, 6).partition(": ")[0]
    '2 processes go on where 4 were, with 6 micro-batches each'
    """
    each = "" if accumulation is None else f", with {accumulation} micro-batches each"
    return (
        f"{after} processes go on where {before} were{each}: step, schedule, data position and the samples of each "
        "step stay; random numbers within a step (dropout) are drawn by other ranks, sums are rounded in another "
        "order, and what fills up the last step of an epoch may differ"
    )


def override_for(batch: Batch, world_size: int) -> int | None:
    """What the program is to be told instead of its own number; None where its own is right.

    >>> override_for(Batch(2, 2, 3), 3), override_for(Batch(3, 2, 2), 2), override_for(Batch(3, 2, 2), 3)
    (None, 3, 2)
    """
    wanted = accumulation_for(batch, world_size)
    return None if world_size == batch.world_size and wanted == batch.own else wanted
