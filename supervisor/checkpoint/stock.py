"""A stock Trainer's checkpoint: is all of it there that an exact resume needs.

The Trainer itself trains on with a fresh optimizer where `optimizer.pt` or `scheduler.pt` is missing, and with
other random numbers where an `rng_state` is; here each is missed by name.

Source: Trainer._load_optimizer_and_scheduler and _load_rng_state of transformers 5.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.checkpoint.contents import ADAPTER, ADAPTER_CONFIG, MODEL, TRAINER_STATE
from supervisor.checkpoint.flaws import FlawError
from supervisor.checkpoint.foreign import check_directory, files_of

_MAX_STEP = 10**18
_RNG = re.compile(r"rng_state(?:_(0|[1-9][0-9]{0,6}))?\.pth")
_WHOLE_MODEL = (MODEL, "pytorch_model.bin")
_ADAPTERS = (ADAPTER, "adapter_model.bin")
_OPTIMIZERS = ("optimizer.pt", "optimizer.bin")
#: Directories and files of states that are spread over ranks.
_SPREAD = re.compile(
    r"(global_step[0-9]+|optimizer_[0-9]+|pytorch_model_fsdp[^/]*)/|rank[0-9]+-of-[0-9]+-optimizer\.pt"
)


@dataclass(frozen=True, slots=True)
class Stock:
    """What a stock checkpoint holds.

    Attributes:
        step: optimizer steps done.
        ranks: those whose random state is there, in order.
        weights: file with the adapter or the model.
        optimizer: file with the optimizer's state.
        max_steps: of its training; None where it does not tell.
    """

    step: int
    ranks: tuple[int, ...]
    weights: str
    optimizer: str
    max_steps: int | None


def is_stock(names: Collection[str]) -> bool:
    """Whether a directory with these files is, or was to be, a stock Trainer's checkpoint.

    >>> is_stock({"trainer_state.json"}), is_stock({"adapter_config.json"}), is_stock({"optimizer.bin"})
    (True, False, False)
    """
    return bool({TRAINER_STATE, "optimizer.pt", "training_args.bin"} & set(names))


def read_stock(directory: Path, trainer_state: Any) -> Stock:
    """Judge a directory that `is_stock`.

    Args:
        directory: the checkpoint.
        trainer_state: what its `trainer_state.json` holds; None without one.

    Raises:
        FlawError: something is missing or damaged, and what.
        OSError: it could not be read.
    """
    names = files_of(directory)
    spread = next((name for name in sorted(names) if _SPREAD.match(name)), None)
    if spread is not None:
        raise FlawError(f"{spread}: a state that is spread over ranks (FSDP, DeepSpeed) cannot be begun with")
    ranks = _ranks(names)
    weights = _first(names, _ADAPTERS) or _first(names, _WHOLE_MODEL)
    optimizer = _first(names, _OPTIMIZERS)
    missing = [
        what
        for what, there in (
            (TRAINER_STATE, trainer_state is not None),
            ("optimizer.pt", optimizer is not None),
            ("scheduler.pt", "scheduler.pt" in names),
            ("rng_state.pth", bool(ranks)),
            (f"{ADAPTER} or {MODEL}", weights is not None),
            (ADAPTER_CONFIG, weights not in _ADAPTERS or ADAPTER_CONFIG in names),
        )
        if not there
    ]
    if not missing and ranks != tuple(range(len(ranks))):
        missing = [f"rng_state_{rank}.pth" for rank in range(ranks[-1]) if rank not in ranks][:3]
    if missing or weights is None or optimizer is None:
        raise FlawError(f"{', '.join(missing)}: missing; an exact resume needs it")
    check_directory(directory)
    step, max_steps = (_count(trainer_state, key) for key in ("global_step", "max_steps"))
    if step is None:
        raise FlawError(f"{TRAINER_STATE}: global_step is no count of steps")
    return Stock(step, ranks, weights, optimizer, max_steps)


def _first(names: Collection[str], wanted: tuple[str, ...]) -> str | None:
    return next((name for name in wanted if name in names), None)


def _ranks(names: Collection[str]) -> tuple[int, ...]:
    """Ranks with a random state; one process's has no number.

    >>> _ranks(["rng_state_1.pth", "rng_state_0.pth"]), _ranks(["rng_state.pth"]), _ranks(["optimizer.pt"])
    ((0, 1), (0,), ())
    """
    found = [match for name in names if (match := _RNG.fullmatch(name))]
    return tuple(sorted({int(match[1] or 0) for match in found}))


def _count(told: Any, key: str) -> int | None:
    value = told.get(key) if isinstance(told, dict) else None
    return value if type(value) is int and 0 < value < _MAX_STEP else None
