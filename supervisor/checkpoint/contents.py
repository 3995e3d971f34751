"""What a checkpoint has to hold, and whether each file makes sense by itself.

Everything here looks inside files; sizes and digests are `verify`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from supervisor.checkpoint.files import read_start
from supervisor.checkpoint.flaws import FlawError, check_json_object, load_json
from supervisor.checkpoint.tensors import LENGTH_BYTES, check_header, header_bytes

STATE = "state.json"
TRAINER_STATE = "trainer_state.json"
OPTIMIZER = "optimizer.safetensors"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
MODEL = "model.safetensors"
EXTRA = "extra.safetensors"


def missing_part(names: Iterable[str]) -> str | None:
    """The first file that a resume needs and that is not among ``names``.

    The weights are an adapter with its configuration, or a whole model.

    >>> missing_part({STATE, TRAINER_STATE, ADAPTER, ADAPTER_CONFIG})
    'optimizer.safetensors'
    >>> missing_part({STATE, TRAINER_STATE, OPTIMIZER, MODEL}) is None
    True
    """
    there = set(names)
    weights = (MODEL,) if MODEL in there else (ADAPTER, ADAPTER_CONFIG)
    return next((name for name in (STATE, TRAINER_STATE, OPTIMIZER, *weights) if name not in there), None)


def check_file(name: str, fd: int, size: int, *, step: int, world_size: int) -> None:
    """Make sure that an open file of ``size`` bytes is what its name says.

    Only a safetensors file's header is read, not its tensors.

    Raises:
        FlawError: it is not, and why.
        OSError: it could not be read.
    """
    if name.endswith(".safetensors"):
        length = header_bytes(read_start(fd, LENGTH_BYTES), size)
        header = read_start(fd, LENGTH_BYTES + length)[LENGTH_BYTES:]
        check_header(header, size - LENGTH_BYTES - length)
    elif name == STATE:
        _check_state(load_json(read_start(fd, size)), step, world_size)
    elif name.endswith(".json"):
        check_json_object(read_start(fd, size))


def _check_state(state: Any, step: int, world_size: int) -> None:
    if not isinstance(state, dict):
        raise FlawError("not a JSON object")
    for key, committed in (("step", step), ("world_size", world_size)):
        if type(state.get(key)) is not int or state[key] != committed:
            raise FlawError(f"{key} is {state.get(key)!r:.40}, {committed} committed")
    ranks = state.get("ranks")
    if not isinstance(ranks, dict):
        raise FlawError("ranks: not an object")
    for rank in map(str, range(world_size)):
        if rank not in ranks:
            raise FlawError(f"ranks: rank {rank} is missing")
        if not isinstance(ranks[rank], dict) or "rng" not in ranks[rank]:
            raise FlawError(f"ranks: rank {rank} has no rng")
    if len(ranks) != world_size:
        raise FlawError(f"ranks: {len(ranks)} of them, {world_size} committed")
