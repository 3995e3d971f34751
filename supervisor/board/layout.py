"""How a rank's region of the board is laid out: slots that hold safetensors images as files.

    region   = header page, then slots
    slot     = header page, JSON area, then one area per file, each aligned to a page
    file     = the bytes of a finished safetensors file: its header is written once when the
               region is made, its tensors are copied in at every snapshot

So a checkpoint is a copy of byte ranges, and whoever copies needs no torch. The format is
safetensors' own: an 8-byte little-endian length, a JSON header padded with blanks so that
the data begin at a multiple of 8, then the tensors without gaps.

Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from supervisor.board.pages import PAGE

MAGIC = b"LSREGION"
VERSION = 2
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of an image.

    Attributes:
        name: key in the safetensors header.
        dtype: safetensors' name of the element type, such as ``F32``.
        shape: dimensions.
        bytes: size of the data.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class Image:
    """A safetensors file to be: its finished header, and where each tensor's data go.

    Attributes:
        header: length and JSON, ready to be written.
        offsets: tensor name to offset of its data from the file's beginning [bytes].
        size: of the whole file [bytes].
    """

    header: bytes
    offsets: Mapping[str, int]
    size: int


def image(tensors: Sequence[Tensor], metadata: Mapping[str, str] | None = None) -> Image:
    """Lay out tensors as a safetensors file.

    The order given is kept. Give wider element types first, as safetensors itself does it:
    then every tensor is aligned to its element size.

    >>> made = image([Tensor("a", "F32", (2,), 8), Tensor("b", "BF16", (1,), 2)])
    >>> made.size == len(made.header) + 10, len(made.header) % 8
    (True, 0)
    """
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for tensor in tensors:
        table[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.bytes],
        }
        at += tensor.bytes
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = _LENGTH.pack(len(text)) + text
    offsets: dict[str, int] = {}
    start = len(header)
    for tensor in tensors:
        offsets[tensor.name] = start
        start += tensor.bytes
    return Image(header, offsets, start)


def page_aligned(size: int) -> int:
    """The next multiple of a page.

    >>> page_aligned(1), page_aligned(4096)
    (4096, 4096)
    """
    return -(-size // PAGE) * PAGE


@dataclass(frozen=True, slots=True)
class Region:
    """The geometry of one rank's region.

    Attributes:
        slots: how many.
        json_bytes: room for the JSON part of a snapshot.
        files: name and size of each file of a snapshot, in order.
        digest: of the files' headers; two regions with the same digest hold the same tensors.
    """

    slots: int
    json_bytes: int
    files: tuple[tuple[str, int], ...]
    digest: int

    @property
    def slot_bytes(self) -> int:
        """Size of one slot."""
        return PAGE + page_aligned(self.json_bytes) + sum(page_aligned(size) for _, size in self.files)

    @property
    def total_bytes(self) -> int:
        """Size of the region."""
        return PAGE + self.slots * self.slot_bytes

    def slot_at(self, slot: int) -> int:
        """Offset of a slot's header [bytes]."""
        return PAGE + slot * self.slot_bytes

    def json_at(self, slot: int) -> int:
        """Offset of a slot's JSON area [bytes]."""
        return self.slot_at(slot) + PAGE

    def file_at(self, slot: int, name: str) -> int:
        """Offset of a file's first byte [bytes].

        Raises:
            KeyError: no such file in this region.
        """
        at = self.json_at(slot) + page_aligned(self.json_bytes)
        for file, size in self.files:
            if file == name:
                return at
            at += page_aligned(size)
        raise KeyError(name)

    def encode(self) -> bytes:
        """The region's header, at most a page."""
        text = json.dumps(
            {
                "version": VERSION,
                "slots": self.slots,
                "json_bytes": self.json_bytes,
                "files": [list(f) for f in self.files],
                "digest": self.digest,
            }
        ).encode()
        return MAGIC + struct.pack("<II", len(text), zlib.crc32(text)) + text

    @staticmethod
    def decode(raw: bytes) -> Region | None:
        """The geometry that a header page tells, or None for anything else."""
        if raw[:8] != MAGIC or len(raw) < 16:
            return None
        length, checksum = struct.unpack_from("<II", raw, 8)
        text = raw[16 : 16 + length]
        if len(text) != length or zlib.crc32(text) != checksum:
            return None
        told = json.loads(text)
        if told.get("version") != VERSION:
            return None
        files = tuple((str(name), int(size)) for name, size in told["files"])
        return Region(told["slots"], told["json_bytes"], files, told["digest"])


def region(images: Mapping[str, Image], *, slots: int, json_bytes: int) -> Region:
    """The geometry for these files.

    >>> region({}, slots=3, json_bytes=100).total_bytes
    28672
    """
    digest = 0
    for name, one in images.items():
        digest = zlib.crc32(one.header, zlib.crc32(name.encode(), digest))
    files = tuple((name, one.size) for name, one in images.items())
    return Region(slots, json_bytes, files, digest)


@dataclass(frozen=True, slots=True)
class SlotHeader:
    """What a slot says of the snapshot in it.

    Attributes:
        sequence: grows by one with each snapshot of this rank; 0 while one is being written.
        lineage: of the run when it was taken.
        step: newest settled step in it.
        attempt: that took it.
        trained: 1 for the state at the training's end, else 0.
        json_bytes: length of the JSON part.
        json_crc: its checksum.
        history_bytes: length of the log history that belongs to it.
        time_s: wall time at which it was taken [s]; for people only.
        diverged: 1 if this rank's loss or gradients had gone wrong by then, else 0.
    """

    sequence: int
    lineage: int
    step: int
    attempt: int
    trained: int
    json_bytes: int
    json_crc: int
    history_bytes: int
    time_s: float
    diverged: int = 0

    def encode(self) -> bytes:
        """Fields and their checksum."""
        raw = _SLOT.pack(
            self.sequence,
            self.lineage,
            self.step,
            self.attempt,
            self.trained,
            self.json_bytes,
            self.json_crc,
            self.history_bytes,
            self.time_s,
            self.diverged,
        )
        return raw + _LENGTH.pack(zlib.crc32(raw))

    @staticmethod
    def decode(raw: bytes) -> SlotHeader | None:
        """The header of a whole snapshot; None for a torn, busy or empty slot."""
        if len(raw) < SLOT_HEADER_BYTES:
            return None
        body = raw[: _SLOT.size]
        (checksum,) = _LENGTH.unpack_from(raw, _SLOT.size)
        if zlib.crc32(body) != checksum:
            return None
        header = SlotHeader(*_SLOT.unpack(body))
        return header if header.sequence > 0 else None


_SLOT = struct.Struct("<QqqqqqQqdq")
SLOT_HEADER_BYTES = _SLOT.size + _LENGTH.size
