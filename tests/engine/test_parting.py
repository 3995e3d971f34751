"""A member's part of a checkpoint on its way to the leader: over a real line, from a real board."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine.crew_ends import Ends, ends_of

from supervisor.board.layout import SlotHeader, Tensor, image, region
from supervisor.board.slots import SlotWriter
from supervisor.board.store import Board
from supervisor.engine.members.messages import PARTED
from supervisor.engine.members.parting import AHEAD_BYTES, Parting
from supervisor.engine.state.assembly import TornSnapshotError
from supervisor.engine.state.memory import Memory
from supervisor.link.wire import BODY_LIMIT, Frame

SIZE = 24 << 20
NAME = "shard-1.model.safetensors"
IMAGES = {NAME: image([Tensor("t", "U8", (SIZE,), SIZE)])}
GEOMETRY = region(IMAGES, slots=3, json_bytes=64)


class Rank:
    """The one rank of a node, with as large a piece of a model."""

    def __init__(self, root: Path) -> None:
        self.memory = Memory(Board("run1", 1, (root,), lambda _: 1 << 40), admit=lambda _: None)
        place = self.memory.board.allocate(0, 1, GEOMETRY.total_bytes)
        self.writer = SlotWriter(place, GEOMETRY, IMAGES, since=0, populate=False)

    def take(self, step: int, content: bytes = b"") -> None:
        slot = self.writer.begin(lambda: None, lambda _: False)
        at = GEOMETRY.file_at(slot, NAME) + IMAGES[NAME].offsets["t"]
        self.writer.memory[at : at + len(content)] = content
        self.writer.finish(slot, SlotHeader(0, 0, step, 1, 0, 0, 0, 0, 0.0), b'{"rank":{"rng":"00"}}')


@pytest.fixture
def rank(tmp_path: Path) -> Iterator[Rank]:
    made = Rank(tmp_path)
    yield made
    made.writer.close()
    made.memory.close(remove=True)


def asked(ends: Ends) -> int:
    """Number of a part that the leader has asked for."""
    ends.join(1)
    ends.crew.gather((0, 7, 0, 1))
    return ends.until(lambda: (told := ends.told(1)) and told.part and told.part[0], "wish for a part")


def test_it_leaves_no_faster_than_the_line_takes_it_and_comes_whole(rank: Rank) -> None:
    content = os.urandom(SIZE)
    rank.take(7, content)
    (whole,) = rank.memory.wholes()
    with ends_of(2) as ends:
        number = asked(ends)
        part = Parting.begin(number, rank.memory, whole, 1, ends.lines[1])
        turns = 0
        while not part.go_on():
            assert ends.lines[1].waiting_bytes < AHEAD_BYTES + 2 * BODY_LIMIT
            turns += 1
            ends.pump()
        part.close()
        ends.lines[1].send(Frame(PARTED, {"number": number, "problem": None, "again": False}))
        gathering = ends.crew.gathering
        assert gathering is not None
        ends.until(lambda: not gathering.awaited, "all of it")
        (share,) = gathering.shares()
    assert (share.rank, share.told) == (1, {"rng": "00"})
    (file,) = share.files
    assert (file.name, file.size) == (NAME, IMAGES[NAME].size)
    assert b"".join(map(bytes, file.pieces())).endswith(content)
    assert turns > 3


def test_what_was_overwritten_before_it_could_be_held_is_not_sent(rank: Rank) -> None:
    rank.take(7)
    (whole,) = rank.memory.wholes()
    for step in (8, 9, 10):
        rank.take(step)
    with ends_of(2) as ends, pytest.raises(TornSnapshotError, match="overwritten before it could be held"):
        Parting.begin(asked(ends), rank.memory, whole, 1, ends.lines[1])
