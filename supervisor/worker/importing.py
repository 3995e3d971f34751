"""A stock Trainer's checkpoint in the form of ours, for a run that begins with it.

Its `.pt` files are pickles. They are read here and nowhere else, and with `weights_only=True`: tensors,
numbers and containers of these; whatever else a file holds is refused, not run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from supervisor.checkpoint.contents import ADAPTER, MODEL, OPTIMIZER
from supervisor.errors import JobError
from supervisor.worker import randomness, tree
from supervisor.worker.capture import Tensors, split_optimizer
from supervisor.worker.exporting import answer
from supervisor.worker.snapshots import image_of

_RECONSTRUCT = np.zeros(0).__reduce__()[0]
#: What a random state of NumPy is made of besides tensors: what the Trainer allows, also under NumPy 1's name for it.
_NUMPY = [
    _RECONSTRUCT,
    (_RECONSTRUCT, "numpy.core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    np.dtypes.UInt32DType,
]


def bring(stock: Path, target: Path, request: Mapping[str, Any]) -> list[str]:
    """Write the files of a checkpoint of ours.

    Args:
        stock: its directory; every file that is named in the request is there.
        target: a directory that is there and empty.
        request: `step`, `weights`, `optimizer`, `ranks` whose random state is there, `world_size` of the run,
            and whether it had `trained` to its end.

    Returns:
        What is not as it was.

    Raises:
        JobError: a file holds something else, or what may not be read.
    """
    ranks, world_size = request["ranks"], request["world_size"]
    random_states = {rank: _random_state(stock, rank, alone=len(ranks) == 1) for rank in ranks}
    stood_in = {rank: ranks[0] for rank in range(world_size) if rank not in ranks}
    trainer_state = _json(stock / "trainer_state.json")
    tensors, joined = _optimizer(stock / request["optimizer"])
    _write_image(tensors, target / OPTIMIZER)
    config = _weights(stock, request["weights"], target)
    state = {
        "format": 1,
        "step": request["step"],
        "world_size": world_size,
        "trained": request["trained"],
        "imported": True,
        "ranks": {str(r): {"rng": random_states[stood_in.get(r, r)], "trainer": {}} for r in range(world_size)},
        **({"stood_in": {str(rank): other for rank, other in stood_in.items()}} if stood_in else {}),
        "optimizer": joined,
        "scheduler": _encoded(stock / "scheduler.pt"),
        "scaler": _encoded(stock / "scaler.pt") if (stock / "scaler.pt").exists() else None,
        "data": {
            "epoch": trainer_state.get("epoch"),
            "step": request["step"],
            "batch_size": trainer_state.get("train_batch_size"),
        },
        "base": {"name": config.get("base_model_name_or_path"), "revision": config.get("revision")},
    }
    callbacks = trainer_state.get("stateful_callbacks")
    trainer_state["stateful_callbacks"] = callbacks if isinstance(callbacks, dict) else {}
    _write_json(state, target / "state.json")
    _write_json(trainer_state, target / "trainer_state.json")
    return _remarks(len(ranks), world_size)


def _remarks(had: int, has: int) -> list[str]:
    if had == has:
        return []
    told = [
        f"it was made with {had} processes and {has} are launched: how many samples made up a step is not told there, "
        "so see that micro-batch times accumulation times processes stays the same"
    ]
    return [*told, "random states of the lowest rank stand in"] if has > had else told


def _load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(list(_NUMPY)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch comes upon in bytes that are no such file
        if type(error).__name__ == "UnpicklingError":  # the module that it is of is imported nowhere here
            raise JobError(
                f"{path} holds more than tensors and numbers: {_why(error)}",
                "only what `torch.load(weights_only=True)` takes is read, since a pickle can run code",
            ) from error
        raise JobError(f"{path} cannot be read: {str(error)[:200]}", "begin with another checkpoint") from error


def _why(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line]
    return (lines[0] if lines else str(error).strip())[:200]


def _random_state(stock: Path, rank: int, *, alone: bool) -> dict[str, Any]:
    path = stock / ("rng_state.pth" if alone and (stock / "rng_state.pth").exists() else f"rng_state_{rank}.pth")
    made = _load(path)
    try:
        return randomness.from_stock(made, rank)
    except Exception as error:  # what the generators say of a state that is none varies
        raise JobError(f"{path} is no random state of a Trainer ({error!r:.100})", "begin with another") from error


def _optimizer(path: Path) -> tuple[Tensors, dict[str, Any]]:
    made = _load(path)
    try:
        return split_optimizer(made)
    except (KeyError, TypeError, AttributeError) as error:
        raise JobError(f"{path} is no optimizer's state ({error!r:.100})", "begin with another") from error


def _encoded(path: Path) -> Any:
    made = _load(path)
    try:
        return tree.encode(made, path.stem)
    except TypeError as error:
        raise JobError(f"{path}: {error}", "begin with another checkpoint") from error


def _weights(stock: Path, name: str, target: Path) -> dict[str, Any]:
    """Copy the weights, or turn an old pickle of them into safetensors; the adapter's configuration, if it is one."""
    adapter = name.startswith("adapter")
    place = target / (ADAPTER if adapter else MODEL)
    if name.endswith(".safetensors"):
        shutil.copyfile(stock / name, place)
    else:
        made = _load(stock / name)
        if not isinstance(made, dict) or not all(isinstance(t, torch.Tensor) for t in made.values()):
            raise JobError(f"{stock / name} holds more than tensors by name", "begin with another checkpoint")
        _write_image(made, place)
    if not adapter:
        return {}
    config = _json(stock / "adapter_config.json")
    _write_json(config, target / "adapter_config.json")
    return config


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise JobError(f"{path} is not JSON", "begin with another checkpoint") from error
    if not isinstance(value, dict):
        raise JobError(f"{path} is not a JSON object", "begin with another checkpoint")
    return value


def _write_json(value: Any, path: Path) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _write_image(tensors: Tensors, path: Path) -> None:
    """Write a safetensors file, one tensor after the other: memory for a second copy may not be there."""
    made = image_of(tensors)
    with path.open("wb") as file:
        file.write(made.header)
        for name, offset in sorted(made.offsets.items(), key=lambda item: item[1]):
            assert file.tell() == offset
            flat = tensors[name].detach().contiguous().reshape(-1)
            if flat.numel():
                file.write(flat.view(torch.uint8).numpy().tobytes())


if __name__ == "__main__":
    answer({"import": bring})
