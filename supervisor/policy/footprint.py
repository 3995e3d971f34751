"""What a run's checkpoints take on disk: whether there is room for them, and whether their size makes sense.

What it does not know: quotas (the kernel tells them when they are met), and others who fill the same disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: Far larger than trained weights and their optimizer's state are together.
FAR = 3.0
#: Without that much an optimizer keeps no state for each weight, and its size tells nothing.
TELLING_BYTES = 1 << 20
#: No adapter makes checkpoints of this size: of 8 billion weights, one of rank 64 in every layer trains 170 million,
#: which are 2 GB with their moments.
LARGE_BYTES = 4 * 10**9
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
    return (
        f"a checkpoint takes {total / _MB:.0f} MB, {explained / _MB:.0f} MB are explained by its optimizer; "
        f"its largest weights: {_named(largest)}"
    )


def saved_untrained(untrained_bytes: int, trained_bytes: int, largest: Sequence[tuple[str, int]]) -> str | None:
    """Say that far more weights are saved than are trained: they want gradients, and no optimizer knows them.

    Args:
        untrained_bytes: of weights that are saved and that no optimizer changes [B].
        trained_bytes: of those that one does [B].
        largest: of the former, with their size [B].

    >>> saved_untrained(90_000_000, 4_000_000, [("embed", 80_000_000)])
    'a checkpoint saves 90 MB of weights that no optimizer changes, and 4 MB that one does; the largest: embed (80 MB)'
    >>> saved_untrained(9_000_000, 4_000_000, []) is None
    True
    """
    if untrained_bytes < TELLING_BYTES or untrained_bytes <= FAR * trained_bytes:
        return None
    return (
        f"a checkpoint saves {untrained_bytes / _MB:.0f} MB of weights that no optimizer changes, "
        f"and {trained_bytes / _MB:.0f} MB that one does; the largest: {_named(largest)}"
    )


def trained_besides(
    adapter_bytes: int, other_bytes: int, checkpoint_bytes: int, largest: Sequence[tuple[str, int]]
) -> str | None:
    """Say that far more is trained beside an adapter than the adapter: a base that was not frozen, say.

    Args:
        adapter_bytes: of the adapter [B]; 0 for a model without one, which is meant to be trained as it is.
        other_bytes: of what is trained besides [B].
        checkpoint_bytes: of one [B].
        largest: of the others, with their size [B].

    >>> trained_besides(4_000_000, 90_000_000, 282_000_000, [("head", 80_000_000)])
    'beside an adapter of 4 MB other weights of 90 MB are trained, a checkpoint takes 282 MB; the largest: head (80 MB)'
    >>> trained_besides(0, 90_000_000, 270_000_000, []) is None
    True
    """
    if adapter_bytes == 0 or other_bytes < TELLING_BYTES or other_bytes <= FAR * adapter_bytes:
        return None
    return (
        f"beside an adapter of {adapter_bytes / _MB:.0f} MB other weights of {other_bytes / _MB:.0f} MB are trained, "
        f"a checkpoint takes {checkpoint_bytes / _MB:.0f} MB; the largest: {_named(largest)}"
    )


def trained_whole(
    trained_bytes: int, frozen_bytes: int, checkpoint_bytes: int, largest: Sequence[tuple[str, int]]
) -> str | None:
    """Say that a large model without an adapter is trained, most of its weights: that may be meant, and may not.

    Args:
        trained_bytes: of the weights that are trained [B].
        frozen_bytes: of the others [B].
        checkpoint_bytes: of one [B].
        largest: of those that are trained, with their size [B].

    >>> trained_whole(14 * 10**9, 0, 42 * 10**9, [("embed", 262_000_000)])
    'no adapter: the model itself is trained, a checkpoint takes 42000 MB; its largest weights: embed (262 MB)'
    >>> trained_whole(10**8, 0, 3 * 10**8, []) is None
    True
    """
    if checkpoint_bytes < LARGE_BYTES or trained_bytes <= frozen_bytes:
        return None
    return (
        f"no adapter: the model itself is trained, a checkpoint takes {checkpoint_bytes / _MB:.0f} MB; "
        f"its largest weights: {_named(largest)}"
    )


def _named(largest: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{name} ({size / _MB:.0f} MB)" for name, size in largest)
