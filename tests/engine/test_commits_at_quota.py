"""A quota that is met at every few pages of a commit: a real one, of a btrfs, which refuses even to rename.

Those of ext4, XFS and tmpfs a kernel may be built without; those of btrfs it always has. It takes root and btrfs-progs.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_commits import checkpoints, outcome, run_on

from supervisor.board.pages import PAGE

STEPS = (10, 20, 30, 40)


def btrfs(*arguments: object) -> str:
    done = subprocess.run(["btrfs", *map(str, arguments)], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("mkfs.btrfs is not installed, so there is no quota to meet")
    place, image = tmp_path / "disk", tmp_path / "image"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(256 << 20)
    for command in (["mkfs.btrfs", "-q", str(image)], ["mount", "-o", "loop", str(image), str(place)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no file system of one's own here: {done.stderr.strip()}")
    btrfs("quota", "enable", place)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def used_bytes(place: Path) -> int:
    subprocess.run(["sync", "--file-system", str(place)], check=True)
    return int(btrfs("qgroup", "show", "--raw", "-F", "--sync", place).splitlines()[-1].split()[1])


def test_what_the_run_can_do_without_goes_also_where_nothing_can_be_renamed(disk: Path, tmp_path: Path) -> None:
    outcomes = []
    for left in range(0, 112, 16):
        place = disk / str(left)
        btrfs("subvolume", "create", place)
        with run_on(place, tmp_path, STEPS) as run:
            before = checkpoints(run)
            btrfs("qgroup", "limit", used_bytes(place) + left * PAGE, place)
            run.commit("final")
            btrfs("qgroup", "limit", "none", place)
            outcomes.append(outcome(run, before))
    assert outcomes[0].endswith(" gone")
    assert "refused, 0 gone" not in outcomes
    assert outcomes[-1] == "committed with final/"
