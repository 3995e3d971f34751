"""Numbers in torch's message of an exhausted GPU: what was wanted, what there is, and who has it.

Every release words it anew; all spellings since 1.0 are read, those of ROCm, XPU and MPS, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_TRIED = ("tried to allocate (?:more than )?{}", "requested ?: {}")
_TOTAL = ("total capaci?ty of {}", "{} total capacity", "max allowed: {}", "(?:capacity|device limit) ?: {}")
_SIZE = r"([\d.]+) ?([kmgt]?)i?b(?:ytes)?\b"


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """What torch said; None for what it did not.

    Attributes:
        tried_bytes: wanted at last.
        total_bytes: the device's.
        free_bytes: of them.
        ours_bytes: held by the process that failed, with what is not torch's where it was told.
        others: other processes on the device, as (pid, bytes).
    """

    tried_bytes: int | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    ours_bytes: int | None = None
    others: tuple[tuple[int, int], ...] = ()

    @property
    def others_bytes(self) -> int | None:
        """Held by others: as listed, or what is neither free nor ours."""
        if self.others:
            return sum(size for _, size in self.others)
        if self.total_bytes is None or self.free_bytes is None or self.ours_bytes is None:
            return None
        return max(0, self.total_bytes - self.free_bytes - self.ours_bytes)

    @property
    def neighbour(self) -> bool:
        """Whether others hold more than half of what is used."""
        others, ours = self.others_bytes, self.ours_bytes
        return others is not None and ours is not None and others > ours

    def __str__(self) -> str:
        parts = [
            ("{} were wanted", self.tried_bytes),
            ("{} are free", self.free_bytes),
            ("the device has {}", self.total_bytes),
            ("this process held {}", self.ours_bytes),
            ("others held {}", self.others_bytes if self.neighbour or self.others else None),
        ]
        told = [words.format(_gib(size)) for words, size in parts if size is not None]
        pids = f" (pid {', '.join(str(pid) for pid, _ in self.others)})" if self.others else ""
        return ", ".join(told) + pids


def read_oom(message: str) -> OutOfMemory | None:
    """Read the numbers in a message.

    Args:
        message: of the exception.

    Returns:
        None where there is none of them.

    Source:
        torch, c10/cuda/CUDACachingAllocator.cpp (1.0 to 2.13); c10/xpu; aten/src/ATen/mps/MPSAllocator.mm.

    >>> told = read_oom(
    ...     "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 10.00 GiB of which 1.00 GiB"
    ...     " is free. Process 12 has 6.00 GiB memory in use. Including non-PyTorch memory, this process has 3.00 GiB"
    ...     " memory in use. Of the allocated memory 2.00 GiB is allocated by PyTorch"
    ... )
    >>> told.tried_bytes, told.neighbour, told.others
    (20971520, True, ((12, 6442450944),))
    >>> str(told).partition("the device")[2]
    ' has 10.0 GiB, this process held 3.0 GiB, others held 6.0 GiB (pid 12)'
    """
    text = " ".join(message.split()).lower()
    others = [
        (int(pid), _bytes(number, unit))
        for pid, number, unit in re.findall(rf"process (\d+) has {_SIZE} memory in use", text)
    ]
    ours = _first(text, rf"this process has {_SIZE} memory in use")
    if ours is None:
        ours = _taken_out(others, _held(text))
    read = OutOfMemory(
        tried_bytes=_first(text, *(words.format(_SIZE) for words in _TRIED)),
        total_bytes=_first(text, *(words.format(_SIZE) for words in _TOTAL)),
        free_bytes=_first(
            text, rf"of which {_SIZE} is free", rf"; {_SIZE} free", rf"\bfree[^:;.]{{0,30}}: {_SIZE}", rf"{_SIZE} free"
        ),
        ours_bytes=ours,
        others=tuple(others),
    )
    return None if read == OutOfMemory() else read


def _taken_out(listed: list[tuple[int, int]], held: int | None) -> int | None:
    """What we hold; in a container the driver lists us under a number that is not ours, as one of the others."""
    own = min((one for one in listed if held is not None and one[1] >= held), key=lambda one: one[1], default=None)
    if own is None:
        return held
    listed.remove(own)
    return own[1]


def _held(text: str) -> int | None:
    """What torch itself held, where the process's whole share was not told."""
    reserved = _first(
        text, rf"{_SIZE} reserved in total by pytorch", rf"{_SIZE} cached", rf"currently allocated[^\d]*{_SIZE}"
    )
    if reserved is not None:
        return reserved
    allocated = _first(
        text, rf"{_SIZE} is allocated by pytorch", rf"{_SIZE} already allocated", rf"mps allocated: {_SIZE}",
        rf"{_SIZE} allocated"
    )  # fmt: skip
    idle = _first(text, rf"{_SIZE} is reserved by pytorch but unallocated")
    return None if allocated is None else allocated + (idle or 0)


def _first(text: str, *patterns: str) -> int | None:
    for pattern in patterns:
        if (found := re.search(pattern, text)) is not None:
            return _bytes(found[1], found[2])
    return None


def _bytes(number: str, unit: str) -> int:
    try:
        return int(float(number) * _UNITS[unit])
    except ValueError:  # "1.2.3": no number after all
        return 0


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"
