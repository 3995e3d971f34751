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
