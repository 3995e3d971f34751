"""How much memory is left is read from tables; here they are written by hand."""

from pathlib import Path

import pytest

from supervisor.board.room import MARGIN_BYTES, cgroup_headroom_bytes, free_bytes, in_memory

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


def v2(root: Path, group: str, limit: str, usage: int, cached: int = 0) -> None:
    write(root / group / "memory.max", f"{limit}\n")
    write(root / group / "memory.current", f"{usage}\n")
    write(root / group / "memory.stat", f"anon 1\ninactive_file {cached}\nactive_file 3\n")


def v1(root: Path, group: str, limit: int, usage: int, cached: int = 0) -> None:
    write(root / "memory" / group / "memory.limit_in_bytes", f"{limit}\n")
    write(root / "memory" / group / "memory.usage_in_bytes", f"{usage}\n")
    write(root / "memory" / group / "memory.stat", f"cache 1\ninactive_file 0\ntotal_inactive_file {cached}\n")


def test_without_a_limit_there_is_no_headroom_to_speak_of(tmp_path: Path) -> None:
    v2(tmp_path, "job", "max", GIB)
    assert cgroup_headroom_bytes(write(tmp_path / "self", "0::/job\n"), tmp_path) is None
    v1(tmp_path, "job", 9223372036854771712, GIB)
    assert cgroup_headroom_bytes(write(tmp_path / "self", "5:memory:/job\n"), tmp_path) is None
    assert cgroup_headroom_bytes(tmp_path / "no such file", tmp_path) is None


def test_of_nested_groups_the_narrowest_counts(tmp_path: Path) -> None:
    table = write(tmp_path / "self", "0::/slurm/job/step\n")
    v2(tmp_path, "slurm", "max", GIB)
    v2(tmp_path, "slurm/job", str(4 * GIB), 3 * GIB)
    v2(tmp_path, "slurm/job/step", str(8 * GIB), 2 * GIB)
    assert cgroup_headroom_bytes(table, tmp_path) == GIB


def test_the_first_version_is_read_in_its_own_words(tmp_path: Path) -> None:
    table = write(tmp_path / "self", "12:cpu,cpuacct:/other\n4:hugetlb,memory:/job/step\n1:name=systemd:/x\n")
    v1(tmp_path, "job/step", 2 * GIB, GIB)
    v1(tmp_path, "", 64 * GIB, 63 * GIB + 1)
    assert cgroup_headroom_bytes(table, tmp_path) == GIB - 1


def test_a_container_that_sees_only_its_own_group_finds_it_at_the_root(tmp_path: Path) -> None:
    v1(tmp_path, "", 2 * GIB, GIB)
    assert cgroup_headroom_bytes(write(tmp_path / "self", "4:memory:/docker/0123abc\n"), tmp_path) == GIB


def test_cached_file_pages_are_not_in_the_way(tmp_path: Path) -> None:
    """After reading a data set they fill a container's limit; the kernel drops them when memory is asked for."""
    v2(tmp_path, "job", str(4 * GIB), 4 * GIB, cached=3 * GIB)
    assert cgroup_headroom_bytes(write(tmp_path / "self", "0::/job\n"), tmp_path) == 3 * GIB
    v1(tmp_path, "job", 4 * GIB, 4 * GIB, cached=GIB)
    assert cgroup_headroom_bytes(write(tmp_path / "self", "5:memory:/job\n"), tmp_path) == GIB
    (tmp_path / "memory" / "job" / "memory.stat").write_text("garbled\n")
    assert cgroup_headroom_bytes(tmp_path / "self", tmp_path) == 0


def test_memory_is_limited_by_the_machine_and_the_group_and_the_file_system(tmp_path: Path) -> None:
    table = write(tmp_path / "mounts", f"disk / ext4 rw 0 0\nshm {tmp_path} tmpfs rw 0 0\n")
    told = {"mounts": table, "cgroup": write(tmp_path / "self", "0::/job\n"), "cgroup_root": tmp_path}
    assert free_bytes(tmp_path, available_bytes=GIB, **told) == GIB - MARGIN_BYTES
    assert free_bytes(tmp_path, available_bytes=MARGIN_BYTES - 1, **told) == 0
    v2(tmp_path, "job", str(GIB), GIB // 2)
    assert free_bytes(tmp_path, available_bytes=1 << 60, **told) == GIB // 2 - MARGIN_BYTES
    v2(tmp_path, "job", str(GIB), GIB)
    assert free_bytes(tmp_path, available_bytes=1 << 60, **told) == 0


def test_memory_that_no_file_system_holds_is_limited_by_the_machine_and_the_group_only(tmp_path: Path) -> None:
    told = {"mounts": tmp_path / "no table", "cgroup": write(tmp_path / "self", "0::/job\n"), "cgroup_root": tmp_path}
    assert free_bytes(None, available_bytes=1 << 60, **told) == (1 << 60) - MARGIN_BYTES
    v2(tmp_path, "job", str(GIB), GIB // 2)
    assert free_bytes(None, available_bytes=1 << 60, **told) == GIB // 2 - MARGIN_BYTES
    assert free_bytes(None, available_bytes=0, **told) == 0


def test_on_a_disk_memory_does_not_matter(tmp_path: Path) -> None:
    table = write(tmp_path / "mounts", "disk / ext4 rw 0 0\n")
    v2(tmp_path, "job", "1", 1)
    group = write(tmp_path / "self", "0::/job\n")
    assert free_bytes(tmp_path, available_bytes=0, mounts=table, cgroup=group, cgroup_root=tmp_path) > 0


def test_a_directory_that_cannot_be_asked_has_nothing_to_give(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "missing", available_bytes=GIB) == 0
