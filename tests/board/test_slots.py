"""The invariant of `supervisor.board`, against real files: whatever dies, a step that is whole everywhere is left."""

import shutil
import tempfile
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from supervisor.board.layout import SlotHeader, Tensor, image, region
from supervisor.board.slots import Key, SlotReader, SlotWriter, Snapshot, common, victim

FILE = "adapter_model.safetensors"
IMAGES = {FILE: image([Tensor("t", "U8", (96,), 96)])}


def content(rank: int, attempt: int, step: int) -> bytes:
    return sha256(f"{rank} {attempt} {step}".encode()).digest() * 3


def header(lineage: int, step: int, attempt: int, trained: int = 0) -> SlotHeader:
    return SlotHeader(0, lineage, step, attempt, trained, 0, 0, 0, 0.0)


def nobody_holds() -> None:
    return None


def never_due(step: int) -> bool:
    return False


class Rank:
    """One rank as the machine plays it: a copy is begun, goes on for a while, and is finished or never."""

    def __init__(self, number: int, directory: Path, slots: int) -> None:
        self.number, self.directory, self.slots = number, directory, slots
        self.generation = 0
        self.writer: SlotWriter | None = None
        self.copying: tuple[int, int] | None = None  # slot, step
        self.alive, self.grows = True, False
        self.begun = self.whole = 0

    def path(self) -> Path:
        return self.directory / f"rank-{self.number}.{self.generation}"

    def paths(self) -> list[Path]:
        return sorted(self.directory.glob(f"rank-{self.number}.*"), reverse=True)

    def open(self, since: int) -> SlotWriter:
        if self.writer is None or self.grows:
            if self.grows or not self.path().exists():
                self.generation += 1
            geometry = region(IMAGES, slots=self.slots, json_bytes=100 + self.generation)
            if not self.path().exists():
                self.path().write_bytes(bytes(geometry.total_bytes))
            if self.writer is not None:
                self.writer.close()
            self.writer, self.grows = SlotWriter(self.path(), geometry, IMAGES, since=since, populate=False), False
        return self.writer

    def copy(self, attempt: int, half: int) -> None:
        assert self.writer is not None
        assert self.copying is not None
        slot, step = self.copying
        at = self.writer.geometry.file_at(slot, FILE) + IMAGES[FILE].offsets["t"] + 48 * half
        self.writer.memory[at : at + 48] = content(self.number, attempt, step)[48 * half : 48 * half + 48]

    def die(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.writer, self.copying = None, None


class Board(RuleBasedStateMachine):
    """Ranks that obey the skew of data-parallel training and nothing else; a reader that comes at any moment."""

    @initialize(
        ranks=st.integers(1, 3), overlap=st.booleans(), due_every=st.sampled_from([0, 1, 2, 3]), first=st.integers(0, 1)
    )
    def start(self, ranks: int, overlap: bool, due_every: int, first: int) -> None:
        self.directory = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.ranks = [Rank(r, self.directory, 4 if overlap else 3) for r in range(ranks)]
        self.overlap, self.due_every, self.taken = overlap, due_every, 0
        self.attempt, self.lineage, self.since = first, 0, 0
        self.held: Key | None = None
        self.reading: list[Snapshot] | None = None
        self.readers: dict[Path, SlotReader] = {}
        self.newest: Key | None = None

    def teardown(self) -> None:
        for reader in getattr(self, "readers", {}).values():
            reader.close()
        for rank in getattr(self, "ranks", []):
            rank.die()
        if hasattr(self, "directory"):
            shutil.rmtree(self.directory)

    # -- ranks

    def may_begin(self, rank: Rank) -> bool:
        step = rank.begun + 1
        joined = [other.begun if self.overlap else other.whole for other in self.ranks]
        return rank.alive and rank.copying is None and min(joined) >= step - 1

    def begin(self, rank: Rank, *, reader_comes: bool = False) -> None:
        asked: list[Key | None] = []

        def held() -> Key | None:
            if reader_comes and len(asked) == 1:  # just after the slot was marked
                self.take_hold()
            asked.append(self.held)
            return self.held

        def due(step: int) -> bool:
            return bool(self.due_every) and step > self.taken and step % self.due_every == 0

        slot = rank.open(self.since).begin(held, due)
        rank.begun += 1
        rank.copying = (slot, rank.begun)

    def finish(self, rank: Rank) -> None:
        assert rank.writer is not None
        assert rank.copying is not None
        slot, step = rank.copying
        rank.copy(self.attempt, 0)
        rank.copy(self.attempt, 1)
        text = f"{rank.number} {self.attempt} {step}".encode()
        rank.writer.finish(slot, header(self.lineage, step, self.attempt), text)
        rank.copying, rank.whole = None, step

    @precondition(lambda self: any(self.may_begin(r) for r in self.ranks))
    @rule(data=st.data(), reader_comes=st.booleans(), copied=st.integers(0, 3))
    def one_rank_takes_a_snapshot(self, data: st.DataObject, reader_comes: bool, copied: int) -> None:
        rank = data.draw(st.sampled_from([r for r in self.ranks if self.may_begin(r)]))
        self.begin(rank, reader_comes=reader_comes)
        for half in range(min(copied, 2)):
            rank.copy(self.attempt, half)
        if copied == 3:
            self.finish(rank)

    @precondition(lambda self: any(r.copying for r in self.ranks))
    @rule(data=st.data())
    def one_rank_finishes_its_copy(self, data: st.DataObject) -> None:
        self.finish(data.draw(st.sampled_from([r for r in self.ranks if r.copying])))

    @rule(turns=st.integers(1, 4), first=st.integers(0, 2))
    def all_go_on(self, turns: int, first: int) -> None:
        for turn in range(turns * len(self.ranks)):
            rank = self.ranks[(first + turn) % len(self.ranks)]
            if rank.copying:
                self.finish(rank)
            elif self.may_begin(rank):
                self.begin(rank)
                self.finish(rank)

    @precondition(lambda self: any(r.alive and not r.copying for r in self.ranks))
    @rule(data=st.data())
    def outgrow_the_layout(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from([r for r in self.ranks if r.alive and not r.copying])).grows = True

    @precondition(lambda self: any(r.alive for r in self.ranks))
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        """Its peers go on until they wait for it."""
        rank = data.draw(st.sampled_from([r for r in self.ranks if r.alive]))
        rank.die()
        rank.alive = False

    @rule(
        new_lineage=st.booleans(), keeps_hold=st.booleans(), ahead=st.lists(st.integers(-1, 2), min_size=1, max_size=4)
    )
    def restart(self, new_lineage: bool, keeps_hold: bool, ahead: list[int]) -> None:
        """All ranks are killed, and go on from the newest common step; again and again, with one rank ahead."""
        self.lineage += new_lineage
        if not keeps_hold:
            self.release()
        for leader in ahead:
            whole = self.common()
            self.attempt += 1
            self.since = whole[0].header.step if whole else 0
            for rank in self.ranks:
                rank.die()
                rank.alive, rank.grows = True, False
                rank.begun = rank.whole = self.since
            if 0 <= leader < len(self.ranks):
                self.begin(self.ranks[leader])
                self.finish(self.ranks[leader])

    # -- the reader

    def snapshots(self, rank: Rank) -> list[Snapshot]:
        found: list[Snapshot] = []
        for path in rank.paths():
            if path not in self.readers:
                self.readers[path] = SlotReader(path)
            found += self.readers[path].snapshots()
        return found

    def common(self, every: int = 1) -> list[Snapshot] | None:
        return next(
            iter(common([[s for s in self.snapshots(r) if s.header.step % every == 0] for r in self.ranks])), None
        )

    def take_hold(self, every: int = 1) -> None:
        whole = self.common(every)
        if whole is None or self.reading is not None:
            return
        self.held = whole[0].key
        if all(self.readers[s.path].unchanged(s) for s in whole):
            self.reading = whole

    @rule(only_due=st.booleans())
    def hold(self, only_due: bool) -> None:
        self.take_hold(self.due_every if only_due and self.due_every else 1)
        if self.reading is not None:
            self.taken = max(self.taken, self.reading[0].header.step)

    @rule()
    def release(self) -> None:
        self.held = self.reading = None

    @precondition(lambda self: self.reading is None)
    @rule()
    def tidy(self) -> None:
        for rank, part in zip(self.ranks, self.common() or [], strict=False):
            for path in rank.paths():
                if path < part.path:
                    self.readers.pop(path).close()
                    path.unlink()

    # -- what must always be so

    def is_right(self, rank: Rank, snapshot: Snapshot) -> bool:
        reader, told = self.readers[snapshot.path], snapshot.header
        offset, size = snapshot.range_of(FILE)
        raw = snapshot.path.read_bytes()[offset : offset + size]
        whole = IMAGES[FILE].header + content(rank.number, told.attempt, told.step)
        text = f"{rank.number} {told.attempt} {told.step}".encode()
        return raw == whole and reader.text(snapshot) == text and reader.unchanged(snapshot)

    @invariant()
    def a_step_that_is_whole_on_every_rank_is_never_lost(self) -> None:
        whole = self.common()
        if whole is None:
            assert self.newest is None
            assert min(r.whole for r in self.ranks) == 0
            return
        assert self.newest is None or whole[0].key >= self.newest
        assert whole[0].header.step >= min(r.whole for r in self.ranks)
        assert len({s.header.attempt for s in whole}) == 1
        self.newest = whole[0].key

    @invariant()
    def whatever_looks_whole_is_whole(self) -> None:
        for rank in self.ranks:
            assert all(self.is_right(rank, snapshot) for snapshot in self.snapshots(rank))

    @invariant()
    def what_is_held_stays_as_it_is(self) -> None:
        for rank, part in zip(self.ranks, self.reading or [], strict=False):
            assert self.is_right(rank, part)


TestBoard = Board.TestCase
TestBoard.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def writer_at(path: Path, *, slots: int = 3, since: int = 0, json_bytes: int = 64) -> SlotWriter:
    geometry = region(IMAGES, slots=slots, json_bytes=json_bytes)
    if not path.exists():
        path.write_bytes(bytes(geometry.total_bytes))
    return SlotWriter(path, geometry, IMAGES, since=since, populate=True)


def take(writer: SlotWriter, step: int, *, held: Key | None = None, due=never_due, trained: int = 0) -> int:
    slot = writer.begin(lambda: held, due)
    writer.finish(slot, header(0, step, 1, trained), b"{}")
    return slot


def steps(path: Path) -> list[int]:
    reader = SlotReader(path)
    try:
        return [s.header.step for s in reader.snapshots()]
    finally:
        reader.close()


def test_the_last_three_steps_are_there_newest_first(tmp_path: Path) -> None:
    writer = writer_at(tmp_path / "rank-0.1")
    for step in range(1, 6):
        take(writer, step)
    assert steps(tmp_path / "rank-0.1") == [5, 4, 3]


def test_a_reopened_region_goes_on_over_its_oldest_slot(tmp_path: Path) -> None:
    path = tmp_path / "rank-0.1"
    writer = writer_at(path)
    for step in (1, 2, 3):
        take(writer, step)
    writer.close()
    again = writer_at(path, since=3)
    again.begin(nobody_holds, never_due)  # and dies
    assert steps(path) == [3, 2]


def test_what_belongs_to_a_dead_branch_is_overwritten_first(tmp_path: Path) -> None:
    path = tmp_path / "rank-0.1"
    writer = writer_at(path)
    for step in (1, 2, 3):
        take(writer, step)
    again = writer_at(path, since=2)
    again.begin(nobody_holds, never_due)
    assert steps(path) == [2, 1]


def test_a_due_step_is_spared_until_its_checkpoint_is_begun(tmp_path: Path) -> None:
    path, taken = tmp_path / "rank-0.1", 0

    def due(step: int) -> bool:
        return step > taken and step % 4 == 0

    writer = writer_at(path)
    for step in range(1, 8):
        take(writer, step, due=due)
    assert sorted(steps(path)) == [4, 6, 7]
    taken = 4
    for step in (8, 9):
        take(writer, step, due=due)
    assert sorted(steps(path)) == [7, 8, 9]


def test_a_training_that_ended_where_it_was_resumed_goes_on_while_its_step_is_held(tmp_path: Path) -> None:
    writer = writer_at(tmp_path / "rank-0.1")
    take(writer, 5)
    take(writer, 5, trained=1)
    longer = writer_at(tmp_path / "rank-0.1", since=5)
    for step in (6, 7, 8):
        take(longer, step, held=(0, 5))
    assert steps(tmp_path / "rank-0.1") == [8, 7, 5]


def test_a_hold_that_comes_while_a_slot_is_chosen_is_honoured(tmp_path: Path) -> None:
    writer = writer_at(tmp_path / "rank-0.1")
    for step in (1, 2, 3):
        take(writer, step)
    holds: list[Key | None] = [None, (0, 1), (0, 1), (0, 1)]
    slot = writer.begin(lambda: holds.pop(0), never_due)
    assert steps(tmp_path / "rank-0.1") == [3, 1]
    writer.finish(slot, header(0, 4, 1), b"{}")
    assert steps(tmp_path / "rank-0.1") == [4, 3, 1]


def test_with_four_slots_the_two_newest_are_spared_from_holds_and_due_steps() -> None:
    def slot(sequence: int) -> SlotHeader:
        return SlotHeader(sequence, 0, sequence, 1, 0, 0, 0, 0, 0.0)

    headers = [slot(n) for n in (4, 5, 6, 7)]
    assert victim(headers, held=(0, 4), due=lambda step: step == 5) == 1


def test_a_json_part_that_outgrew_its_area_is_refused_and_the_slot_stays_torn(tmp_path: Path) -> None:
    writer = writer_at(tmp_path / "rank-0.1", json_bytes=8)
    slot = writer.begin(nobody_holds, never_due)
    with pytest.raises(ValueError, match="9 bytes of JSON, room for 8"):
        writer.finish(slot, header(0, 1, 1), b"123456789")
    assert steps(tmp_path / "rank-0.1") == []


def test_a_changed_json_part_is_told_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "rank-0.1"
    writer = writer_at(path)
    slot = take(writer, 1)
    reader = SlotReader(path)
    (snapshot,) = reader.snapshots()
    assert reader.text(snapshot) == b"{}"
    writer.memory[writer.geometry.json_at(slot)] = 0
    assert reader.text(snapshot) is None
    reader.close()


def test_an_end_of_training_counts_only_if_it_is_that_on_every_rank(tmp_path: Path) -> None:
    found = []
    for rank, trained in enumerate((0, 1)):
        path = tmp_path / f"rank-{rank}.1"
        writer = writer_at(path)
        take(writer, 8)
        take(writer, 9, trained=trained)
        reader = SlotReader(path)
        found.append(reader.snapshots())
        reader.close()
    assert [[s.header.step for s in one] for one in common(found)] == [[8, 8]]
    assert common([]) == []


def test_neither_side_follows_a_link(tmp_path: Path) -> None:
    writer_at(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match="symbolic link"):
        SlotReader(tmp_path / "link")
    with pytest.raises(OSError, match="symbolic link"):
        writer_at(tmp_path / "link")
