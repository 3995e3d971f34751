"""What is changed of a program's own settings so that it can go on, as the journal remembers it.

An `adapted` record carries what changed; the fold of all of them is what the next attempt is
started with. So an adaptation outlives a requeue, another machine, and this process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

#: The key of an `adapted` record under which changes of this kind stand.
CHANGES = "changes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptation:
    """What workers are started with in place of the program's own settings; None leaves its own.

    Attributes:
        micro_batch: samples that one device takes at a time; accumulation makes up for it.
        checkpointing: activations are computed again rather than kept.
        loader_workers: processes that load data for each rank.
        pin_memory: whether loaded batches lie in pinned memory.
        offline: hubs are not asked, their cache is used.
        skip: steps, first and last of each range, whose data is passed over without an update.
    """

    micro_batch: int | None = None
    checkpointing: bool | None = None
    loader_workers: int | None = None
    pin_memory: bool | None = None
    offline: bool | None = None
    skip: tuple[tuple[int, int], ...] = ()

    def told(self) -> dict[str, Any]:
        """What differs from the program's own, as the journal and the workers are told it.

        >>> Adaptation(micro_batch=4, skip=((7, 9),)).told()
        {'micro_batch': 4, 'skip': [[7, 9]]}
        """
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        made = {name: value for name, value in found.items() if value not in (None, ())}
        if "skip" in made:
            made["skip"] = [list(one) for one in self.skip]
        return made

    def after(self, changes: object) -> Adaptation:
        """This one with changes that `told` gave; what is not understood changes nothing.

        >>> Adaptation(micro_batch=8).after({"micro_batch": 4, "of a later release": 1})
        Adaptation(micro_batch=4, checkpointing=None, loader_workers=None, pin_memory=None, offline=None, skip=())
        """
        if not isinstance(changes, Mapping):
            return self
        made: dict[str, Any] = {}
        for name in ("micro_batch", "loader_workers"):
            value = changes.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value >= (name == "micro_batch"):
                made[name] = value
        for name in ("checkpointing", "pin_memory", "offline"):
            if isinstance(changes.get(name), bool):
                made[name] = changes[name]
        made |= {"skip": skip} if (skip := _ranges(changes.get("skip"))) else {}
        return replace(self, **made)

    def skipping(self, steps: tuple[int, int]) -> Adaptation:
        """This one, with the data of more steps passed over.

        >>> Adaptation(skip=((7, 7), (20, 21))).skipping((3, 8)).skip
        ((3, 8), (20, 21))
        """
        merged: list[tuple[int, int]] = []
        for first, last in sorted((*self.skip, steps)):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        return replace(self, skip=tuple(merged))


def _ranges(value: object) -> tuple[tuple[int, int], ...]:
    many = value if isinstance(value, list | tuple) else ()
    pairs = (one for one in many if isinstance(one, list | tuple) and len(one) == 2)
    return tuple((first, last) for first, last in pairs if type(first) is int and type(last) is int)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the program of an attempt was set, as its ranks published it; None is unknown.

    Attributes:
        micro_batch: samples that one device takes at a time.
        accumulation: micro-batches of each rank in a step.
        loader_workers: processes that load data for each rank.
        checkpointing: whether activations are computed again rather than kept.
    """

    micro_batch: int | None = None
    accumulation: int | None = None
    loader_workers: int | None = None
    checkpointing: bool | None = None
