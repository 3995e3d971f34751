"""From the board to disk, on a thread that the loop never waits for.

A checkpoint is put together from the slots of all ranks: the tensor files are byte ranges,
the JSON files are merged from the JSON parts. No torch is needed, and no help of a worker,
so it works while the workers evaluate, hang, or are dead.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from supervisor.board.footprint import Footprint
from supervisor.checkpoint.commit import Committed, commit
from supervisor.checkpoint.contents import ADAPTER, ADAPTER_CONFIG, MODEL
from supervisor.checkpoint.final import FINAL, write_final
from supervisor.checkpoint.parts import part_from_range
from supervisor.checkpoint.retain import Keep
from supervisor.engine.state.assembly import Share, Source, TornSnapshotError, contents
from supervisor.engine.state.full_disk import Done, is_full, with_room
from supervisor.engine.state.retention import Retention
from supervisor.engine.state.sizes import Sizes

T = TypeVar("T")

ADAPTER_FILES = (ADAPTER, ADAPTER_CONFIG, MODEL)


@dataclass(frozen=True, slots=True)
class Order:
    """A commit to be made.

    Attributes:
        reason: ``periodic``, ``safety``, ``emergency``, ``final``, ``best`` (final, and the program loaded its best
            model), or ``evaluated`` (it was measured best so far).
        sources: the snapshot, one per rank; held until the answer.
        stall_s: what the snapshot cost training [s], None while unknown.
        world_size: ranks in all; None for those of this node.
        others: of ranks of other nodes.
        lost: ranks whose own state went with their node.
    """

    reason: str
    sources: tuple[Source, ...]
    stall_s: float | None
    world_size: int | None = None
    others: tuple[Share, ...] = ()
    lost: tuple[int, ...] = ()

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
        full: whether there is no checkpoint, or no `final/`, for lack of room.
        final_problem: why `final/` could not be written; None if it was, or was not due.
        gave: names of what was deleted since the disk was full.
        warnings: what is to be said of the size of checkpoints, and has not been; with the first one only.
    """

    order: Order
    committed: Committed | None
    problem: str | None
    full: bool = False
    final_problem: str | None = None
    gave: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def write_final_from(checkpoint: Path, run_dir: Path) -> None:
    """Write `final/` with the adapter of a committed checkpoint.

    Raises:
        DiskError: the file system refused; an older `final/` is as it was.
    """
    files = [checkpoint / name for name in ADAPTER_FILES if (checkpoint / name).is_file()]
    write_final(run_dir / FINAL, [part_from_range(f.name, f, 0, f.stat().st_size) for f in files])


class Committer:
    """One thread that commits, retains, and writes the final adapter.

    Attributes:
        fd: readable when an answer is there; for `select`.
        retention: what stays after each.
    """

    def __init__(
        self, run_dir: Path, run_id: str, histories: Path, *, keep: Keep, still_owner: Callable[[], None]
    ) -> None:
        self._run_dir, self._run_id, self._histories = run_dir, run_id, histories
        self.retention, self._still_owner = Retention(run_dir, run_id, keep), still_owner
        self._sizes = Sizes(run_dir / "checkpoints", lambda: self.retention.keep.count)
        self._orders: queue.SimpleQueue[Order | Footprint | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._warnings: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.fd, self._bell = os.pipe()
        os.set_blocking(self.fd, False)
        self._thread = threading.Thread(target=self._work, name="commits", daemon=True)
        self._thread.start()

    def submit(self, order: Order) -> None:
        """Have a commit made; its answer comes later."""
        self._orders.put(order)

    def foresee(self, foot: Footprint) -> None:
        """Have it looked at whether checkpoints of this size have room, and make sense; see `warnings`."""
        self._orders.put(foot)

    def warnings(self) -> list[str]:
        """What there is to say of checkpoints to come."""
        found = []
        while not self._warnings.empty():
            found.append(self._warnings.get())
        return found

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
        self.retention.open()
        while (asked := self._orders.get()) is not None:
            if isinstance(asked, Order):
                self._answers.put(self._make(asked))
            else:
                for words in self._sizes.foreseen(asked):
                    self._warnings.put(words)
            os.write(self._bell, b"!")

    def _make(self, order: Order) -> Answer:
        try:
            done = self._with_room(lambda: self._commit(order))
        except Exception as error:  # every failed commit is an incident, and none may end the thread
            return Answer(order, None, f"{type(error).__name__}: {error}", is_full(error))
        committed, gave, final_problem, full = done.result, done.gave, None, False
        if order.reason in ("final", "best"):
            try:
                gave += self._with_room(lambda: self._final(committed)).gave
            except Exception as error:
                final_problem, full = f"final/ could not be written: {error}", is_full(error)
        try:
            problem = self.retention.apply()
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        warnings = self._sizes.measured(committed)
        return Answer(order, committed, problem, full, final_problem, gave, warnings)

    def _with_room(self, work: Callable[[], T]) -> Done[T]:
        return with_room(work, self._run_dir / "checkpoints", self._run_id, self.retention.make_room)

    def _commit(self, order: Order) -> Committed:
        def confirm() -> None:
            self._still_owner()
            for source in order.sources:
                if not source.reader.unchanged(source.snapshot):
                    raise TornSnapshotError(f"step {order.step} was overwritten while it was read", "the next is taken")

        made = contents(
            order.sources,
            self._histories,
            self._run_id,
            world_size=order.world_size,
            others=order.others,
            lost=order.lost,
        )
        return commit(
            self._run_dir / "checkpoints",
            run_id=self._run_id,
            lineage=order.lineage,
            step=order.step,
            world_size=order.world_size or len(order.sources),
            parts=made.parts(),
            confirm=confirm,
            clock=time.monotonic,
            health=made.health,
        )

    def _final(self, committed: Committed) -> None:
        self._still_owner()
        write_final_from(committed.path, self._run_dir)
