"""A torn checkpoint is kept, out of the way, with the reason."""

import json
import os
from pathlib import Path

import pytest
from checkpoint_samples import commit_step, killed_everywhere, tree

from supervisor.checkpoint.aside import set_aside
from supervisor.checkpoint.refusals import StorageError

UTC = 1767323045.0  # 2026-01-02 03:04:05


def test_it_moves_as_it_is_and_the_reason_lies_beside_it(tmp_path: Path) -> None:
    path = commit_step(tmp_path / "checkpoints", 20).path
    before = tree(path)
    aside = set_aside(path, tmp_path / "torn", "state.json: missing", lambda: UTC)
    assert aside == tmp_path / "torn" / "checkpoint-20-20260102T030405Z"
    assert tree(aside) == before
    assert not path.exists()
    note = json.loads(aside.with_name(aside.name + ".json").read_text())
    assert note == {"checkpoint": str(path), "reason": "state.json: missing", "time": UTC}


def test_nothing_that_lies_there_is_replaced(tmp_path: Path) -> None:
    names = set()
    for _ in range(3):
        path = commit_step(tmp_path / "checkpoints", 20).path
        aside = set_aside(path, tmp_path / "torn", "x", lambda: UTC)
        assert aside is not None
        names.add(aside.name)
    stem = "checkpoint-20-20260102T030405Z"
    assert names == {stem, f"{stem}-2", f"{stem}-3"}
    assert len(os.listdir(tmp_path / "torn")) == 6


def test_the_note_of_one_does_not_touch_that_of_another(tmp_path: Path) -> None:
    for step in (20, 2):
        set_aside(commit_step(tmp_path, step).path, tmp_path / "torn", "x", lambda: UTC)
    assert len(os.listdir(tmp_path / "torn")) == 4


def test_what_is_not_there_needs_no_moving(tmp_path: Path) -> None:
    assert set_aside(tmp_path / "checkpoint-20", tmp_path / "torn", "x", lambda: UTC) is None
    assert os.listdir(tmp_path / "torn") == []


def test_a_refusal_leaves_it_where_it_was(tmp_path: Path) -> None:
    path = commit_step(tmp_path, 20).path
    before = tree(path)
    (tmp_path / "torn").write_bytes(b"")
    with pytest.raises(StorageError, match=r"setting .*checkpoint-20 aside: not a directory"):
        set_aside(path, tmp_path / "torn", "x", lambda: UTC)
    assert tree(path) == before


def test_killed_at_any_call_the_next_one_completes_it(tmp_path: Path) -> None:
    places = killed_everywhere(
        tmp_path,
        prepare="commit_step(here / 'checkpoints', 20)",
        act="set_aside(here / 'checkpoints' / 'checkpoint-20', here / 'torn', 'x', lambda: 0.0)",
    )
    assert places > 10
    for number in range(1, places + 2):
        root = tmp_path / str(number)
        set_aside(root / "checkpoints" / "checkpoint-20", root / "torn", "x", lambda: 0.0)
        stem = "checkpoint-20-19700101T000000Z"
        assert sorted(os.listdir(root / "torn")) == [stem, f"{stem}.json"], number
        assert json.loads((root / "torn" / f"{stem}.json").read_text())["reason"] == "x"
        assert len(os.listdir(root / "torn" / stem)) == 7
        assert os.listdir(root / "checkpoints") == []
