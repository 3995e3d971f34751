"""Snapshots are taken into a real board, while a thread grants or refuses memory as the loop does."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from worker_samples import FREE_BYTES, granting, make_board, seat_at

from supervisor.board.pages import Orders, Reply
from supervisor.board.slots import SlotReader, Snapshot
from supervisor.board.store import Board
from supervisor.worker.capture import Tensors
from supervisor.worker.resume import Range
from supervisor.worker.snapshots import DTYPES, BoardRefusedError, SnapshotTaker

Files = dict[str, Tensors]


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    made = make_board(tmp_path)
    yield made
    made.remove()


def files(value: float = 1.0, **more: torch.Tensor) -> Files:
    adapter = {"a": torch.full((2, 3), value), "b": torch.full((4,), value, dtype=torch.bfloat16)}
    return {"adapter_model.safetensors": adapter | more, "optimizer.safetensors": {"m": torch.full((3,), -value)}}


def taker(board: Board, since: int = 0, attempt: int = 1) -> SnapshotTaker:
    return SnapshotTaker(seat_at(board, attempt), since)


def take(one: SnapshotTaker, step: int, told: Any = None, made: Files | None = None, *, trained: bool = False) -> None:
    told = {"step": step} if told is None else told
    began_s = time.perf_counter()
    tensors = made or files(float(step))
    one.take(step=step, trained=trained, files=tensors, told=told, history_bytes=0, began_s=began_s)


def found(board: Board) -> list[tuple[int, Snapshot, SlotReader]]:
    listed = []
    for generation, path in board.regions(0):
        reader = SlotReader(path)
        listed += [(generation, snapshot, reader) for snapshot in reader.snapshots()]
    return listed


def steps(board: Board) -> list[tuple[int, int]]:
    return [(generation, snapshot.header.step) for generation, snapshot, _ in found(board)]


def content(snapshot: Snapshot, file: str) -> Tensors:
    offset, size = snapshot.range_of(file)
    return dict(load(snapshot.path.read_bytes()[offset : offset + size]))


def test_the_newest_three_are_whole_and_are_safetensors_files(board: Board) -> None:
    one = taker(board)
    with granting(board) as asked:
        for step in range(1, 6):
            take(one, step, trained=step == 5)
    assert steps(board) == [(1, 5), (1, 4), (1, 3)]
    assert len(asked) == 1
    for _, snapshot, reader in found(board):
        step = snapshot.header.step
        assert json.loads(reader.text(snapshot) or b"") == {"step": step}
        assert content(snapshot, "adapter_model.safetensors")["a"].tolist() == [[step] * 3] * 2
        assert content(snapshot, "adapter_model.safetensors")["b"].dtype is torch.bfloat16
        assert content(snapshot, "optimizer.safetensors")["m"].tolist() == [-step] * 3
        assert snapshot.header.trained == (step == 5)
        assert (snapshot.header.attempt, snapshot.header.lineage) == (1, 0)


def test_the_first_snapshot_says_nothing_about_what_the_next_one_costs(board: Board) -> None:
    one = taker(board)
    with granting(board):
        take(one, 1)
        assert math.isnan(one.cost_s)
        take(one, 2)
        assert 0 < one.cost_s < 10


def test_a_refusal_is_raised_in_the_supervisors_words_with_the_size(board: Board) -> None:
    large = {"adapter_model.safetensors": {"a": torch.empty(FREE_BYTES // 8)}}
    with granting(board) as asked, pytest.raises(BoardRefusedError, match=r"local rank 0 needs 96\.\d MiB"):
        take(taker(board), 1, made=large)
    assert asked[0] > FREE_BYTES
    assert steps(board) == []


def test_after_a_refusal_smaller_memory_can_still_be_had(board: Board) -> None:
    one = taker(board)
    large = {"adapter_model.safetensors": {"a": torch.empty(FREE_BYTES // 8)}}
    with granting(board):
        with pytest.raises(BoardRefusedError):
            take(one, 1, made=large)
        take(one, 2)
    assert steps(board) == [(2, 2)]


@pytest.mark.parametrize(
    "changed",
    [
        files(2.0, c=torch.ones(1)),
        {"adapter_model.safetensors": {"a": torch.ones(2, 3)}},
        {**files(2.0), "optimizer.safetensors": {"m": torch.ones(4)}},
        {**files(2.0), "optimizer.safetensors": {"m": torch.ones(3, dtype=torch.float64)}},
        {**files(2.0), "optimizer.safetensors": {"v": torch.ones(3)}},
    ],
    ids=["more tensors", "fewer", "another shape", "another type", "another name"],
)
def test_another_layout_gets_a_new_generation_and_the_old_one_stays_whole(board: Board, changed: Files) -> None:
    one = taker(board)
    with granting(board) as asked:
        take(one, 1)
        take(one, 2, made=changed)
        take(one, 3, made=changed)
    assert len(asked) == 2
    assert steps(board) == [(2, 3), (2, 2), (1, 1)]
    old = found(board)[-1][1]
    assert content(old, "adapter_model.safetensors")["a"].tolist() == [[1.0] * 3] * 2


def test_json_that_outgrew_its_room_gets_a_new_generation(board: Board) -> None:
    one = taker(board)
    with granting(board) as asked:
        for step, size in ((1, 10), (2, 60_000), (3, 70_000), (4, 150_000), (5, 200_000)):
            take(one, step, {"x": "y" * size})
    assert steps(board) == [(2, 5), (2, 4), (2, 3), (1, 2), (1, 1)]
    assert len(asked) == 2
    assert [len(reader.text(s) or b"") for _, s, reader in found(board)][:2] == [200_008, 150_008]


def test_the_next_attempt_goes_on_in_the_same_region_and_not_over_the_newest(board: Board) -> None:
    with granting(board):
        one = taker(board)
        for step in (1, 2, 3):
            take(one, step)
    with granting(board) as asked:
        again = taker(board, since=3, attempt=2)
        take(again, 4)
    assert asked == []
    assert steps(board) == [(1, 4), (1, 3), (1, 2)]
    assert [s.header.attempt for _, s, _ in found(board)] == [2, 1, 1]
    assert content(found(board)[1][1], "adapter_model.safetensors")["a"].tolist() == [[3.0] * 3] * 2


def test_the_next_attempt_overwrites_what_is_newer_than_what_it_goes_on_from(board: Board) -> None:
    """Another rank had not come so far, so these steps are done again."""
    with granting(board):
        one = taker(board)
        for step in (1, 2, 3):
            take(one, step)
    with granting(board):
        take(taker(board, since=2, attempt=2), 3, made=files(30.0))
    assert [(s.header.step, s.header.attempt) for _, s, _ in found(board)] == [(3, 2), (2, 1), (1, 1)]


def test_the_next_attempt_with_another_layout_leaves_the_old_region_alone(board: Board) -> None:
    with granting(board):
        take(taker(board), 1)
    with granting(board) as asked:
        take(taker(board, since=1, attempt=2), 2, made=files(2.0, c=torch.ones(1)))
    assert len(asked) == 1
    assert steps(board) == [(2, 2), (1, 1)]


def test_a_region_that_was_granted_and_never_laid_out_is_not_gone_on_in(board: Board) -> None:
    board.allocate(0, 5, 8192)
    with granting(board) as asked:
        take(taker(board), 1)
    assert len(asked) == 1
    assert steps(board) == [(6, 1)]


def test_what_the_supervisor_holds_is_spared(board: Board) -> None:
    one = taker(board)
    with granting(board):
        take(one, 1)
        path = board.regions(0)[0][1]
    board.control.reply(0, Reply(granted=1, text=str(path), held_lineage=0, held_step=1))
    for step in range(2, 7):
        take(one, step)
    assert steps(board) == [(1, 6), (1, 5), (1, 1)]
    board.control.reply(0, Reply(granted=1, text=str(path)))
    board.control.reply(0, Reply(granted=1, text=str(path), held_step=-1))
    take(one, 7)
    assert steps(board) == [(1, 7), (1, 6), (1, 5)]


def test_a_step_of_which_a_checkpoint_is_due_waits_for_it(board: Board) -> None:
    board.control.give_orders(Orders(due_every=5, taken=0))
    one = taker(board)
    with granting(board):
        for step in range(4, 10):
            take(one, step)
        assert steps(board) == [(1, 9), (1, 8), (1, 5)]
        board.control.give_orders(Orders(due_every=5, taken=5))
        take(one, 10)
        take(one, 11)
    assert sorted(steps(board)) == [(1, 9), (1, 10), (1, 11)]


ODD = [torch.complex64, torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fnuz]


def sample(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    size = torch.empty(shape, dtype=dtype).nbytes
    raw = torch.arange(size, dtype=torch.uint8)
    return (raw % 2 if dtype is torch.bool else raw).view(dtype).reshape(shape)


def test_every_type_comes_back_bit_for_bit_from_the_byte_range_of_a_slot(board: Board) -> None:
    made = {
        f"{dtype} {shape}": sample(dtype, shape)
        for dtype in (*DTYPES, *ODD)
        for shape in ((3, 2), (1,))
    }  # fmt: skip
    made |= {
        "scalar": torch.tensor(1.5),
        "empty": torch.empty(0, 3),
        "odd empty": torch.empty(2, 0, dtype=torch.uint16),
    }
    made["transposed"] = torch.arange(6.0).reshape(2, 3).T
    with granting(board):
        take(taker(board), 1, made={"x.safetensors": made})
    (_, snapshot, _), *_ = found(board)
    offset, size = snapshot.range_of("x.safetensors")
    back = Range(snapshot.path, offset, size).tensors()
    assert set(back) == set(made)
    for name, tensor in made.items():
        assert (back[name].dtype, back[name].shape) == (tensor.dtype, tensor.shape), name
        assert raw(back[name]) == raw(tensor), name
    assert set(load(snapshot.path.read_bytes()[offset : offset + size])) == set(made)


def raw(tensor: torch.Tensor) -> list[int]:
    flat = tensor.contiguous().reshape(-1)
    values: list[int] = flat.view(torch.uint8).tolist() if flat.numel() else []
    return values


def test_tensors_of_a_range_are_private_to_whoever_reads_them(board: Board) -> None:
    with granting(board):
        take(taker(board), 1)
    (_, snapshot, _), *_ = found(board)
    told = Range(snapshot.path, *snapshot.range_of("optimizer.safetensors"))
    before = told.read()
    told.tensors()["m"].add_(1)
    assert told.read() == before


def test_a_range_is_copied_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(range(256)) * 40)
    Range(tmp_path / "source", 5000, 3000).copy_to(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (bytes(range(256)) * 40)[5000:8000]
    with pytest.raises(FileExistsError):
        Range(tmp_path / "source", 0, 1).copy_to(tmp_path / "copy")
    with pytest.raises(EOFError, match="source ends 1 bytes early"):
        Range(tmp_path / "source", 10_000, 241).copy_to(tmp_path / "short")
