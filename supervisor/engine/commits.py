"""From the board to disk, on a thread that the loop never waits for.

A checkpoint is put together from the slots of all ranks: the tensor files are byte ranges,
the JSON files are merged from the JSON parts. No torch is needed, and no help of a worker,
so it works while the workers evaluate, hang, or are dead.
"""

from __future__ import annotations

import errno
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.board.slots import SlotReader, Snapshot
from supervisor.checkpoint.commit import Committed, commit
from supervisor.checkpoint.final import write_final
from supervisor.checkpoint.parts import Part, part_from_bytes, part_from_range
from supervisor.checkpoint.retain import NotDeleted, delete, to_delete
from supervisor.checkpoint.verify import Intact, read_manifest
from supervisor.engine.memory import Memory, Whole
from supervisor.errors import DiskError

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json", "model.safetensors")


class TornSnapshotError(DiskError):
    """A slot changed or broke while it was read: nothing was committed, the next one will be."""


@dataclass(frozen=True, slots=True)
class Source:
    """One rank's share of a snapshot, and the open reader of its region."""

    reader: SlotReader
    snapshot: Snapshot

    def part(self, file: str) -> Part:
        """One of its tensor files."""
        offset, size = self.snapshot.range_of(file)
        return part_from_range(file, self.snapshot.path, offset, size)


def sources_of(memory: Memory, whole: Whole) -> tuple[Source, ...]:
    """A snapshot's slots with the open readers of their regions, in the order of ranks."""
    return tuple(Source(memory.reader(part), part) for part in whole.parts)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a checkpoint made of a snapshot consists of.

    Attributes:
        texts: the JSON files.
        images: the tensor files, and whose slot each lies in.
    """

    texts: tuple[Part, ...]
    images: tuple[tuple[str, Source], ...]

    def parts(self) -> list[Part]:
        """All files."""
        return [*(source.part(name) for name, source in self.images), *self.texts]


def contents(sources: Sequence[Source], histories: Path, run_id: str) -> Contents:
    """Put a checkpoint's files together.

    Args:
        sources: one per rank, in the order of ranks; the first one leads.
        histories: directory of the log histories.
        run_id: of the run.

    Raises:
        TornSnapshotError: a JSON part does not match its checksum, or a log history is gone.
    """
    told = [_told(source) for source in sources]
    shared: dict[str, Any] = dict(told[0]["shared"])
    trainer_state, adapter_config = shared.pop("trainer_state"), shared.pop("adapter_config")
    header = sources[0].snapshot.header
    state = {
        "format": 1,
        "run_id": run_id,
        "lineage": header.lineage,
        "step": header.step,
        "world_size": len(sources),
        "trained": bool(header.trained),
        "ranks": {str(rank): one["rank"] for rank, one in enumerate(told)},
        **shared,
    }
    texts = [part_from_bytes("state.json", _json(state))]
    if adapter_config is not None:
        texts.append(part_from_bytes("adapter_config.json", _json(adapter_config)))
    texts.append(_trainer_state(trainer_state, histories / f"history-{header.attempt}", header.history_bytes))
    images = [(name, source) for source in sources for name, _ in source.snapshot.geometry.files]
    return Contents(tuple(texts), tuple(images))


def _told(source: Source) -> dict[str, Any]:
    text = source.reader.text(source.snapshot)
    if text is None:
        raise TornSnapshotError(f"{source.snapshot.path.name} broke while it was read", "the next snapshot is taken")
    told: dict[str, Any] = json.loads(text)
    return told


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


def _trainer_state(told: Mapping[str, Any], history: Path, length: int) -> Part:
    """trainer_state.json, its log history streamed from where it was appended row by row.

    A run's whole history in one JSON takes the worker a second at 100,000 rows; so rows are
    written once, one a line, and become a list here by turning line ends into commas.
    """
    head = json.dumps(told).encode()
    assert head.endswith(b"}")
    head = head[:-1] + (b"," if told else b"") + b'"log_history":['
    tail = b"]}\n"
    if length == 0:
        return part_from_bytes("trainer_state.json", head + tail)
    if not history.is_file() or history.stat().st_size < length:
        raise TornSnapshotError(f"{history.name} is shorter than the snapshot says", "the next snapshot is taken")

    def pieces() -> Iterator[bytes]:
        yield head
        rows = part_from_range("history", history, 0, length - 1)  # without the last line end
        for piece in rows.pieces():
            yield bytes(piece).replace(b"\n", b",")
        yield tail

    return Part("trainer_state.json", len(head) + length - 1 + len(tail), pieces)


@dataclass(frozen=True, slots=True)
class Order:
    """A commit to be made.

    Attributes:
        reason: ``periodic``, ``emergency``, ``final`` or ``best``.
        sources: the snapshot, one per rank; held until the answer.
        stall_s: what the snapshot cost training [s], None while unknown.
    """

    reason: str
    sources: tuple[Source, ...]
    stall_s: float | None

    @property
    def step(self) -> int:
        """Settled steps of the snapshot."""
        return self.sources[0].snapshot.header.step

    @property
    def lineage(self) -> int:
        """Lineage of the snapshot."""
        return self.sources[0].snapshot.header.lineage


@dataclass(frozen=True, slots=True)
class Answer:
    """How a commit went.

    Attributes:
        order: which one.
        committed: the checkpoint, or None if there is none.
        problem: why not, or what went wrong after it; None if all is well.
        full: whether that was for lack of room.
        final_problem: why `final/` could not be written; None if it was, or was not due.
    """

    order: Order
    committed: Committed | None
    problem: str | None
    full: bool = False
    final_problem: str | None = None


def write_final_from(checkpoint: Path, run_dir: Path) -> None:
    """Write `final/` with the adapter of a committed checkpoint.

    Raises:
        DiskError: the file system refused; an older `final/` is as it was.
    """
    files = [checkpoint / name for name in ADAPTER_FILES if (checkpoint / name).is_file()]
    write_final(run_dir / "final", [part_from_range(f.name, f, 0, f.stat().st_size) for f in files])


class Committer:
    """One thread that commits, retains, and writes the final adapter.

    Attributes:
        fd: readable when an answer is there; for `select`.
    """

    def __init__(
        self, run_dir: Path, run_id: str, histories: Path, *, keep_last: int, still_owner: Callable[[], None]
    ) -> None:
        self._run_dir, self._run_id, self._histories = run_dir, run_id, histories
        self._keep_last, self._still_owner = keep_last, still_owner
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self.fd, self._bell = os.pipe()
        os.set_blocking(self.fd, False)
        self._thread = threading.Thread(target=self._work, name="commits", daemon=True)
        self._thread.start()

    def submit(self, order: Order) -> None:
        """Have a commit made; its answer comes later."""
        self._orders.put(order)

    def answers(self) -> list[Answer]:
        """Take what has come."""
        try:
            os.read(self.fd, 4096)
        except BlockingIOError:
            return []
        found = []
        while not self._answers.empty():
            found.append(self._answers.get())
        return found

    def close(self, patience_s: float) -> None:
        """End the thread; one that hangs in a dead file system is left behind and ends with the process."""
        self._orders.put(None)
        self._thread.join(patience_s)

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            self._answers.put(self._make(order))
            os.write(self._bell, b"!")

    def _make(self, order: Order) -> Answer:
        def confirm() -> None:
            self._still_owner()
            for source in order.sources:
                if not source.reader.unchanged(source.snapshot):
                    raise TornSnapshotError(f"step {order.step} was overwritten while it was read", "the next is taken")

        try:
            made = contents(order.sources, self._histories, self._run_id)
            committed = commit(
                self._run_dir / "checkpoints",
                run_id=self._run_id,
                lineage=order.lineage,
                step=order.step,
                world_size=len(order.sources),
                parts=made.parts(),
                confirm=confirm,
                clock=time.monotonic,
            )
        except Exception as error:  # every failed commit is an incident, and none may end the thread
            full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
            return Answer(order, None, f"{type(error).__name__}: {error}", full)
        final_problem = None
        if order.reason in ("final", "best"):
            try:
                self._still_owner()
                write_final_from(committed.path, self._run_dir)
            except Exception as error:
                final_problem = f"final/ could not be written: {error}"
        try:
            problem = self._retain()
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        return Answer(order, committed, problem, final_problem=final_problem)

    def _retain(self) -> str | None:
        intact = []
        for path in (self._run_dir / "checkpoints").glob("checkpoint-*"):
            verdict = read_manifest(path, self._run_id)
            if isinstance(verdict, Intact):
                intact.append((verdict.manifest.lineage, verdict.manifest.step, path))
        outcomes = [delete(path) for path in to_delete(intact, self._keep_last)]
        problems = [f"{o.path.name} could not be removed: {o.reason}" for o in outcomes if isinstance(o, NotDeleted)]
        return "; ".join(problems) or None
