"""What a run's checkpoints take on disk: whether there is room for them, and whether their size makes sense.

What it does not know: quotas (the kernel tells them when they are met), and others who fill the same disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: Far larger than trained weights and their optimizer's state are together.
FAR = 3.0
#: Without that much an optimizer keeps no state for each weight, and its size tells nothing.
TELLING_BYTES = 1 << 20
_MB = 1e6


def short_of_room(checkpoint_bytes: int, keep_last: int, standing: int, free_bytes: int) -> str | None:
    """Say that the checkpoints that are to be kept, and the one that is being written then, have no room.

    Args:
        checkpoint_bytes: of one [B].
        keep_last: how many of the newest stay.
        standing: how many there are already.
        free_bytes: on the disk [B].

    >>> short_of_room(100_000_000, keep_last=3, standing=1, free_bytes=250_000_000)
    '3 checkpoints of 100 MB and the next one need 300 MB more, 250 MB are free'
    >>> short_of_room(100_000_000, keep_last=3, standing=4, free_bytes=0) is None
    True
    """
    need = checkpoint_bytes * max(0, keep_last + 1 - standing)
    if need <= free_bytes:
        return None
    return (
        f"{keep_last} checkpoints of {checkpoint_bytes / _MB:.0f} MB and the next one need {need / _MB:.0f} MB more, "
        f"{free_bytes / _MB:.0f} MB are free"
    )


def too_large(files: Mapping[str, int], optimizer: str, largest: Sequence[tuple[str, int]]) -> str | None:
    """Say that a checkpoint holds far more than what is trained, as one does that holds a frozen base.

    AdamW keeps 8 bytes for each weight that is trained, and that weight takes 4 at most: so what is trained takes
    no more than 1.5 times the optimizer's file.

    Args:
        files: name to size of each file [B].
        optimizer: which of them holds the optimizer's state.
        largest: its largest weights, with their size [B].

    >>> too_large({"optimizer": 8_000_000, "model": 100_000_000}, "optimizer", [("embed", 90_000_000)])
    'a checkpoint takes 108 MB, 12 MB are explained by its optimizer; its largest weights: embed (90 MB)'
    >>> too_large({"optimizer": 8_000_000, "adapter": 4_000_000}, "optimizer", []) is None
    True
    """
    state = files.get(optimizer, 0)
    total, explained = sum(files.values()), 1.5 * state
    if state < TELLING_BYTES or total <= FAR * explained:
        return None
    named = ", ".join(f"{name} ({size / _MB:.0f} MB)" for name, size in largest)
    return (
        f"a checkpoint takes {total / _MB:.0f} MB, {explained / _MB:.0f} MB are explained by its optimizer; "
        f"its largest weights: {named}"
    )
