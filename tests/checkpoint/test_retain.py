"""What goes is never needed, and it goes whole."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoint_samples import ROOT, RUN, commit_step, killed_everywhere
from hypothesis import given
from hypothesis import strategies as st

from supervisor.checkpoint.evaluations import Measured
from supervisor.checkpoint.reading import reading
from supervisor.checkpoint.retain import (
    Best,
    Deleted,
    InUse,
    Keep,
    NotDeleted,
    Standing,
    best_of,
    delete,
    to_delete,
    why_kept,
)
from supervisor.checkpoint.sweep import sweep_partials
from supervisor.checkpoint.verify import Intact, verify
from supervisor.errors import DiskError
from supervisor.policy.schedule import Seconds, Steps

measures = st.none() | st.builds(Measured, st.sampled_from([0.1, 0.2, 0.3]), st.integers(0, 300))
details = st.tuples(st.integers(0, 3), st.floats(0, 1e5), st.booleans(), measures)
checkpoints = st.dictionaries(st.integers(0, 300), details, max_size=20).map(
    lambda told: [
        Standing(lineage, step, Path(str(step)), time_s, diverged, measured)
        for step, (lineage, time_s, diverged, measured) in told.items()
    ]
)
bests = st.builds(Best, st.just("eval_loss"), st.sampled_from(["min", "max"]), st.integers(1, 4))
everys = st.none() | st.builds(Steps, st.integers(1, 100)) | st.builds(Seconds, st.floats(10, 1e5))
keeps = st.builds(Keep, last=st.integers(2, 6), every=everys, best=st.none() | bests)


def newest_last(standing: list[Standing]) -> list[Standing]:
    return sorted(standing, key=lambda one: (one.lineage, one.step))


@given(checkpoints, keeps)
def test_the_newest_the_milestones_and_the_best_stay(standing: list[Standing], keep: Keep) -> None:
    gone = to_delete(standing, keep)
    assert not {one.path for one in newest_last(standing)[-keep.last :]} & set(gone)
    if isinstance(keep.every, Steps):
        assert {one.path for one in standing if one.step and one.step % keep.every.n == 0}.isdisjoint(gone)
    if keep.best is not None:
        known = [one for one in standing if one.measured is not None and not one.diverged]
        values = sorted(keep.best.key(one.measured.value) for one in known if one.measured is not None)
        left = [one for one in known if one.path not in gone and one.measured is not None]
        kept = sorted(keep.best.key(one.measured.value) for one in left if one.measured is not None)
        assert kept[: keep.best.count] == values[: keep.best.count]
    ages = {one.path: (one.lineage, one.step) for one in standing}
    assert [ages[path] for path in gone] == sorted(ages[path] for path in gone), "oldest first"


@given(checkpoints, keeps)
def test_the_last_good_ones_stay_however_many_come_after_training_went_wrong(
    standing: list[Standing], keep: Keep
) -> None:
    good = [one.path for one in newest_last(standing) if not one.diverged]
    assert not set(good[-2:]) & set(to_delete(standing, keep))


@given(checkpoints, keeps)
def test_the_order_of_the_arguments_does_not_matter_and_twice_is_once(standing: list[Standing], keep: Keep) -> None:
    gone = to_delete(standing, keep)
    assert to_delete(standing[::-1], keep) == gone
    left = [one for one in standing if one.path not in gone]
    assert to_delete(left, keep) == []


@given(checkpoints, st.integers(2, 6))
def test_without_wishes_no_more_than_the_last_stay(standing: list[Standing], last: int) -> None:
    sound = [replace(one, diverged=False) for one in standing]
    assert len(sound) - len(to_delete(sound, Keep(last=last))) == min(len(sound), last)


def at(*steps: int) -> list[Standing]:
    return [Standing(0, step, Path(str(step)), time_s=step * 10.0) for step in steps]


def test_a_milestone_is_the_first_checkpoint_at_or_after_it() -> None:
    standing = at(990, 1010, 1990, 2000, 2500, 3100, 3200, 3300)
    assert to_delete(standing, Keep(last=2, every=Steps(1000))) == [Path("990"), Path("1990"), Path("2500")]
    by_clock = Keep(last=2, every=Seconds(10_000.0))
    assert to_delete(standing, by_clock) == to_delete(standing, Keep(last=2, every=Steps(1000)))


def test_what_was_measured_itself_is_better_than_what_came_later_and_the_older_of_two_alike() -> None:
    one, two, three, four = (
        replace(standing, measured=Measured(0.5, step))
        for standing, step in zip(at(10, 15, 20, 30), (10, 10, 20, 30), strict=True)
    )
    worse = replace(four, measured=Measured(0.6, 30))
    assert best_of([worse, two, three, one], Best("eval_loss", count=3)) == [one, three, two]
    assert best_of([worse, two, three, one], Best("eval_loss", "max")) == [worse]
    assert best_of([replace(one, diverged=True)], Best("eval_loss")) == []


def test_each_one_that_stays_says_why() -> None:
    standing = [replace(one, diverged=one.step > 30) for one in at(10, 20, 30, 40, 50)]
    standing[0] = replace(standing[0], measured=Measured(0.1, 10))
    keep = Keep(last=2, best=Best("eval_loss", count=2))
    assert why_kept(standing, keep) == {
        Path("10"): ("the best by eval_loss",),
        Path("20"): ("from before training went wrong",),
        Path("30"): ("from before training went wrong",),
        Path("40"): ("one of the last 2",),
        Path("50"): ("the newest",),
    }


@pytest.mark.parametrize("keep_last", [-1, 0, 1])
def test_fewer_than_two_are_never_kept(keep_last: int) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        to_delete([], Keep(last=keep_last))


def test_a_deleted_checkpoint_is_gone(tmp_path: Path) -> None:
    path = commit_step(tmp_path, 10).path
    (path / "extra").mkdir()
    assert delete(path) == Deleted(path)
    assert os.listdir(tmp_path) == []
    assert delete(path) == Deleted(path), "what is gone is gone"


def test_what_is_read_is_not_deleted_until_its_reader_is_done_or_dead(tmp_path: Path) -> None:
    path = commit_step(tmp_path, 10).path
    with reading(path), reading(path):
        assert delete(path) == InUse(path)
        assert isinstance(verify(path, RUN), Intact)
    program = f"from supervisor.checkpoint.reading import reading\nfrom pathlib import Path\n\
with reading(Path({str(path)!r})):\n print(flush=True)\n input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        assert delete(path) == InUse(path)
        reader.kill()
    assert delete(path) == Deleted(path)
    with pytest.raises(DiskError, match="checkpoint-10"), reading(path):
        pass


def test_a_directory_without_a_manifest_can_be_read_too(tmp_path: Path) -> None:
    (tmp_path / "stock").mkdir()
    with reading(tmp_path / "stock") as path:
        assert path == tmp_path / "stock"


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
