"""Going on: from the parts that the supervisor points at to the form the stock Trainer resumes from.

The supervisor leaves `resume-<attempt>/resume.json` on the board. It names each part of the
state as a byte range of some file: of a checkpoint on disk, or of a slot of a snapshot that
is held until training has moved on. From these the lowest local rank writes a stock
checkpoint directory beside it, in shared memory, and the unmodified
`Trainer.train(resume_from_checkpoint=…)` does the rest. What the stock form has no place
for is put back by the callback.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch

from supervisor.board.environment import ACCUMULATION
from supervisor.checkpoint.contents import ADAPTER, MODEL, OPTIMIZER
from supervisor.checkpoint.shards import WHOLE, shard_file, shard_of
from supervisor.errors import JobError
from supervisor.whole import write_whole
from supervisor.worker import randomness, tree
from supervisor.worker.capture import Tensors, join_optimizer
from supervisor.worker.seat import Seat, seat, supervised
from supervisor.worker.snapshots import DTYPES

_TYPES = {name: dtype for dtype, name in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of a file.

    Attributes:
        path: of the file.
        offset: of the first byte.
        size: how many.
    """

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """All of it."""
        with self.path.open("rb") as file:
            return os.pread(file.fileno(), self.size, self.offset)

    def copy_to(self, target: Path) -> None:
        """Write it to a new file."""
        target.touch(mode=0o600, exist_ok=False)
        with self.path.open("rb") as source, target.open("wb") as sink:
            done = 0
            while done < self.size:
                sent = os.sendfile(sink.fileno(), source.fileno(), self.offset + done, self.size - done)
                if sent == 0:
                    raise EOFError(f"{self.path} ends {self.size - done} bytes early")
                done += sent

    def tensors(self) -> Tensors:
        """The tensors of a safetensors image, over the file's own pages, not copied."""
        return self.image()[0]

    def image(self) -> tuple[Tensors, dict[str, str]]:
        """The tensors of a safetensors image, as `tensors` gives them, and its metadata."""
        start = self.offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        lead = self.offset - start
        with self.path.open("rb") as file:
            memory = mmap.mmap(file.fileno(), lead + self.size, access=mmap.ACCESS_COPY, offset=start)
        length = int.from_bytes(memory[lead : lead + 8], "little")
        table = json.loads(memory[lead + 8 : lead + 8 + length])
        odd = table.pop("__metadata__", {})
        found: Tensors = {}
        for name, entry in table.items():
            begin, end = entry["data_offsets"]
            dtype, shape = _TYPES[entry["dtype"]], entry["shape"]
            if name in odd:
                kind, shape = json.loads(odd[name])
                dtype = getattr(torch, kind, None)
                if not isinstance(dtype, torch.dtype):  # whatever else bears that name in torch is not wanted
                    raise ValueError(f"{self.path}: {name} is of an unknown type {kind!r:.40}")
            if begin == end:
                found[name] = torch.empty(shape, dtype=dtype)
                continue
            raw = torch.frombuffer(memory, dtype=torch.uint8, count=end - begin, offset=lead + 8 + length + begin)
            found[name] = raw.view(dtype).reshape(shape)
        return found, odd


@dataclass(frozen=True)
class Resume:
    """What this attempt goes on from.

    Attributes:
        directory: on the board, for this attempt.
        source: ``snapshot`` or ``checkpoint``.
        step: settled steps it holds.
        parts: file name to bytes.
    """

    directory: Path
    source: str
    step: int
    parts: Mapping[str, Range]

    @cached_property
    def state(self) -> dict[str, Any]:
        """The JSON state: scheduler, random states, accumulators."""
        loaded: dict[str, Any] = json.loads(self.parts["state.json"].read())
        return loaded

    @property
    def trained(self) -> bool:
        """Whether training had reached its end."""
        return bool(self.state.get("trained"))

    def rank(self, rank: int) -> dict[str, Any]:
        """What the state says of one rank; of one that there was not, what it says of another."""
        ranks: dict[str, dict[str, Any]] = self.state["ranks"]
        return ranks[str(rank)] if str(rank) in ranks else ranks[min(ranks, key=int)]

    def tensors(self, file: str) -> Tensors:
        """Tensors of one file, whole; none if the state has no such file.

        Raises:
            ValueError: ranks of other nodes hold pieces of them.
        """
        found, ranks = self.alike(file), self.state["world_size"]
        pieces = [self.pieces(file, rank) for rank in range(ranks)] if self.in_pieces(file) else []
        if not all(pieces):
            raise ValueError(f"{file} of step {self.step} is in pieces, not all of which are on this node")
        for name in pieces[0] if pieces else ():
            found[name] = torch.cat([of[name][0].flatten() for of in pieces]).reshape(pieces[0][name][1])
        return found

    def alike(self, file: str) -> Tensors:
        """Tensors of one file that all ranks hold alike."""
        return self.parts[file].tensors() if file in self.parts else {}

    def pieces(self, file: str, rank: int) -> dict[str, tuple[torch.Tensor, list[int]]]:
        """What a rank holds of tensors that are sharded, with their whole shapes; nothing where it is not here."""
        part = self.parts.get(shard_file(rank, file))
        if part is None:
            return {}
        found, metadata = part.image()
        whole = json.loads(metadata[WHOLE])
        return {name: (piece, whole[name][1]) for name, piece in found.items()}

    def in_pieces(self, file: str | None = None) -> bool:
        """Whether a file, or any, is there in the pieces that ranks hold of it; the stock form has no weights then."""
        found = (shard_of(name) for name in self.parts)
        return any(of is not None and file in (None, of[1]) for of in found)

    def stock(self, rank: int, leads: bool, world_size: int) -> Path:
        """Write this rank's share of the stock form, and wait until the directory is whole.

        Source: what `Trainer._save_checkpoint` of transformers 5 writes, file by file.
        """
        target = self.directory / "stock"
        if leads:
            work = self.directory / "stock.partial"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(mode=0o700)
            self.write_shared(work)
            work.rename(target)
        _wait_for(target)
        self.write_rank(target, rank, world_size, devices=torch.cuda.device_count())
        return target

    def write_rank(self, target: Path, rank: int, world_size: int, *, devices: int) -> None:
        """Write the random state of one rank.

        Args:
            target: a stock directory.
            rank: whose.
            world_size: ranks that are to resume from it.
            devices: GPUs that the rank sees; the stock form has one state for each, and a rank draws from its own only.
        """
        made = randomness.stock(self.rank(rank)["rng"])
        if "cuda" in made and world_size > 1:
            made["cuda"] = [made["cuda"]] * devices
        _save(made, target / (f"rng_state_{rank}.pth" if world_size > 1 else "rng_state.pth"))

    def write_shared(self, target: Path) -> None:
        """Write what all ranks share of the stock form into a directory that is there and empty."""
        for file in ("adapter_config.json", "trainer_state.json"):
            if file in self.parts:
                self.parts[file].copy_to(target / file)
        if not self.in_pieces():
            self._write_tensors(target)
        if self.state.get("scheduler") is not None:
            _save(tree.decode(self.state["scheduler"]), target / "scheduler.pt")
        if self.state.get("scaler") is not None:
            _save(tree.decode(self.state["scaler"]), target / "scaler.pt")

    def _write_tensors(self, target: Path) -> None:
        for file in (ADAPTER, MODEL):
            if file in self.parts:
                self.parts[file].copy_to(target / file)
        if not isinstance(self.state["optimizer"], dict):
            raise JobError(
                "what is to be gone on from holds no single optimizer: a Session with several has left it",
                "begin without `start_from`, or name a checkpoint that a Trainer has left",
            )
        optimizer = join_optimizer(self.tensors(OPTIMIZER), self.state["optimizer"])
        _save(optimizer, target / "optimizer.pt")


def carry_batch_size(stock: Path, args: Any) -> None:
    """Have the stock form name the batch size that a trainer has now, each rank for itself.

    Trainers up to transformers 5.1 take it from there over their own argument, later ones warn. With
    `auto_find_batch_size` it is the size that was found, and stays.

    Source: Trainer.train of transformers 5.0, `self._train_batch_size = state.train_batch_size`.
    """
    path = stock / "trainer_state.json"
    told = json.loads(path.read_text())
    if args.auto_find_batch_size or told.get("train_batch_size") in (None, args.train_batch_size):
        return
    write_whole(path, json.dumps({**told, "train_batch_size": args.train_batch_size}))


def _save(value: Any, path: Path) -> None:
    path.touch(mode=0o600)
    torch.save(value, path)


@cache
def _accept_indexed_cpu() -> None:
    """Have `torch.load` take ``cpu:0`` for the CPU.

    The Trainer loads the optimizer onto its own device, which with several processes on a CPU
    is called cpu:0, a place that torch knows nothing of. Newer releases ask for plain "cpu".

    Once a process, and under a priority that nobody else has: torch sorts its packages by it and
    cannot compare what comes after.

    Source: Trainer._load_optimizer_and_scheduler of transformers 5.17, mended by 5.23.
    """
    torch.serialization.register_package(
        917, lambda _storage: None, lambda storage, where: storage if where.startswith("cpu:") else None
    )


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.002)  # if the writer dies, the supervisor ends this process too


def find(at: Seat) -> Resume | None:
    """What the supervisor wants this attempt to go on from; None for a fresh start."""
    directory = at.board / f"resume-{at.attempt}"
    try:
        told = json.loads((directory / "resume.json").read_text())
    except FileNotFoundError:
        return None
    parts = {name: Range(Path(p["path"]), p["offset"], p["size"]) for name, p in told["parts"].items()}
    return Resume(directory, told["source"], told["step"], parts)


def resume_point() -> str | None:
    """Directory to hand to `Trainer.train(resume_from_checkpoint=…)`; None for a fresh start.

    Without a supervisor it is None. With one it is a stock checkpoint in shared memory, made
    from the newest state that verified; it lasts until training has moved on.
    """
    if not supervised():
        return None
    at = seat()
    found = find(at)
    if found is None:
        return None
    if at.world_size != found.state["world_size"] and ACCUMULATION not in os.environ:
        raise ValueError(
            f"step {found.step} was reached with {found.state['world_size']} processes, {at.world_size} were launched"
        )
    _accept_indexed_cpu()
    target = found.directory / "stock"
    name = f"rng_state_{at.rank}.pth" if at.world_size > 1 else "rng_state.pth"
    return str(target if (target / name).exists() else found.stock(at.rank, at.leads, at.world_size))
