"""What memory a run needs of its node, as far as that can be told before it starts. Pure."""

from __future__ import annotations

import re

#: Snapshots that a board has room for at most: one being written, the newest whole one, one that is held, and
#: the room of one more while a layout grows.
SLOTS = 3 + 1
#: A process that has imported torch and has no model yet [bytes].
PROCESS_BYTES = 1 << 30
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", re.ASCII | re.IGNORECASE)
_UNITS = {"K": 1 << 10, "": 1 << 20, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def board_bytes(state_bytes: int) -> int:
    """Memory of a node's board, which SLURM charges to the job: it is shared memory of its processes [bytes].

    Args:
        state_bytes: of one snapshot: adapter, optimizer and the rest, as large as a checkpoint.

    >>> board_bytes(480_000_000)
    1920000000
    """
    return SLOTS * state_bytes


def memory_bytes(text: object) -> int | None:
    """What `--mem` asks for [bytes]; None for all of the node's, and for what cannot be read.

    >>> memory_bytes("32G"), memory_bytes(4096), memory_bytes("0")
    (34359738368, 4294967296, None)

    Source:
        sbatch(1): "Default units are megabytes"; 0 means all memory of the node.
    """
    found = _MEMORY.fullmatch(str(text).strip())
    if found is None or float(found[1]) == 0:
        return None
    return round(float(found[1]) * _UNITS[found[2].upper()])


def least_bytes(state_bytes: int, processes: int) -> int:
    """What a node needs at the very least: its board, and processes without a model [bytes].

    >>> least_bytes(480_000_000, 2)
    4067483648
    """
    return board_bytes(state_bytes) + processes * PROCESS_BYTES
