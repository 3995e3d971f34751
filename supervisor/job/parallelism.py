"""Which kinds of parallelism a job may ask `accelerate launch` for.

What a program or an accelerate configuration of one's own asks for is not seen here: the ranks refuse
the same kinds before they train.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from supervisor.errors import JobError
from supervisor.job.file import KeyPath

_REMEDY = "use data parallelism, or FSDP2: use_fsdp: true, fsdp_version: 2"


def check_parallelism(options: Mapping[str, Any], where: Callable[[KeyPath], str]) -> None:
    """Refuse what keeps the training's state in a way that it could not be snapshotted.

    Args:
        options: of `accelerate launch`, as in the job file.
        where: names the place of a key path of the job file.

    Raises:
        JobError: one of them asks for such a kind.
    """
    for key, value in options.items():
        problem = _problem(key.replace("-", "_"), value, options)
        if problem is not None:
            raise JobError(f"launch.accelerate.{key}: {problem}", _REMEDY, where(("launch", "accelerate", key)))


def in_shards(options: Mapping[str, Any]) -> bool:
    """Whether ranks are to hold pieces of what is trained, as far as the job tells.

    >>> in_shards({"use_fsdp": True, "fsdp_version": 2}), in_shards({"use-fsdp": "false"}), in_shards({})
    (True, False, False)
    """
    asked = options.get("use_fsdp", options.get("use-fsdp"))
    return bool(asked) and asked != "false"


def _problem(key: str, value: Any, options: Mapping[str, Any]) -> str | None:
    if not value or value == "false":
        return None
    if key == "use_fsdp" and str(options.get("fsdp_version", options.get("fsdp-version", 1))) != "2":
        return "FSDP1, which accelerate takes without fsdp_version, is not supported"
    if key == "use_deepspeed":
        return "DeepSpeed is not supported"
    if key == "use_megatron_lm":
        return "Megatron-LM is not supported"
    if key.startswith("parallelism_config_") and key.endswith("_size") and "dp_shard" not in key and str(value) != "1":
        return f"{key.removeprefix('parallelism_config_').removesuffix('_size')} is not supported"
    return None
