"""What dead supervisors left and nobody can use goes; what somebody may want stays."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from harness import until
from test_regions import SUPERVISOR, board, end, living_supervisor, process
from test_store import MIB, plenty, snapshot, steps

from supervisor.board.pages import CONTROL
from supervisor.board.store import ANONYMOUS, PREFIX, Board, board_name, left_behind, remove_boards
from supervisor.board.sweep import sweep_boards
from supervisor.engine.state.memory import peek

SWEEPER = """
import select, sys
from pathlib import Path
from supervisor.board.sweep import sweep_boards
swept = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    swept += len(sweep_boards([Path(sys.argv[1])]))
print(swept)
"""


def test_the_board_of_a_killed_supervisor_is_swept_and_a_living_ones_is_not(tmp_path: Path) -> None:
    roots = [tmp_path / "missing", tmp_path]
    child = living_supervisor(tmp_path)
    assert sweep_boards(roots) == []
    end(child)
    assert sweep_boards(roots) == [tmp_path / f"{PREFIX}run1"]
    assert list(tmp_path.iterdir()) == []


def test_a_board_whose_supervisor_died_before_it_had_memory_is_swept_too(tmp_path: Path) -> None:
    child = living_supervisor(tmp_path)
    end(child)
    (tmp_path / f"{PREFIX}run1" / "rank-0.1").unlink()
    assert (tmp_path / f"{PREFIX}run1" / ANONYMOUS).exists()
    assert len(sweep_boards([tmp_path])) == 1


def test_an_adopted_board_is_not_swept_although_its_first_supervisor_is_dead(tmp_path: Path) -> None:
    end(living_supervisor(tmp_path))
    heir = board(tmp_path)
    assert sweep_boards([tmp_path]) == []
    snapshot(heir.allocate(0, 1, MIB), step=2)
    assert steps(heir) == [2]
    heir.remove()


def test_a_board_that_is_being_taken_is_never_swept_from_under_its_supervisor(tmp_path: Path) -> None:
    sweeper = subprocess.Popen(
        [sys.executable, "-c", SWEEPER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    kept = []
    for _ in range(100):
        child = os.fork()
        if child == 0:  # a supervisor that dies without a word, as soon as it has its board
            code = 1
            try:
                made = board(tmp_path)
                code = 0 if (made.directory / CONTROL).exists() and made.hush() is False else 2
            finally:
                os._exit(code)
        kept.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    swept, _ = sweeper.communicate()
    assert set(kept) == {0}
    assert int(swept) > 1


OVERTAKEN = """
import shutil, sys
from pathlib import Path
from supervisor.board.store import ANONYMOUS
from supervisor.board.sweep import sweep_boards
board, overtaken = Path(sys.argv[1]), []
def overtake(event, args):
    if event == "fcntl.flock" and not overtaken:
        overtaken.append(event)
        shutil.rmtree(board)
        board.mkdir(mode=0o700)
        (board / ANONYMOUS).touch(mode=0o600)
sys.addaudithook(overtake)
print(len(overtaken), sweep_boards([board.parent]), board.exists(), len(overtaken))
"""


def test_a_board_that_was_made_where_another_sweep_was_faster_is_not_swept(tmp_path: Path) -> None:
    end(living_supervisor(tmp_path))
    said, _ = process(OVERTAKEN, tmp_path / board_name("run1")).communicate()
    assert said == "0 [] True 1\n"


class Fleeting(type(Path())):  # type: ignore[misc]
    """A directory that is there when it is to be made, and gone at the next look."""

    seen: ClassVar[list[str]] = []

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        if not self.seen:
            self.seen.append(self.name)
            raise FileExistsError(self)
        super().mkdir(mode, parents, exist_ok)


def test_a_board_that_was_swept_away_between_two_looks_is_made_anew(tmp_path: Path) -> None:
    made = board(Fleeting(tmp_path))
    assert Fleeting.seen == [board_name("run1")]
    assert (made.directory / CONTROL).exists()
    made.remove()


def test_who_comes_while_a_board_is_being_swept_waits_and_makes_a_new_one(tmp_path: Path) -> None:
    end(living_supervisor(tmp_path))
    left = tmp_path / board_name("run1")
    sweeping = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(sweeping, fcntl.LOCK_EX)
    child = process(SUPERVISOR, tmp_path)
    until(lambda: any(f" {child.pid} " in line for line in waiting()), "supervisor waiting for the lock")
    shutil.rmtree(left)
    os.close(sweeping)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    assert (left / CONTROL).exists()
    assert sweep_boards([tmp_path]) == []
    end(child)


def waiting() -> list[str]:
    """Who waits for a lock; proc_locks(5)."""
    return [line for line in Path("/proc/locks").read_text().splitlines() if "->" in line]


def test_a_board_with_a_named_region_waits_for_its_successor(tmp_path: Path) -> None:
    named = Board("run1", 1, [tmp_path], plenty)
    snapshot(named.allocate(0, 1, MIB), step=4)
    named.close()
    (named.directory / ANONYMOUS).touch(mode=0o600)
    (named.directory / "rank-0.2").symlink_to(f"/proc/{2**22 + 1}/fd/3")
    assert sweep_boards([tmp_path]) == []
    again = Board("run1", 1, [tmp_path], plenty)
    assert steps(again) == [4]
    again.remove()


def test_a_named_board_without_regions_is_not_swept(tmp_path: Path) -> None:
    Board("run1", 1, [tmp_path], plenty).close()
    assert sweep_boards([tmp_path]) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_boards_of_others_and_open_ones_are_left_alone(tmp_path: Path) -> None:
    end(living_supervisor(tmp_path))
    ours = tmp_path / board_name("run1")
    others, opened = tmp_path / board_name("run2"), tmp_path / board_name("run3")
    for copy in (others, opened):
        copy.mkdir(mode=0o700)
        (copy / ANONYMOUS).touch()
    os.chown(others, 65534, 65534)
    opened.chmod(0o750)
    assert sweep_boards([tmp_path]) == [ours]
    assert sorted(tmp_path.iterdir()) == [others, opened]


def test_nodes_on_one_machine_have_boards_of_their_own(tmp_path: Path) -> None:
    boards = [Board("run1", 1, [tmp_path], plenty, node=node) for node in range(3)]
    assert [b.directory.name for b in boards] == [f"{PREFIX}run1", f"{PREFIX}run1-n1", f"{PREFIX}run1-n2"]
    for node, one in enumerate(boards):
        snapshot(one.allocate(0, 1, MIB), step=node)
    assert [steps(one) for one in boards] == [[0], [1], [2]]
    strange = tmp_path / f"{PREFIX}run10"
    strange.mkdir(mode=0o700)
    assert left_behind("run1", [tmp_path]) == [b.directory for b in boards]
    assert left_behind("run1", [tmp_path], 2) == [boards[2].directory]
    remove_boards("run1", [tmp_path], 1)
    assert left_behind("run1", [tmp_path]) == [boards[0].directory, boards[2].directory]
    remove_boards("run1", [tmp_path])
    assert list(tmp_path.iterdir()) == [strange]
    for one in boards:
        one.close()


def test_a_plan_finds_the_step_that_is_whole_on_every_node(tmp_path: Path) -> None:
    boards = [Board("run1", 1, [tmp_path], plenty, node=node) for node in range(2)]
    regions = [one.allocate(0, 1, MIB) for one in boards]
    for path in regions:
        snapshot(path, 2)
    assert peek(left_behind("run1", [tmp_path]), 1) == (0, 2)
    snapshot(regions[1], 3)
    assert peek(left_behind("run1", [tmp_path]), 1) is None
    shutil.rmtree(boards[1].directory)
    assert peek(left_behind("run1", [tmp_path]), 1) == (0, 2)
    for one in boards:
        one.remove()


def test_a_plan_passes_over_memory_that_is_gone(tmp_path: Path) -> None:
    child = living_supervisor(tmp_path)
    assert peek(left_behind("run1", [tmp_path]), 1) == (0, 7)
    end(child)
    assert peek(left_behind("run1", [tmp_path]), 1) is None
