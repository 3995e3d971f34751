"""What a board keeps once training has moved on from what it resumed from."""

from __future__ import annotations

from pathlib import Path

from supervisor.board.layout import SlotHeader, Tensor, image, region
from supervisor.board.slots import SlotWriter
from supervisor.board.store import Board
from supervisor.engine.state.memory import Memory

IMAGES = {"t.safetensors": image([Tensor("t", "F32", (8,), 32)])}
GEOMETRY = region(IMAGES, slots=3, json_bytes=64)


def plenty(root: Path) -> int:
    return 1 << 40


def take(writer: SlotWriter, step: int, attempt: int) -> None:
    slot = writer.begin(lambda: None, lambda _: False)
    writer.finish(slot, SlotHeader(0, attempt - 1, step, attempt, 0, 0, 0, 0, 0.0), b"{}")


def test_a_log_history_stays_as_long_as_a_snapshot_needs_it_to_go_back_to(tmp_path: Path) -> None:
    memory = Memory(Board("run1", 1, (tmp_path,), plenty), admit=lambda _: None)
    writer = SlotWriter(memory.board.allocate(0, 1, 1 << 20), GEOMETRY, IMAGES, since=0, populate=False)
    histories = [memory.board.directory / f"history-{attempt}" for attempt in (1, 2)]
    for path in histories:
        path.touch()
    take(writer, 6, attempt=1)
    take(writer, 7, attempt=2)
    memory.tidy(memory.wholes()[0], 2)
    assert [path.exists() for path in histories] == [True, True]
    for step in (8, 9):
        take(writer, step, attempt=2)
    memory.tidy(memory.wholes()[0], 2)
    assert [path.exists() for path in histories] == [False, True]
    writer.close()
    memory.close(remove=True)
