"""The board seen as snapshots: which are whole on every rank, which one is held, who gets memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from supervisor.board.pages import Orders, Reply
from supervisor.board.regions import regions_in
from supervisor.board.slots import Identity, Key, SlotReader, Snapshot, common
from supervisor.board.store import Board
from supervisor.checkpoint.shards import shard_of
from supervisor.errors import SupervisorError


@dataclass(frozen=True, slots=True)
class Whole:
    """A snapshot that is whole on every rank of this node.

    Attributes:
        parts: one per local rank, in their order.
    """

    parts: tuple[Snapshot, ...]

    @property
    def key(self) -> Key:
        """(lineage, step)."""
        return self.parts[0].key

    @property
    def identity(self) -> Identity:
        """What it shares with the same snapshot of other nodes."""
        return self.parts[0].identity

    @property
    def step(self) -> int:
        """Settled steps it holds."""
        return self.parts[0].header.step

    @property
    def trained(self) -> bool:
        """Whether it is the state at the training's end."""
        return bool(self.parts[0].header.trained)

    @property
    def sharded(self) -> bool:
        """Whether ranks hold pieces of it, so that it is whole with all nodes only."""
        return any(shard_of(name) is not None for part in self.parts for name, _ in part.geometry.files)

    @property
    def diverged(self) -> bool:
        """Whether training had gone wrong by then on one of the ranks."""
        return any(part.header.diverged for part in self.parts)


@dataclass(slots=True)
class Memory:
    """What the supervisor does with its board.

    Attributes:
        board: the files.
        admit: asked before memory is granted, with the size of the region; raises to refuse.
        elsewhere: asks whether a snapshot is whole on the other nodes, too; on one node it always is.
        complete: asks whether no node is lost; with one its pieces of a sharded snapshot are.
        counts: asks whether a snapshot may be gone on from at all; what may not is as if it were not there.
    """

    board: Board
    admit: Callable[[int], None]
    elsewhere: Callable[[Identity], bool] = lambda _identity: True
    complete: Callable[[], bool] = lambda: True
    counts: Callable[[Whole], bool] = lambda _whole: True
    _readers: dict[Path, SlotReader] = field(default_factory=dict)
    _replies: list[Reply] = field(default_factory=list)
    _orders: Orders = field(default_factory=Orders)
    _held: Key | None = None
    _passed_over: set[Key] = field(default_factory=set)

    @property
    def ranks(self) -> range:
        """Local ranks."""
        return range(self.board.control.ranks)

    # -- orders and replies

    def begin_attempt(self, orders: Orders) -> None:
        """Clear the beats of the attempt before, and offer each rank the region it had.

        What a commit under way holds stays held. What the attempt resumes from needs no hold: it
        is the newest, and by the skew rule no rank overwrites it before all have a newer one.
        """
        self._orders = orders
        self.board.control.give_orders(orders)
        self._replies = []
        for rank in self.ranks:
            self.board.control.forget(rank)
            there = self.board.regions(rank)
            generation, path = there[0] if there else (0, "")
            lineage, step = self._held or (0, -1)
            self._replies.append(Reply(granted=generation, held_lineage=lineage, held_step=step, text=str(path)))
            self.board.control.reply(rank, self._replies[rank])

    def give_orders(self, **changes: int) -> None:
        """Change some of the orders."""
        changed = replace(self._orders, **changes)
        if changed != self._orders:
            self._orders = changed
            self.board.control.give_orders(changed)

    def _reply(self, rank: int, **changes: object) -> None:
        self._replies[rank] = replace(self._replies[rank], **changes)  # type: ignore[arg-type]
        self.board.control.reply(rank, self._replies[rank])

    @property
    def wished(self) -> bool:
        """Whether a rank asks for memory that it has not been answered about."""
        return any(
            self.board.control.beat(rank).wish > max(self._replies[rank].granted, self._replies[rank].refused)
            for rank in self.ranks
            if rank < len(self._replies)
        )

    def grant_wishes(self) -> tuple[bool, SupervisorError | None]:
        """Reserve memory for every rank that asked.

        Returns:
            Whether some was granted, and the first refusal, which the rank is told as well.
        """
        granted, refusal = False, None
        for rank in self.ranks:
            beat, reply = self.board.control.beat(rank), self._replies[rank]
            if beat.wish <= max(reply.granted, reply.refused):
                continue
            try:
                self.admit(beat.wish_bytes)
                # A resume makes one more copy of a snapshot; a region holds at least three.
                path = self.board.allocate(rank, beat.wish, beat.wish_bytes, spare=beat.wish_bytes // 3)
            except SupervisorError as error:
                refusal = refusal or error
                self._reply(rank, refused=beat.wish, text=str(error).encode()[:1500].decode(errors="ignore"))
                continue
            granted = True
            self._reply(rank, granted=beat.wish, text=str(path))
        return granted, refusal

    # -- snapshots

    def common(self) -> Whole | None:
        """The newest snapshot that is whole on every rank of every node."""
        return next(iter(self.everywhere()), None)

    def everywhere(self) -> Iterator[Whole]:
        """Every snapshot that counts and is whole on every rank of every node, newest first."""
        there = (whole for whole in self.wholes() if self.elsewhere(whole.identity))
        return (whole for whole in there if self.complete() or not whole.sharded)

    def wholes(self) -> list[Whole]:
        """Every snapshot that counts and is whole on every rank of this node, newest first."""
        per_rank = [[s for s in self._snapshots(rank) if s.key not in self._passed_over] for rank in self.ranks]
        return [whole for parts in common(per_rank) if self.counts(whole := Whole(tuple(parts)))]

    def pass_over(self, key: Key) -> None:
        """Count a snapshot as torn from now on: its bytes could not be read."""
        self._passed_over.add(key)

    def _snapshots(self, rank: int) -> list[Snapshot]:
        found: list[Snapshot] = []
        for _, path in self.board.regions(rank):
            if path not in self._readers:
                self._readers[path] = SlotReader(path)
            found += self._readers[path].snapshots()
        return found

    def reader(self, snapshot: Snapshot) -> SlotReader:
        """The open reader of a snapshot's region."""
        return self._readers[snapshot.path]

    def hold(self, whole: Whole) -> bool:
        """Have every rank spare this snapshot; False if one has overwritten it already."""
        self._held = whole.key
        for rank in self.ranks:
            if rank < len(self._replies):
                self._reply(rank, held_lineage=whole.key[0], held_step=whole.key[1])
        return self.unchanged(whole)

    def unchanged(self, whole: Whole) -> bool:
        """Whether it is still whole everywhere."""
        return all(self.reader(part).unchanged(part) for part in whole.parts)

    def release(self) -> None:
        """Let every rank overwrite what was held."""
        self._held = None
        for rank in self.ranks:
            if rank < len(self._replies) and self._replies[rank].held_step >= 0:
                self._reply(rank, held_step=-1)

    def tidy(self, whole: Whole, attempt: int) -> None:
        """Remove what older attempts and layouts left, once a newer snapshot is whole everywhere.

        An older attempt's snapshot may stand beside it still, and a run that goes back goes on from there: it needs
        the log history that it was taken with.
        """
        for rank, part in enumerate(whole.parts):
            generation = int(part.path.name.rpartition(".")[2])
            for older, path in self.board.regions(rank):
                if older < generation and path in self._readers:
                    self._readers.pop(path).close()
            self.board.drop_regions(rank, below=generation)
        needed = {part.header.attempt for rank in self.ranks for part in self._snapshots(rank)}
        for entry in self.board.directory.iterdir():
            kind, _, number = entry.name.partition("-")
            if kind == "resume" and number.isdigit() and int(number) <= attempt:
                shutil.rmtree(entry, ignore_errors=True)
            elif kind == "history" and number.isdigit() and int(number) < attempt and int(number) not in needed:
                entry.unlink(missing_ok=True)

    def close(self, *, remove: bool) -> None:
        """Let go of the board, and take its files away if nothing in it is needed any more."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
        if remove:
            self.board.remove()
        else:
            self.board.close()


def peek(directories: Sequence[Path], ranks: int, counts: Callable[[Whole], bool] = lambda _whole: True) -> Key | None:
    """Lineage and step of the newest snapshot that is whole on every rank of a board nobody owns; None without one.

    Changes nothing; for `supervisor plan`.

    Args:
        directories: of the run's boards on this machine, one or more of each node.
        ranks: of each node.
        counts: as in `Memory`.
    """
    per_rank: list[list[Snapshot]] = []
    for node in sorted({d.name for d in directories}):
        for rank in range(ranks):
            found: list[Snapshot] = []
            for _, path in (one for d in directories if d.name == node for one in regions_in(d, rank)):
                reader = SlotReader(path)
                found += reader.snapshots()
                reader.close()
            per_rank.append(found)
    wholes = (Whole(tuple(parts)) for parts in common(per_rank))
    return next((whole.key for whole in wholes if counts(whole)), None)
