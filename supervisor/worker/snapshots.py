"""Taking snapshots: the state of a settled step, copied into this rank's slots.

On the CPU the copy is made at once and training waits for it. On a GPU training waits for
one copy within the device only; the way to the host overlaps the next step on a stream of
its own, and a thread marks the snapshot as whole when it has arrived (`staging`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from supervisor.board.layout import Image, Region, SlotHeader, Tensor, image, region
from supervisor.board.slots import Key, SlotReader, SlotWriter
from supervisor.checkpoint.contents import OPTIMIZER
from supervisor.checkpoint.shards import WHOLE
from supervisor.worker.capture import Tensors, flat, names_of
from supervisor.worker.copying import Copier
from supervisor.worker.seat import Seat
from supervisor.worker.staging import Staging

#: safetensors' names of element types; what is missing here is stored as bytes, its type in the metadata.
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
#: A snapshot's JSON may grow to twice its first size and this much more before the layout is made anew.
JSON_ROOM_BYTES = 64 << 10


class BoardRefusedError(RuntimeError):
    """The supervisor could not reserve the memory; the message is its own, with the size."""


class SnapshotTaker:
    """Copies a rank's state into its region of the board.

    Attributes:
        seat: this rank's place.
        since: step that this attempt goes on from, 0 for a fresh start.
        cost_s: how long the last snapshot kept training waiting [s]; NaN when a layout was made for it.
    """

    def __init__(self, seat: Seat, since: int) -> None:
        self.seat, self.since = seat, since
        self.cost_s = float("nan")
        self._writer: SlotWriter | None = None
        self._names: list[str] = []
        self._shapes: list[tuple[torch.dtype, torch.Size]] = []
        self._views: list[list[torch.Tensor]] = []
        self._staging: Staging | None = None
        self._copier = Copier()
        self._generation = 0

    def take(
        self,
        *,
        step: int,
        trained: bool,
        diverged: bool = False,
        files: Mapping[str, Tensors],
        told: Any,
        history_bytes: int,
        began_s: float,
        wholes: Mapping[str, Tensors] | None = None,
    ) -> None:
        """Take a snapshot of a settled step.

        Args:
            step: number of settled optimizer steps.
            trained: whether training is over.
            diverged: whether training has gone wrong by then.
            files: file name to live tensors.
            told: the JSON part.
            history_bytes: how much of the log history belongs to it.
            began_s: `time.perf_counter` when its collecting began [s].
            wholes: of files that hold pieces, the tensors they are pieces of.

        Raises:
            BoardRefusedError: there is no memory for it.
        """
        text = json.dumps(told, separators=(",", ":")).encode()
        if self._staging is not None:
            self._staging.wait()  # the copy before this one has left the staging buffer
        laid_out = self._writer is None or not self._fits(files, len(text))
        if laid_out:
            self._lay_out(files, len(text), wholes or {})
        writer = self._writer
        assert writer is not None
        slot = writer.begin(self._held, self._due)
        header = SlotHeader(
            sequence=0,
            lineage=self.seat.lineage,
            step=step,
            attempt=self.seat.attempt,
            trained=int(trained),
            json_bytes=0,
            json_crc=0,
            history_bytes=history_bytes,
            time_s=time.time(),
            diverged=int(diverged),
        )

        def publish() -> None:
            writer.finish(slot, header, text)

        self._copy(files, slot, publish)
        # A new layout is paid for once; it says nothing about what the next snapshot costs.
        self.cost_s = float("nan") if laid_out else time.perf_counter() - began_s

    def finish(self) -> None:
        """Wait until the last snapshot is whole."""
        if self._staging is not None:
            self._staging.wait()

    def _copy(self, files: Mapping[str, Tensors], slot: int, publish: Callable[[], None]) -> None:
        tensors, views = list(flat(files)), self._views[slot]
        if self._staging is not None:
            self._staging.copy(tensors, slot, publish)
            return
        self._copier.copy(views, tensors)
        publish()

    def _held(self) -> Key | None:
        reply = self.seat.replied()
        return (reply.held_lineage, reply.held_step) if reply.held_step >= 0 else None

    def _due(self, step: int) -> bool:
        orders = self.seat.orders()
        return step > orders.taken and orders.asks_for(step)

    def _fits(self, files: Mapping[str, Tensors], json_bytes: int) -> bool:
        assert self._writer is not None
        return (
            json_bytes <= self._writer.geometry.json_bytes
            and names_of(files) == self._names
            and [(t.dtype, t.shape) for t in flat(files)] == self._shapes
        )

    def _lay_out(self, files: Mapping[str, Tensors], json_bytes: int, wholes: Mapping[str, Tensors]) -> None:
        """Find or ask for a region that holds these tensors, and map it."""
        # An optimizer without moments has no tensors, and a checkpoint its file all the same.
        there = {file: tensors for file, tensors in files.items() if tensors or file == OPTIMIZER}
        images = {file: image_of(tensors, wholes.get(file)) for file, tensors in there.items()}
        cuda = any(t.is_cuda for t in flat(files))
        geometry = region(images, slots=5 if cuda else 3, json_bytes=2 * json_bytes + JSON_ROOM_BYTES)
        path, geometry = self._region(geometry)
        if self._staging is not None:
            self._staging.close()
        self._staging, self._views = None, []
        if self._writer is not None:
            self._writer.close()
        self._writer = SlotWriter(path, geometry, images, since=self.since, populate=True)
        self._names, self._shapes = names_of(files), [(t.dtype, t.shape) for t in flat(files)]
        for slot in range(geometry.slots):
            self._views.append(_views(self._writer, slot, files, images))
        if cuda:
            self._staging = Staging(list(flat(files)), self._views, self._writer.memory)

    def _region(self, wanted: Region) -> tuple[Path, Region]:
        """The region that is there already if it has the same files, else a new generation of it."""
        reply = self.seat.replied()
        if reply.granted and reply.text and reply.granted >= self._generation and self._writer is None:
            reader = SlotReader(Path(reply.text))
            there = reader.geometry()
            reader.close()
            self._generation = reply.granted
            if (
                there is not None
                and (there.digest, there.files, there.slots) == (wanted.digest, wanted.files, wanted.slots)
                and there.json_bytes * 2 > wanted.json_bytes
            ):
                return Path(reply.text), there
        self._generation = max(self._generation, reply.granted, reply.refused) + 1
        self.seat.announce(wish=self._generation, wish_bytes=wanted.total_bytes)
        while True:
            reply = self.seat.replied()
            if reply.refused == self._generation:
                raise BoardRefusedError(reply.text)
            if reply.granted == self._generation:
                return Path(reply.text), wanted
            time.sleep(0.001)  # the supervisor answers at once; if it dies, so does this process


def _bytes(tensor: torch.Tensor) -> int:
    return int(tensor.numel() * tensor.element_size())


def image_of(tensors: Tensors, wholes: Tensors | None = None) -> Image:
    """The safetensors file that these tensors make up; types that it does not know stand in it as bytes."""
    # Wider elements first, which aligns all; then those of a GPU together, so that few large
    # copies bring them over.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), not item[1].is_cuda, item[0]))
    listed, odd = [], {}
    for name, tensor in ordered:
        if tensor.dtype in DTYPES:
            listed.append(Tensor(name, DTYPES[tensor.dtype], tuple(tensor.shape), _bytes(tensor)))
        else:
            odd[name] = json.dumps([str(tensor.dtype).removeprefix("torch."), list(tensor.shape)])
            listed.append(Tensor(name, "U8", (_bytes(tensor),), _bytes(tensor)))
    if wholes is not None:
        odd[WHOLE] = json.dumps({name: [_bytes(t), list(t.shape)] for name, t in wholes.items()})
    return image(listed, {"format": "pt", **odd})


def _views(
    writer: SlotWriter, slot: int, files: Mapping[str, Tensors], images: Mapping[str, Image]
) -> list[torch.Tensor]:
    """Where each tensor goes in a slot: tensors over the shared memory itself."""
    views = []
    for file, tensors in files.items():
        for name, tensor in tensors.items():
            at = writer.geometry.file_at(slot, file) + images[file].offsets[name]
            size = _bytes(tensor)
            if size == 0:
                views.append(torch.empty(tensor.shape, dtype=tensor.dtype))
                continue
            raw = torch.frombuffer(writer.memory, dtype=torch.uint8, count=size, offset=at)
            views.append(raw.view(tensor.dtype).reshape(tensor.shape))
    return views
