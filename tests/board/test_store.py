"""Boards are private, found again by the run that lost them, and gone when nobody needs them."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.board.layout import SlotHeader, Tensor, image, region
from supervisor.board.pages import CONTROL, Orders, ring
from supervisor.board.slots import SlotReader, SlotWriter
from supervisor.board.store import PREFIX, Board, left_behind
from supervisor.errors import MachineError

IMAGES = {"t.safetensors": image([Tensor("t", "F32", (8,), 32)])}
GEOMETRY = region(IMAGES, slots=3, json_bytes=64)
MIB = 1 << 20

KILLED_SUPERVISOR = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_store import board, snapshot
made = board(Path(sys.argv[1]))
snapshot(made.allocate(0, 1, 1 << 20), step=7)
made.allocate(0, 2, 1 << 20)
print("ready", flush=True)
sys.stdin.read()
"""


def plenty(root: Path) -> int:
    return 1 << 40


def board(*roots: Path, ranks: int = 1, free_bytes=plenty) -> Board:
    return Board("run1", ranks, roots, free_bytes)


def snapshot(path: Path, step: int) -> None:
    writer = SlotWriter(path, GEOMETRY, IMAGES, since=0, populate=False)
    slot = writer.begin(lambda: None, lambda _: False)
    writer.finish(slot, SlotHeader(0, 0, step, 1, 0, 0, 0, 0, 0.0), b"{}")
    writer.close()


def steps(made: Board) -> list[int]:
    found = []
    for _, path in made.regions(0):
        reader = SlotReader(path)
        found += [s.header.step for s in reader.snapshots()]
        reader.close()
    return found


@pytest.fixture
def small_memory(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 256 KiB."""
    if shutil.which("mount") is None or os.getuid() != 0:
        pytest.skip("only root can mount a file system to fill")
    point = tmp_path / "small"
    point.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(point)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        pytest.skip(f"this machine does not let root mount a tmpfs: {mounted.stderr.strip()}")
    yield point
    subprocess.run(["umount", str(point)], check=True)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_everything_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        made = board(tmp_path)
        made.allocate(0, 1, 4096)
    finally:
        os.umask(before)
    assert made.directory == tmp_path / f"{PREFIX}run1"
    assert made.directory.stat().st_mode & 0o777 == 0o700
    assert {p.name: p.stat().st_mode & 0o777 for p in made.directory.iterdir()} == {
        "control": 0o600,
        "bell": 0o600,
        "rank-0.1": 0o600,
    }


def test_a_planted_link_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / f"{PREFIX}run1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MachineError, match="is not a directory that only you can open; have it removed") as refused:
        board(tmp_path)
    assert str(tmp_path / f"{PREFIX}run1") in str(refused.value)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}run1").mkdir()
    (tmp_path / f"{PREFIX}run1").chmod(0o750)
    with pytest.raises(MachineError, match="only you can open"):
        board(tmp_path)
    assert left_behind("run1", [tmp_path]) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    planted = tmp_path / f"{PREFIX}run1"
    planted.mkdir(mode=0o700)
    (planted / CONTROL).write_bytes(bytes(8192))
    os.chown(planted, 65534, 65534)
    with pytest.raises(MachineError, match="only you can open"):
        board(tmp_path)


def test_a_link_planted_for_a_region_is_replaced_and_not_followed(tmp_path: Path) -> None:
    made = board(tmp_path)
    (tmp_path / "precious").write_text("kept")
    (made.directory / "rank-0.1").symlink_to(tmp_path / "precious")
    path = made.allocate(0, 1, 4096)
    assert not path.is_symlink()
    assert (tmp_path / "precious").read_text() == "kept"


def test_what_a_killed_supervisor_left_is_adopted_by_the_same_run_only(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED_SUPERVISOR, str(tmp_path), str(Path(__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert left_behind("run1", [tmp_path / "no", tmp_path]) == [tmp_path / f"{PREFIX}run1"]

    other = Board("run2", 1, [tmp_path], plenty)
    assert not other.adopted
    assert other.regions(0) == []
    other.remove()

    again = board(tmp_path)
    assert again.adopted
    assert [generation for generation, _ in again.regions(0)] == [2, 1]
    assert steps(again) == [7]
    again.remove()
    assert list(tmp_path.iterdir()) == []


def test_boards_never_pile_up_however_often_supervisors_die(tmp_path: Path) -> None:
    names = []
    for life in range(4):
        made = board(tmp_path)
        snapshot(made.allocate(0, life + 1, MIB), step=life)
        made.drop_regions(0, below=life + 1)
        made.close()  # what a kill leaves is the same, only later
        names.append(sorted(p.name for p in (tmp_path / f"{PREFIX}run1").iterdir()))
    assert names == [["bell", "control", f"rank-0.{life + 1}"] for life in range(4)]
    assert len(list(tmp_path.iterdir())) == 1


def test_another_number_of_ranks_gets_a_new_control_file_and_keeps_the_snapshots(tmp_path: Path) -> None:
    first = board(tmp_path)
    first.control.give_orders(Orders(attempt=3))
    snapshot(first.allocate(0, 1, MIB), step=5)
    first.close()
    second = board(tmp_path, ranks=2)
    assert (second.adopted, second.control.ranks, second.control.orders().attempt) == (True, 2, 0)
    assert steps(second) == [5]
    second.remove()


def test_a_half_made_control_file_is_made_again(tmp_path: Path) -> None:
    first = board(tmp_path)
    first.close()
    path = first.directory / CONTROL
    path.write_bytes(bytes(path.stat().st_size))  # killed before the magic was written
    assert board(tmp_path).control.valid()
    path.write_bytes(b"")
    assert board(tmp_path).control.valid()


def test_a_region_falls_to_the_second_root_and_goes_with_the_board(tmp_path: Path) -> None:
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    memory.mkdir()
    disk.mkdir()
    made = board(memory, disk, free_bytes=lambda root: MIB if root == memory else 1 << 40)
    assert made.directory.parent == memory
    assert made.allocate(0, 1, MIB).parent.parent == memory
    assert made.allocate(0, 2, MIB + 1).parent == disk / f"{PREFIX}run1"
    assert [path.parent.parent for _, path in made.regions(0)] == [disk, memory]
    assert made.size_bytes() >= 2 * MIB
    made.close()
    again = board(memory, disk)
    assert [path.parent.parent for _, path in again.regions(0)] == [disk, memory]
    again.remove()
    assert list(memory.iterdir()) == list(disk.iterdir()) == []


def test_the_board_itself_falls_to_the_second_root_and_is_found_there(tmp_path: Path) -> None:
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    memory.mkdir()
    disk.mkdir()
    made = board(memory, disk, free_bytes=lambda root: 0 if root == memory else 1 << 40)
    assert made.directory.parent == disk
    made.close()
    again = board(memory, disk)
    assert again.adopted
    assert again.directory.parent == disk
    again.remove()


def test_a_root_that_refuses_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made = board(tmp_path / "file", tmp_path / "missing", tmp_path)
    assert made.directory.parent == tmp_path
    assert made.allocate(0, 1, 4096).parent == made.directory
    made.remove()


def test_a_refusal_names_the_size_and_every_root(tmp_path: Path) -> None:
    made = board(tmp_path, free_bytes=lambda _: 2 * MIB)
    with pytest.raises(MachineError) as refused:
        made.allocate(3, 1, 3 * MIB)
    assert refused.value.problem == (
        f"the board of local rank 3 needs 3.0 MiB for its snapshots, but {tmp_path} has 2.0 MiB to spare"
    )
    assert "checkpoint.snapshot: off" in refused.value.remedy
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"no room for the 8\.0 KiB control file .*/file: Not a directory"):
        board(tmp_path / "file")


def test_a_full_file_system_is_an_error_now_and_not_a_bus_error_later(small_memory: Path, tmp_path: Path) -> None:
    made = board(small_memory)
    with pytest.raises(MachineError, match=f"needs 1.0 MiB for its snapshots, but {small_memory}: No space left"):
        made.allocate(0, 1, MIB)
    assert made.regions(0) == []  # nothing half made
    assert made.allocate(0, 1, 64 << 10).stat().st_blocks * 512 >= 64 << 10
    made.remove()
    (tmp_path / "disk").mkdir()
    made = board(small_memory, tmp_path / "disk")
    assert made.allocate(0, 1, MIB).parent.parent == tmp_path / "disk"
    made.remove()
    assert list(small_memory.iterdir()) == []


def test_a_region_is_made_anew_where_a_half_made_one_lies(tmp_path: Path) -> None:
    made = board(tmp_path)
    made.allocate(0, 1, 4096).write_bytes(b"half")
    assert made.allocate(0, 1, 8192).read_bytes() == bytes(8192)


def test_only_regions_are_taken_for_regions(tmp_path: Path) -> None:
    made = board(tmp_path, ranks=12)
    for name in ("rank-1.x", "rank-1.1.partial", "rank-11.1", "history-1"):
        (made.directory / name).write_text("")
    assert made.regions(1) == []
    assert [generation for generation, _ in made.regions(11)] == [1]


def test_the_bell_is_heard_once_for_many_rings(tmp_path: Path) -> None:
    made = board(tmp_path)
    assert not made.hush()
    ring(made.directory)
    ring(made.directory)
    assert made.hush()
    assert not made.hush()
    made.remove()
