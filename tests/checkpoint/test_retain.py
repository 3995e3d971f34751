"""What goes is never needed, and it goes whole."""

import os
from pathlib import Path

import pytest
from checkpoint_samples import RUN, commit_step, killed_everywhere
from hypothesis import given
from hypothesis import strategies as st

from supervisor.checkpoint.retain import Deleted, NotDeleted, delete, to_delete
from supervisor.checkpoint.sweep import sweep_partials
from supervisor.checkpoint.verify import Intact, verify

checkpoints = st.dictionaries(st.integers(0, 300), st.integers(0, 3), max_size=20).map(
    lambda lineages: [(lineage, step, Path(str(step))) for step, lineage in lineages.items()]
)
keeps = st.integers(2, 6)
everys = st.none() | st.integers(1, 100)


@given(checkpoints, keeps, everys, st.sets(st.integers(0, 300).map(lambda step: Path(str(step)))))
def test_the_newest_the_protected_and_the_milestones_stay(
    intact: list[tuple[int, int, Path]], keep_last: int, keep_every: int | None, protected: set[Path]
) -> None:
    gone = to_delete(intact, keep_last, keep_every, protected)
    stay = [each for each in intact if each[2] not in gone]
    assert len(stay) >= min(len(intact), keep_last)
    assert set(sorted(intact)[-keep_last:]) <= set(stay)
    assert not protected & set(gone)
    if keep_every:
        assert {path for _, step, path in intact if step and step % keep_every == 0}.isdisjoint(gone)
    ages = {path: (lineage, step) for lineage, step, path in intact}
    assert [ages[path] for path in gone] == sorted(ages[path] for path in gone), "oldest first"


@given(checkpoints, keeps, st.sets(st.integers(0, 300).map(lambda step: Path(str(step)))))
def test_the_last_good_ones_stay_however_many_come_after_training_went_wrong(
    intact: list[tuple[int, int, Path]], keep_last: int, diverged: set[Path]
) -> None:
    gone = to_delete(intact, keep_last, diverged=diverged)
    good = [each[2] for each in sorted(intact) if each[2] not in diverged]
    assert not set(good[-2:]) & set(gone)
    assert set(gone) <= set(to_delete(intact, keep_last))


@given(checkpoints, keeps, everys)
def test_the_order_of_the_arguments_does_not_matter_and_twice_is_once(
    intact: list[tuple[int, int, Path]], keep_last: int, keep_every: int | None
) -> None:
    gone = to_delete(intact, keep_last, keep_every)
    assert to_delete(intact[::-1], keep_last, keep_every) == gone
    left = [each for each in intact if each[2] not in gone]
    assert to_delete(left, keep_last, keep_every) == []


@given(checkpoints, keeps)
def test_without_wishes_no_more_than_the_last_stay(intact: list[tuple[int, int, Path]], keep_last: int) -> None:
    assert len(intact) - len(to_delete(intact, keep_last)) == min(len(intact), keep_last)


def test_a_milestone_is_the_first_checkpoint_at_or_after_it() -> None:
    intact = [(0, step, Path(str(step))) for step in (990, 1010, 1990, 2000, 2500, 3100, 3200, 3300)]
    assert to_delete(intact, 2, 1000) == [Path("990"), Path("1990"), Path("2500")]


@pytest.mark.parametrize("keep_last", [-1, 0, 1])
def test_fewer_than_two_are_never_kept(keep_last: int) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        to_delete([], keep_last)


def test_a_deleted_checkpoint_is_gone(tmp_path: Path) -> None:
    path = commit_step(tmp_path, 10).path
    (path / "extra").mkdir()
    assert delete(path) == Deleted(path)
    assert os.listdir(tmp_path) == []
    assert delete(path) == Deleted(path), "what is gone is gone"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    path = commit_step(tmp_path / "elsewhere", 10).path
    link = tmp_path / "checkpoint-10"
    link.symlink_to(path)
    delete(link)
    assert os.listdir(tmp_path) == ["elsewhere"]
    assert isinstance(verify(path, RUN), Intact)


def test_what_cannot_be_deleted_is_reported_and_not_raised(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = tmp_path / "file" / "checkpoint-10"
    outcome = delete(path)
    assert isinstance(outcome, NotDeleted)
    assert "Not a directory" in outcome.reason


def test_killed_at_any_call_it_is_whole_or_gone_and_the_rest_is_swept(tmp_path: Path) -> None:
    places = killed_everywhere(
        tmp_path,
        prepare="(commit_step(here, 10), commit_step(here, 20))",
        act="delete(here / 'checkpoint-10')",
    )
    assert places > 10
    for number in range(1, places + 2):
        root = tmp_path / str(number)
        assert isinstance(verify(root / "checkpoint-20", RUN), Intact)
        if (root / "checkpoint-10").exists():
            assert isinstance(verify(root / "checkpoint-10", RUN), Intact)
        sweep_partials(root)
        assert set(os.listdir(root)) <= {"checkpoint-10", "checkpoint-20"}
