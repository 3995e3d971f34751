"""Writing and reading the slots of one rank's region.

The writer is a rank; it maps the region. The reader is the supervisor; it uses `pread`, so
that its own memory stays small, and asks the rank to spare one slot while it copies.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from supervisor.board.layout import SLOT_HEADER_BYTES, Image, Region, SlotHeader
from supervisor.board.pages import PAGE
from supervisor.board.regions import open_region

Key = tuple[int, int]  # (lineage, step), which orders snapshots
#: (lineage, step, trained, attempt): what the snapshots of two ranks share that belong together.
Identity = tuple[int, int, int, int]


def victim(headers: Sequence[SlotHeader | None], held: Key | None, due: Callable[[int], bool] = lambda _: False) -> int:
    """The slot to write next: empty or torn ones first, then the oldest, never the newest or the held.

    Of five slots the three newest are spared, since they may not have arrived on every rank yet.

    Args:
        headers: of all slots, None for what is not whole.
        held: snapshot that the reader wants spared.
        due: whether a checkpoint of a step is due and the reader has not come for it yet; such
            a slot is spared as well, as long as another one is left.

    Returns:
        Index of the slot.

    >>> def h(sequence, step):
    ...     return SlotHeader(sequence, 0, step, 1, 0, 0, 0, 0, 0.0)
    >>> victim([h(7, 7), h(8, 8), h(9, 9)], held=None)
    0
    >>> victim([h(7, 7), h(8, 8), h(9, 9)], held=(0, 7))
    1
    >>> victim([h(7, 7), None, h(9, 9)], held=None)
    1
    >>> victim([h(7, 7), h(8, 8), h(9, 9)], held=None, due=lambda step: step == 7)
    1
    >>> victim([h(7, 7), h(8, 8), h(9, 9)], held=(0, 8), due=lambda step: step == 7)
    0
    >>> victim([h(6, 6), h(7, 7), h(8, 8), h(9, 9)], held=(0, 6), due=lambda step: step == 7)
    1
    """
    whole = sorted(h.sequence for h in headers if h)
    newest = whole[-(len(headers) - 2) :]
    # One slot at most: a step can be there twice, when training ended at the step it was resumed from.
    wanted = max((h.sequence for h in headers if h and (h.lineage, h.step) == held), default=0)
    free = [
        (h is not None and due(h.step), h.sequence if h else 0, index)
        for index, h in enumerate(headers)
        if h is None or (h.sequence not in newest and h.sequence != wanted)
    ]
    return min(free)[2]


class SlotWriter:
    """A rank's hand on its region.

    Attributes:
        geometry: of the region.
        memory: the mapped region; tensors are copied into views of it.
    """

    def __init__(
        self, path: Path, geometry: Region, images: Mapping[str, Image], *, since: int, populate: bool
    ) -> None:
        """Map the region, and write what never changes in it unless it is there already.

        Args:
            path: of the region, made and sized by the supervisor.
            geometry: of the region.
            images: of the files, for their headers.
            since: step that this attempt goes on from. What is there of later steps belongs to a
                branch that ended: not every rank had it, or it would have been gone on from.
            populate: fault the pages in now rather than at the first snapshot, which
                otherwise takes several times as long as the later ones.
        """
        descriptor = open_region(path, os.O_RDWR)
        try:
            flags = mmap.MAP_SHARED | (mmap.MAP_POPULATE if populate else 0)
            self.memory = mmap.mmap(descriptor, geometry.total_bytes, flags=flags)
        finally:
            os.close(descriptor)
        self.geometry = geometry
        if Region.decode(self.memory[:PAGE]) != geometry:
            for slot in range(geometry.slots):
                for name, one in images.items():
                    at = geometry.file_at(slot, name)
                    self.memory[at : at + len(one.header)] = one.header
            encoded = geometry.encode()
            self.memory[: len(encoded)] = encoded
        there = [self._header(slot) for slot in range(geometry.slots)]
        self._sequence = max((h.sequence for h in there if h), default=0)
        self.headers = [h if h and h.step <= since else None for h in there]

    def close(self) -> None:
        """Unmap, unless views of the memory are still about."""
        try:
            self.memory.close()
        except BufferError:
            pass  # torch views keep it; the process's end unmaps it

    def _header(self, slot: int) -> SlotHeader | None:
        at = self.geometry.slot_at(slot)
        return SlotHeader.decode(self.memory[at : at + SLOT_HEADER_BYTES])

    def begin(self, held: Callable[[], Key | None], due: Callable[[int], bool]) -> int:
        """Choose a slot and mark it as being written.

        Args:
            held: asks what the reader holds now. It is asked again after the mark, since
                the reader may have taken hold in between; then another slot is chosen.
            due: as for `victim`.

        Returns:
            Index of the slot.
        """
        while True:
            wanted = held()
            slot = victim(self.headers, wanted, due)
            before, at = self.headers[slot], self.geometry.slot_at(slot)
            self.memory[at : at + SLOT_HEADER_BYTES] = bytes(SLOT_HEADER_BYTES)
            if before is not None and held() == (before.lineage, before.step) != wanted:
                self.memory[at : at + SLOT_HEADER_BYTES] = before.encode()
                continue
            self.headers[slot] = None
            return slot

    def finish(self, slot: int, header: SlotHeader, text: bytes) -> None:
        """Write the JSON part and the header; from here on the snapshot is whole.

        Args:
            slot: as `begin` returned it.
            header: its sequence, JSON length and checksum are filled in here.
            text: the JSON part.

        Raises:
            ValueError: the JSON part outgrew its area; a larger generation is needed.
        """
        if len(text) > self.geometry.json_bytes:
            raise ValueError(f"{len(text)} bytes of JSON, room for {self.geometry.json_bytes}")
        at = self.geometry.json_at(slot)
        self.memory[at : at + len(text)] = text
        self._sequence += 1
        whole = replace(header, sequence=self._sequence, json_bytes=len(text), json_crc=zlib.crc32(text))
        at, encoded = self.geometry.slot_at(slot), whole.encode()
        self.memory[at : at + len(encoded)] = encoded
        self.headers[slot] = whole


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A whole snapshot of one rank, as the reader found it.

    Attributes:
        path: of the region's file.
        geometry: of the region.
        slot: index.
        header: of the slot.
    """

    path: Path
    geometry: Region
    slot: int
    header: SlotHeader

    @property
    def key(self) -> Key:
        """What orders snapshots: (lineage, step)."""
        return self.header.lineage, self.header.step

    @property
    def identity(self) -> Identity:
        """What the snapshots of all ranks share that belong together."""
        header = self.header
        return header.lineage, header.step, header.trained, header.attempt

    def range_of(self, file: str) -> tuple[int, int]:
        """Offset and size of a file's bytes within the region."""
        return self.geometry.file_at(self.slot, file), dict(self.geometry.files)[file]


class SlotReader:
    """The supervisor's eye on a rank's region; reads by `pread`, maps nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = open_region(path, os.O_RDONLY)
        self._geometry: Region | None = None

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)

    def geometry(self) -> Region | None:
        """The region's geometry; None until its rank has written it."""
        if self._geometry is None:
            self._geometry = Region.decode(os.pread(self._fd, PAGE, 0))
        return self._geometry

    def snapshots(self) -> list[Snapshot]:
        """Every whole snapshot, newest first."""
        geometry = self.geometry()
        if geometry is None:
            return []
        found = []
        for slot in range(geometry.slots):
            header = SlotHeader.decode(os.pread(self._fd, SLOT_HEADER_BYTES, geometry.slot_at(slot)))
            if header is not None:
                found.append(Snapshot(self.path, geometry, slot, header))
        return sorted(found, key=lambda s: s.header.sequence, reverse=True)

    def unchanged(self, snapshot: Snapshot) -> bool:
        """Whether the slot still holds this snapshot; asked after its bytes were copied."""
        raw = os.pread(self._fd, SLOT_HEADER_BYTES, snapshot.geometry.slot_at(snapshot.slot))
        return SlotHeader.decode(raw) == snapshot.header

    def text(self, snapshot: Snapshot) -> bytes | None:
        """The JSON part, or None if it does not match its checksum."""
        raw = os.pread(self._fd, snapshot.header.json_bytes, snapshot.geometry.json_at(snapshot.slot))
        return raw if zlib.crc32(raw) == snapshot.header.json_crc else None


def common(per_rank: Sequence[Sequence[Snapshot]]) -> list[list[Snapshot]]:
    """Every snapshot that is whole on every rank, as one per rank, newest first.

    A state at the training's end counts only if it is that on all ranks, and all ranks must
    have taken it in the same attempt: a step that is done again need not come out the same.
    """
    if not per_rank:
        return []
    shared = set.intersection(*({s.identity for s in one} for one in per_rank))
    return [
        [next(s for s in one if s.identity == identity) for one in per_rank]
        for identity in sorted(shared, reverse=True)
    ]
