"""The largest weights of a checkpoint, by what the headers of its files say."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from supervisor.checkpoint.tensors import LENGTH_BYTES


def largest_tensors(checkpoint: Path, names: Iterable[str], count: int = 3) -> list[tuple[str, int]]:
    """The largest tensors of these files and their sizes [B], the largest first.

    Args:
        checkpoint: a directory that has been committed, so that its headers are known to be good.
        names: of safetensors files in it.
        count: how many are named.

    Raises:
        OSError: a file could not be read.
    """
    found = []
    for name in names:
        with (checkpoint / name).open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(LENGTH_BYTES), "little")))
        spans = ((tensor, told["data_offsets"]) for tensor, told in header.items() if tensor != "__metadata__")
        found += [(tensor, end - begin) for tensor, (begin, end) in spans]
    return sorted(found, key=lambda one: -one[1])[:count]
