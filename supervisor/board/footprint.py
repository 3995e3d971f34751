"""What a checkpoint is going to take, as its first rank knows before the first step.

A file on the board, like the names of what was imported: there are names in it, for which a beat has no room. The rank
leaves it before it says that training begins, so whoever hears that finds it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from supervisor.whole import write_whole

_NAME = "footprint"
#: So many weights of each kind are named.
NAMED = 3


@dataclass(frozen=True, slots=True)
class Weights:
    """Some of the weights that a checkpoint stores.

    Attributes:
        bytes: of all of them.
        largest: names and sizes [B], the largest first.
    """

    bytes: int = 0
    largest: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What a checkpoint is going to consist of, all ranks together.

    Attributes:
        adapter: the adapter as it is stored; nothing where the model has none.
        trained: what an optimizer changes besides.
        untrained: what is stored besides, although no optimizer knows it.
        frozen_bytes: weights of the model that are not stored.
        optimizer: kinds of the optimizers.
        optimizer_bytes: what these keep, once they have made a step; None where a kind is not known.
    """

    adapter: Weights = field(default_factory=Weights)
    trained: Weights = field(default_factory=Weights)
    untrained: Weights = field(default_factory=Weights)
    frozen_bytes: int = 0
    optimizer: str = ""
    optimizer_bytes: int | None = None

    @property
    def bytes(self) -> int:
        """Of a whole checkpoint, as far as it is known; numbers beside tensors are not counted."""
        weights = self.adapter.bytes + self.trained.bytes + self.untrained.bytes
        return weights + (self.optimizer_bytes or 0)


def leave_footprint(board: Path, told: Footprint) -> None:
    """Leave it on the board, whole, in the place of an older one.

    Raises:
        OSError: the board is full.
    """
    write_whole(board / _NAME, json.dumps(asdict(told)))


def find_footprint(board: Path) -> Footprint | None:
    """What was left on the board; None where nothing was, or nothing that makes sense."""
    try:
        told = json.loads((board / _NAME).read_text())
        return Footprint(**{**told, **{name: _weights(told[name]) for name in ("adapter", "trained", "untrained")}})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _weights(told: Mapping[str, Any]) -> Weights:
    return Weights(int(told["bytes"]), tuple((str(name), int(size)) for name, size in told["largest"]))
