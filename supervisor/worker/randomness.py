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


def capture() -> dict[str, Any]:
    """The random state as a JSON value.

    Of several visible GPUs only the current one's state is taken: a rank draws from its own.
    Reading it costs no synchronisation, since the generator's seed and offset live on the host.
    """
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # the global state, which programs use
    state: dict[str, Any] = {
        "python": {"version": version, "words": _base64(struct.pack(f"<{len(words)}Q", *words)), "gauss": gauss},
        "numpy": tree.encode([str(kind), np.asarray(keys), int(position), int(has_gauss), float(cached)]),
        "cpu": tree.encode(torch.get_rng_state()),
    }
    if torch.cuda.is_available():
        state["cuda"] = tree.encode(torch.cuda.get_rng_state())
    return state


def stock(state: dict[str, Any]) -> dict[str, Any]:
    """The form in which transformers' Trainer keeps it, `rng_state_<rank>.pth`.

    Source: Trainer._save_rng_state and _load_rng_state of transformers 5.
    """
    raw = base64.b64decode(state["python"]["words"])
    words = struct.unpack(f"<{len(raw) // 8}Q", raw)
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
    made = stock(state)
    random.setstate(made["python"])
    np.random.set_state(made["numpy"])
    torch.set_rng_state(made["cpu"])
    if "cuda" in made and torch.cuda.is_available():
        torch.cuda.set_rng_state(made["cuda"])


@contextmanager
def untouched() -> Iterator[None]:
    """Whatever the block draws, afterwards the random state is as it was."""
    before = capture()
    try:
        yield
    finally:
        restore(before)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
