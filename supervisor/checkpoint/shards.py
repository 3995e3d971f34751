"""Tensors that several ranks hold a piece of each, put together as one safetensors file.

Each rank keeps its pieces in a file of its own, `shard-<r>.<file>`. A tensor is cut along its first
dimension, so its bytes are those of its pieces, end to end, in the order of ranks; pieces may be of
different lengths, or empty. What all ranks hold alike comes in `<file>` itself, from one of them.

The metadata of a shard's header says under `WHOLE` how large each tensor is when it is whole, so a
piece that is missing shows. Every file is read once, from its beginning to its end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import merge
from typing import Any

from supervisor.checkpoint.flaws import FlawError
from supervisor.checkpoint.parts import Part, Piece
from supervisor.checkpoint.tensors import DTYPE_BITS, LENGTH_BYTES, header_bytes

#: Key of a shard's metadata: a JSON object of tensor name to [bytes, shape], as they are when whole.
WHOLE = "whole"
_METADATA = "__metadata__"
_SHARD = re.compile(r"shard-(\d+)\.(.+)", re.ASCII)


def own_file(rank: int) -> str:
    """Name of the file that holds what only one rank has.

    >>> own_file(3)
    'rank-3.safetensors'
    """
    return f"rank-{rank}.safetensors"


def shard_file(rank: int, file: str) -> str:
    """Name of what one rank holds of a file.

    >>> shard_file(3, "optimizer.safetensors")
    'shard-3.optimizer.safetensors'
    """
    return f"shard-{rank}.{file}"


def shard_of(name: str) -> tuple[int, str] | None:
    """Rank and file of a shard's name; None for any other name.

    >>> shard_of("shard-3.optimizer.safetensors"), shard_of("rank-3.safetensors")
    ((3, 'optimizer.safetensors'), None)
    """
    found = _SHARD.fullmatch(name)
    return (int(found[1]), found[2]) if found else None


def put_together(parts: Mapping[str, Part], world_size: int) -> list[Part]:
    """The files that shards and what goes with them make up, and all others as they are.

    Args:
        parts: by name.
        world_size: ranks that have to be there.

    Raises:
        FlawError: a rank's shard is missing, or shards do not belong together.
        OSError: a shard's header could not be read.
    """
    shards: dict[str, dict[int, Part]] = {}
    for name, part in parts.items():
        if (found := shard_of(name)) is not None:
            shards.setdefault(found[1], {})[found[0]] = part
    made = [part for name, part in parts.items() if shard_of(name) is None and name not in shards]
    for file, of in shards.items():
        missing = [str(rank) for rank in range(world_size) if rank not in of]
        if missing:
            raise FlawError(f"{file}: nobody has what rank {', '.join(missing)} held of it")
        made.append(joined(file, parts.get(file), [of[rank] for rank in range(world_size)]))
    return made


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tensor of the file to be, and how much of it comes from where."""

    dtype: str
    shape: list[int]
    taken: list[tuple[int, int]]  # index of the stream, bytes

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.taken)


def joined(name: str, alike: Part | None, shards: Sequence[Part]) -> Part:
    """One file of tensors of which each of ``shards`` holds a piece, and of those in ``alike``.

    Args:
        name: of the file.
        alike: tensors that all ranks hold alike; None without any.
        shards: one of each rank, in their order.

    Raises:
        FlawError: they do not belong together.
        OSError: a header could not be read.
    """
    streams = [*shards, *([alike] if alike is not None else [])]
    headers = [_header(part) for part in streams]
    table, odd = _cut(name, headers[: len(shards)])
    if alike is not None:
        added, more = _plain(headers[-1], len(shards))
        # Wider types first, so that every tensor stays aligned to its element; each in its own order, as it is read.
        table, odd = list(merge(table, added, key=_place)), odd | more
    told: dict[str, Any] = {_METADATA: {"format": "pt", **odd}}
    at = 0
    for tensor, entry in table:
        told[tensor] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [at, at + entry.bytes]}
        at += entry.bytes
    text = json.dumps(told, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(LENGTH_BYTES, "little") + text
    starts = [one.start for one in headers]

    def pieces() -> Iterator[Piece]:
        yield head
        readers = [_Reader(part.pieces, start) for part, start in zip(streams, starts, strict=True)]
        for _, entry in table:
            for index, size in entry.taken:
                yield from readers[index].take(size)

    return Part(name, len(head) + at, pieces)


@dataclass(frozen=True, slots=True)
class _Header:
    table: dict[str, Any]
    metadata: dict[str, str]
    start: int  # of the tensors' bytes


def _header(part: Part) -> _Header:
    reader = _Reader(part.pieces, 0)
    length = header_bytes(b"".join(bytes(p) for p in reader.take(LENGTH_BYTES)), part.size)
    table = json.loads(b"".join(bytes(p) for p in reader.take(length)))
    return _Header(table, table.pop(_METADATA, {}), LENGTH_BYTES + length)


def _cut(name: str, headers: Sequence[_Header]) -> tuple[list[tuple[str, _Entry]], dict[str, str]]:
    """The tensors that are cut into pieces, and the metadata of those whose type safetensors does not know."""
    first = headers[0]
    if any(
        list(one.table) != list(first.table) or one.metadata.get(WHOLE) != first.metadata.get(WHOLE) for one in headers
    ):
        raise FlawError(f"{name}: the ranks hold pieces of different tensors")
    whole = json.loads(first.metadata[WHOLE])
    table, odd = [], {}
    for tensor, about in first.table.items():
        size, shape = whole[tensor]
        taken = [(rank, _bytes(one.table[tensor])) for rank, one in enumerate(headers)]
        entry = _Entry(about["dtype"], list(shape), taken)
        if entry.bytes != size:
            raise FlawError(f"{name}: the pieces of {tensor} have {entry.bytes} bytes, it has {size}")
        if tensor in first.metadata:
            kind, _ = json.loads(first.metadata[tensor])
            odd[tensor] = json.dumps([kind, shape])
            entry = _Entry(entry.dtype, [size], taken)
        table.append((tensor, entry))
    return table, odd


def _plain(header: _Header, stream: int) -> tuple[list[tuple[str, _Entry]], dict[str, str]]:
    entries = [
        (name, _Entry(about["dtype"], about["shape"], [(stream, _bytes(about))]))
        for name, about in header.table.items()
    ]
    return entries, {key: value for key, value in header.metadata.items() if key in header.table}


def _place(item: tuple[str, _Entry]) -> tuple[int, str]:
    name, entry = item
    return -DTYPE_BITS[entry.dtype], name


def _bytes(about: Mapping[str, Any]) -> int:
    begin, end = about["data_offsets"]
    return int(end - begin)


@dataclass(slots=True)
class _Reader:
    """Takes a part's bytes from its beginning to its end, so many at a time."""

    open: Callable[[], Iterator[Piece]]
    skip: int
    _pieces: Iterator[Piece] | None = None
    _rest: memoryview = field(default_factory=lambda: memoryview(b""))

    def take(self, size: int) -> Iterator[Piece]:
        """The next bytes.

        Raises:
            FlawError: there are fewer.
        """
        if self._pieces is None:
            self._pieces = self.open()
        while size or self.skip:
            if not self._rest:
                piece = next(self._pieces, None)
                if piece is None:
                    raise FlawError("a shard ends early")
                self._rest = memoryview(piece)
            if self.skip:
                passed = min(self.skip, len(self._rest))
                self._rest, self.skip = self._rest[passed:], self.skip - passed
                continue
            taken, self._rest = self._rest[:size], self._rest[size:]
            size -= len(taken)
            yield taken
