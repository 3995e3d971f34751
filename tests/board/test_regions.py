"""Memory that only its supervisor holds: opened like a file by its workers, gone with it, never taken for another's."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from harness import until
from test_store import GEOMETRY, IMAGES, MIB, plenty, snapshot, steps

from supervisor.board.regions import dangles, open_region, show_memory
from supervisor.board.slots import SlotReader, SlotWriter
from supervisor.board.store import ANONYMOUS, PREFIX, Board
from supervisor.errors import MachineError

SUPERVISOR = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
sys.path.insert(0, sys.argv[2] + "/..")
from test_regions import board, snapshot
made = board(Path(sys.argv[1]))
snapshot(made.allocate(0, 1, 1 << 20), step=7)
print("ready", flush=True)
sys.stdin.read()
"""
WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
sys.path.insert(0, sys.argv[2] + "/..")
from test_store import snapshot
snapshot(Path(sys.argv[1]), step=9)
"""


def board(root: Path, free_bytes=plenty, **which) -> Board:
    return Board("run1", 1, [root], free_bytes, anonymous=True, **which)


def process(text: str, argument: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", text, str(argument), str(Path(__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def living_supervisor(root: Path) -> subprocess.Popen:
    child = process(SUPERVISOR, root)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def end(child: subprocess.Popen) -> None:
    child.send_signal(signal.SIGKILL)
    child.communicate()


def held() -> list[str]:
    """The memory that this process holds, as the kernel shows it."""
    shown = []
    for number in os.listdir("/proc/self/fd"):
        try:
            shown.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue
    return [text for text in shown if text.startswith("/memfd:")]


def shared_memory_bytes() -> int:
    line = next(one for one in Path("/proc/meminfo").read_text().splitlines() if one.startswith("Shmem:"))
    return int(line.split()[1]) << 10


def test_a_worker_writes_through_the_path_and_the_supervisor_reads_it(tmp_path: Path) -> None:
    made = board(tmp_path)
    path = made.allocate(0, 1, MIB)
    assert path == tmp_path / f"{PREFIX}run1" / "rank-0.1"
    assert path.is_symlink()
    assert process(WORKER, path).wait(60) == 0
    assert steps(made) == [9]
    assert made.size_bytes() >= MIB
    made.remove()
    assert list(tmp_path.iterdir()) == []


def test_it_is_private_and_reserved(tmp_path: Path) -> None:
    made = board(tmp_path)
    descriptor = open_region(made.allocate(0, 1, MIB), os.O_RDONLY)
    seen = os.fstat(descriptor)
    os.close(descriptor)
    assert stat.S_IMODE(seen.st_mode) == 0o600
    assert (seen.st_size, seen.st_blocks * 512) == (MIB, MIB)
    assert {p.name: stat.S_IMODE(p.lstat().st_mode) for p in made.directory.iterdir() if not p.is_symlink()} == {
        "control": 0o600,
        "bell": 0o600,
        ANONYMOUS: 0o600,
    }
    made.remove()


def test_what_is_dropped_gives_its_memory_back(tmp_path: Path) -> None:
    size = 256 * MIB  # many times what other tests take and give back meanwhile
    made = board(tmp_path)
    before = shared_memory_bytes()
    old = made.allocate(0, 1, size)
    new = made.allocate(0, 2, MIB)
    assert len(held()) == 2
    assert made.size_bytes() >= size + MIB
    until(lambda: shared_memory_bytes() - before > size // 2, "growth of the shared memory")
    made.drop_regions(0, below=2)
    assert made.regions(0) == [(2, new)]
    assert not old.is_symlink()
    assert held() == [f"/memfd:{PREFIX}run1/rank-0.2 (deleted)"]
    assert made.size_bytes() < size
    until(lambda: shared_memory_bytes() - before < size // 2, "memory given back")
    made.remove()
    assert held() == []


def test_a_region_made_again_is_empty_and_the_one_before_is_let_go(tmp_path: Path) -> None:
    made = board(tmp_path)
    snapshot(made.allocate(0, 1, MIB), step=3)
    made.allocate(0, 1, MIB)
    assert steps(made) == []
    assert len(held()) == 1
    made.remove()


def test_a_mapping_outlives_the_link_and_the_supervisors_hold(tmp_path: Path) -> None:
    made = board(tmp_path)
    path = made.allocate(0, 1, GEOMETRY.total_bytes)
    writer = SlotWriter(path, GEOMETRY, IMAGES, since=0, populate=True)
    reader = SlotReader(path)
    made.remove()
    slot = writer.begin(lambda: None, lambda _: False)
    writer.memory[GEOMETRY.json_at(slot)] = 7
    assert reader.geometry() == GEOMETRY
    writer.close()
    reader.close()


def test_nothing_large_is_left_of_a_killed_supervisor(tmp_path: Path) -> None:
    child = living_supervisor(tmp_path)
    path = tmp_path / f"{PREFIX}run1" / "rank-0.1"
    assert not dangles(path)
    end(child)
    assert dangles(path)
    with pytest.raises(FileNotFoundError, match="the supervisor that held it is gone"):
        SlotReader(path)
    again = board(tmp_path)
    assert again.adopted
    assert again.regions(0) == []
    assert not path.is_symlink()
    again.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["another region", "a pipe", "a file", "nothing"])
def test_a_link_under_a_pid_used_again_is_no_region(tmp_path: Path, kind: str) -> None:
    made = board(tmp_path)
    path = made.allocate(0, 1, MIB)
    read, write = os.pipe()
    with (tmp_path / "file").open("w") as file:
        other = open_region(made.allocate(0, 2, MIB), os.O_RDWR)
        show_memory(path, {"another region": other, "a pipe": read, "a file": file.fileno(), "nothing": 4096}[kind])
        assert dangles(path)
        assert [generation for generation, _ in made.regions(0)] == [2]
        with pytest.raises(FileNotFoundError, match="is gone"):  # a pipe would have kept it waiting
            open_region(path, os.O_RDONLY)
    for descriptor in (other, read, write):
        os.close(descriptor)
    made.remove()


def test_no_other_link_is_followed(tmp_path: Path) -> None:
    made = board(tmp_path)
    (tmp_path / "precious").write_text("kept")
    path = made.directory / "rank-0.1"
    path.symlink_to(tmp_path / "precious")
    assert made.regions(0) == []
    with pytest.raises(OSError, match="symbolic link"):
        open_region(path, os.O_RDONLY)
    made.allocate(0, 1, MIB)
    assert (tmp_path / "precious").read_text() == "kept"
    made.remove()


def test_memory_is_asked_about_and_not_the_directorys_file_system(tmp_path: Path) -> None:
    made = board(tmp_path, free_bytes=lambda root: 2 * MIB if root is None else 16384)
    made.allocate(0, 1, MIB)
    with pytest.raises(MachineError, match=r"needs 2\.0 MiB for its snapshots, but memory has 2\.0 MiB to spare"):
        made.allocate(0, 2, 2 * MIB, spare=1)
    assert [generation for generation, _ in made.regions(0)] == [1]
    made.remove()


def test_named_regions_of_an_earlier_stay_are_kept_beside_it(tmp_path: Path) -> None:
    named = Board("run1", 1, [tmp_path], plenty)
    snapshot(named.allocate(0, 1, MIB), step=5)
    named.close()
    made = board(tmp_path)
    snapshot(made.allocate(0, 2, MIB), step=6)
    assert steps(made) == [6, 5]
    made.close()
    again = Board("run1", 1, [tmp_path], plenty)
    assert steps(again) == [5]
    assert not (again.directory / ANONYMOUS).exists()
    again.remove()
