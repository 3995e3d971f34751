"""A disk that is full at every page and at every inode of a commit, with nothing, with enough, and with little to go.

A small tmpfs is a real file system that is really full; mounting one takes root, so without it these tests are skipped
with the reason.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import pytest
from disks import tmpfs
from small_commits import checkpoints, outcome, run_on

from supervisor.board.pages import PAGE

REFUSED = ["refused, 0 gone", "committed", "committed with final/"]
#: What stands there before, and what comes of it as more and more is left. Of the newest two stay, one of which is the
#: new one if it is there.
BEFORE = {
    "nothing older": ((), REFUSED),
    "the last intact one only": ((40,), REFUSED),
    "older ones that may go": (
        (10, 20, 30, 40),
        ["committed with final/, 2 gone", "committed with final/, 3 gone", "committed with final/"],
    ),
}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "disk", f"size={256 * PAGE},nr_inodes=128") as disk:
        yield disk


def take_pages(disk: Path, ballast: Path, left: int) -> None:
    with (ballast / "pages").open("wb") as file:
        room = os.statvfs(disk).f_bavail - left
        if room > 0:
            os.posix_fallocate(file.fileno(), 0, room * PAGE)


def take_inodes(disk: Path, ballast: Path, left: int) -> None:
    for number in range(os.statvfs(disk).f_favail - left):
        (ballast / str(number)).touch()


@contextmanager
def ballast(disk: Path, take: Callable[[Path, Path, int], None], left: int) -> Iterator[None]:
    """Only so much is left meanwhile."""
    place = disk / "ballast"
    place.mkdir()
    take(disk, place, left)
    try:
        yield
    finally:
        shutil.rmtree(place)


@pytest.mark.parametrize("take", [take_pages, take_inodes])
@pytest.mark.parametrize(("steps", "expected"), BEFORE.values(), ids=BEFORE.keys())
def test_at_every_size_it_is_committed_and_intact_or_an_incident_and_nothing_else_changes(
    small_disk: Path,
    tmp_path: Path,
    take: Callable[[Path, Path, int], None],
    steps: tuple[int, ...],
    expected: list[str],
) -> None:
    outcomes: list[str] = []
    for left in range(128):
        with run_on(small_disk, tmp_path, steps) as run:
            before = checkpoints(run)
            with ballast(small_disk, take, left):
                run.commit("final")
            outcomes.append(outcome(run, before))
            if outcomes[-1].startswith("refused"):
                run.commit("final")
                assert outcome(run, before).startswith("committed"), "there is room again"
        if outcomes[-1] == "committed with final/":
            break
    assert [word for word, _ in groupby(outcomes)] == expected
