"""The random state of one process: Python's, NumPy's, torch's, and its own GPU's."""

from __future__ import annotations

import base64
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from supervisor.worker import tree


def raw() -> dict[str, Any]:
    """The random state as it is, in the form in which transformers' Trainer keeps it.

    Of several visible GPUs only the current one's state is taken: a rank draws from its own.
    Reading it costs no synchronisation, since the generator's seed and offset live on the host.
    """
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=True),  # the global state, which programs use
        "cpu": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def put(state: dict[str, Any]) -> None:
    """Put a raw state back."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def encode(state: dict[str, Any]) -> dict[str, Any]:
    """A raw state as a JSON value."""
    version, words, gauss = state["python"]
    kind, keys, position, has_gauss, cached = state["numpy"]
    told: dict[str, Any] = {
        "python": {"version": version, "words": _base64(struct.pack(f"<{len(words)}Q", *words)), "gauss": gauss},
        "numpy": tree.encode([str(kind), np.asarray(keys), int(position), int(has_gauss), float(cached)]),
        "cpu": tree.encode(state["cpu"]),
    }
    if "cuda" in state:
        told["cuda"] = tree.encode(state["cuda"])
    return told


def capture() -> dict[str, Any]:
    """The random state as a JSON value."""
    return encode(raw())


def stock(state: dict[str, Any]) -> dict[str, Any]:
    """The raw state of a JSON value; it is what the Trainer writes as `rng_state_<rank>.pth`.

    Source: Trainer._save_rng_state and _load_rng_state of transformers 5.
    """
    packed = base64.b64decode(state["python"]["words"])
    words = struct.unpack(f"<{len(packed) // 8}Q", packed)
    kind, keys, position, has_gauss, cached = tree.decode(state["numpy"])
    made: dict[str, Any] = {
        "python": (state["python"]["version"], tuple(words), state["python"]["gauss"]),
        "numpy": (kind, keys, position, has_gauss, cached),
        "cpu": tree.decode(state["cpu"]),
    }
    if "cuda" in state:
        made["cuda"] = tree.decode(state["cuda"])
    return made


def from_stock(made: dict[str, Any], device: int = 0) -> dict[str, Any]:
    """What `stock` was made of, if it is a random state that can be put back.

    Args:
        made: as a Trainer keeps it.
        device: index of the rank's own GPU, where there is a state for each.

    Raises:
        Exception: whatever the generators say of it, or a missing key.
    """
    version, words, gauss = made["python"]
    kind, keys, position, has_gauss, cached = made["numpy"]
    random.Random().setstate((version, tuple(words), gauss))  # noqa: S311 - only to see whether it can be set
    np.random.RandomState().set_state((kind, keys, position, has_gauss, cached))
    torch.Generator().set_state(made["cpu"])
    state: dict[str, Any] = {
        "python": {"version": version, "words": _base64(struct.pack(f"<{len(words)}Q", *words)), "gauss": gauss},
        "numpy": tree.encode([str(kind), np.asarray(keys), int(position), int(has_gauss), float(cached)]),
        "cpu": tree.encode(made["cpu"]),
    }
    gpu = made.get("cuda")
    gpu = gpu[device % len(gpu)] if isinstance(gpu, list | tuple) and gpu else gpu
    if isinstance(gpu, torch.Tensor):
        state["cuda"] = tree.encode(gpu)
    return state


def restore(state: dict[str, Any]) -> None:
    """Put a captured state back."""
    put(stock(state))


@contextmanager
def untouched() -> Iterator[None]:
    """Whatever the block draws, afterwards the random state is as it was."""
    before = raw()
    try:
        yield
    finally:
        put(before)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
