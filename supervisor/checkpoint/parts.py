"""Parts: the files of a checkpoint to be, as streams of pieces.

The supervisor copies hundreds of megabytes from the board while it stays
small, so a part is never held whole: it is read and written piece by piece.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from supervisor.checkpoint.files import PIECE_BYTES, read_pieces
from supervisor.checkpoint.names import is_plain

Piece = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a checkpoint to be.

    Attributes:
        name: a plain file name.
        size: how many bytes ``pieces`` yields in all [B].
        pieces: starts from the beginning at each call; a piece is valid until
            the next one is asked for.
    """

    name: str
    size: int
    pieces: Callable[[], Iterator[Piece]]

    def __post_init__(self) -> None:
        if not is_plain(self.name):
            raise ValueError(f"{self.name!r} cannot name a part: it is no plain file name")
        if self.size < 0:
            raise ValueError(f"{self.name}: a part cannot have {self.size} bytes")


def part_from_bytes(name: str, data: Piece) -> Part:
    """A part that is in memory already.

    >>> part_from_bytes("state.json", b"{}").size
    2
    """
    return Part(name, memoryview(data).nbytes, lambda: iter((data,)))


def part_from_range(name: str, source: int | Path, offset: int, size: int, piece_bytes: int = PIECE_BYTES) -> Part:
    """A part that lies in a file, such as a slot of the board.

    Args:
        name: the part's name.
        source: an open file, which has to stay open, or a path.
        offset: where in it the part begins [B].
        size: how long it is [B].
        piece_bytes: how much of it is in memory at a time [B].
    """

    def pieces() -> Iterator[Piece]:
        if isinstance(source, int):
            yield from read_pieces(source, offset, size, piece_bytes)
            return
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield from read_pieces(fd, offset, size, piece_bytes)
        finally:
            os.close(fd)

    return Part(name, size, pieces)


def joined(name: str, parts: Sequence[Part]) -> Part:
    """One part made of several, end to end; their names do not matter.

    >>> halves = [part_from_bytes("a", b"{"), part_from_bytes("b", b"}")]
    >>> b"".join(joined("state.json", halves).pieces())
    b'{}'
    """

    def pieces() -> Iterator[Piece]:
        for part in parts:
            yield from part.pieces()

    return Part(name, sum(part.size for part in parts), pieces)
