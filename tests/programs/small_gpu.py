"""A GPU with little memory, as a hook on every model: what does not fit raises what torch would raise.

$SMALL_GPU is a JSON object: `fits` samples at a time, 0 for none without gradient checkpointing, -1 for none; `ranks`
that have such a GPU, all if it is missing; `from_sample`: only after so many samples of this rank's first life
(what takes most memory need not come first); `hold`: after so many of a later life, wait as long as there is a
file `hold`. Each forward pass in training is written below $SMALL_GPU_TRACE, a row's digest for each sample.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

RANK = int(os.environ.get("RANK", "0"))
ATTEMPT = int(os.environ.get("SUPERVISOR_ATTEMPT", "1"))


def install() -> None:
    """Watch every model of this process."""
    told: dict[str, Any] = json.loads(os.environ.get("SMALL_GPU") or "{}")
    trace = Path(os.environ["SMALL_GPU_TRACE"]) / f"samples-{RANK}.jsonl"
    trace.parent.mkdir(parents=True, exist_ok=True)
    taken = 0

    def before(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal taken
        if not module.training:
            return
        if isinstance(module, torch.nn.Embedding):
            taken += len(args[0])
            rows = [row[row != module.padding_idx].numpy().tobytes() for row in args[0]]
            with trace.open("a") as file:
                line = {"attempt": ATTEMPT, "rows": [hashlib.sha256(row).hexdigest()[:12] for row in rows]}
                file.write(json.dumps(line) + "\n")
        elif isinstance(module, GradientCheckpointingLayer):
            samples = len(args[0])
            if ATTEMPT > 1 and taken == told.get("hold"):
                hold(trace.with_name("hold"))
            small = told.get("ranks") is None or RANK in told["ranks"]
            if small and (ATTEMPT > 1 or taken - samples >= told.get("from_sample", 0)):
                refuse(samples, told, checkpointing=module.gradient_checkpointing)

    torch.nn.modules.module.register_module_forward_pre_hook(before)


def hold(place: Path) -> None:
    """Wait there, and say so."""
    if place.exists():
        place.with_name(f"held-{RANK}").touch()
    while place.exists():
        time.sleep(0.005)


def refuse(samples: int, told: dict[str, Any], *, checkpointing: bool) -> None:
    """Raise if so many samples do not fit."""
    fits = told.get("fits")
    if fits is not None and samples > (1 if fits == 0 and checkpointing else fits):
        raise torch.OutOfMemoryError(
            f"CUDA out of memory. Tried to allocate {samples}.00 GiB. GPU 0 has a total capacity of {fits}.50 GiB "
            "of which 512.00 MiB is free."
        )
