"""How much memory is left is read from tables; here they are written by hand."""

from pathlib import Path

import pytest
from disks import tmpfs

from supervisor.board.room import LOGS_BYTES, MARGIN_BYTES, free_bytes, in_memory

GIB = 1 << 30


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ("tmpfs / tmpfs rw 0 0\n", True),
        ("disk / ext4 rw 0 0\n", False),
        ("disk / ext4 rw 0 0\nshm {here} tmpfs rw 0 0\n", True),
        ("tmpfs / tmpfs rw 0 0\ndisk {here} xfs rw 0 0\n", False),
        ("disk / ext4 rw 0 0\nshm {here}er tmpfs rw 0 0\n", False),  # a namesake that is longer
        ("shm {here} tmpfs rw 0 0\ndisk {here} xfs rw 0 0\n", False),  # mounted over
        ("garbled\ndisk / ext4 rw 0 0\n", False),
        ("", False),
    ],
)
def test_the_innermost_mount_says_whether_it_is_memory(tmp_path: Path, mounts: str, expected: bool) -> None:
    (tmp_path / "here" / "below").mkdir(parents=True)
    table = write(tmp_path / "mounts", mounts.format(here=tmp_path / "here"))
    assert in_memory(tmp_path / "here" / "below", table) is expected


def test_a_mount_point_with_a_blank_in_its_name_is_understood(tmp_path: Path) -> None:
    (tmp_path / "my disk").mkdir()
    escaped = str(tmp_path / "my disk").replace(" ", "\\040")
    table = write(tmp_path / "mounts", f"disk / ext4 rw 0 0\nshm {escaped} tmpfs rw 0 0\n")
    assert in_memory(tmp_path / "my disk", table)


def test_links_are_followed_to_where_the_bytes_go(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "memory")
    table = write(tmp_path / "mounts", f"disk / ext4 rw 0 0\nshm {tmp_path / 'memory'} tmpfs rw 0 0\n")
    assert in_memory(tmp_path / "link", table)
    assert not in_memory(tmp_path / "link", tmp_path / "no table")


def test_memory_is_limited_by_what_is_available_and_by_the_file_system(tmp_path: Path) -> None:
    table = write(tmp_path / "mounts", f"disk / ext4 rw 0 0\nshm {tmp_path} tmpfs rw 0 0\n")
    assert free_bytes(tmp_path, available_bytes=GIB, mounts=table) == GIB - MARGIN_BYTES
    assert free_bytes(tmp_path, available_bytes=MARGIN_BYTES - 1, mounts=table) == 0
    assert 0 < free_bytes(tmp_path, available_bytes=1 << 60, mounts=table) < 1 << 60


def test_memory_that_no_file_system_holds_is_limited_by_what_is_available(tmp_path: Path) -> None:
    assert free_bytes(None, available_bytes=1 << 60, mounts=tmp_path / "none") == (1 << 60) - MARGIN_BYTES
    assert free_bytes(None, available_bytes=0, mounts=tmp_path / "none") == 0


def test_on_a_disk_memory_does_not_matter(tmp_path: Path) -> None:
    table = write(tmp_path / "mounts", "disk / ext4 rw 0 0\n")
    assert free_bytes(tmp_path, available_bytes=0, mounts=table) > 0


def test_a_directory_that_cannot_be_asked_has_nothing_to_give(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "missing", available_bytes=GIB) == 0


@pytest.mark.parametrize(("size_mib", "left_mib"), [(128, LOGS_BYTES >> 20), (48, 0)])
def test_beside_snapshots_there_is_room_for_logs_where_these_are_in_memory(
    size_mib: int, left_mib: int, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "shm", f"size={size_mib}m") as place:
        found = free_bytes(place, available_bytes=1 << 60)
    assert found == size_mib - left_mib << 20
