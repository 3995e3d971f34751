"""Only what the dead have left is swept."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.checkpoint.sweep import Swept, sweep_partials
from supervisor.checkpoint.writers import PARTIAL, TRASH, Writer, is_alive, this_writer, unfinished_name, writer_of


def left_by(directory: Path, writer: Writer, prefix: str = PARTIAL) -> Path:
    path = directory / f"{prefix}checkpoint-20-{writer.place}-{writer.pid}-{writer.started}-01234567"
    path.mkdir()
    (path / "state.json").write_bytes(b"{}")
    return path


@pytest.fixture
def dead() -> Writer:
    """A process that has ended and been waited for, as this one would have named it."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        pass
    return replace(this_writer(), pid=child.pid)


def test_names_tell_who_made_them() -> None:
    assert writer_of(unfinished_name(PARTIAL, "checkpoint-20")) == this_writer()
    assert writer_of(unfinished_name(TRASH, "checkpoint-20")) == this_writer()
    for name in (".partial-checkpoint-20", ".partial-", "checkpoint-20", ".trash-x-0-0-0-0"):
        assert writer_of(name) is None


def test_what_a_dead_process_left_goes(tmp_path: Path, dead: Writer) -> None:
    path = left_by(tmp_path, dead)
    assert sweep_partials(tmp_path) == Swept((path.name,), ())
    assert os.listdir(tmp_path) == []


def test_a_zombie_is_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as child:
        zombie = replace(this_writer(), pid=child.pid)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert is_alive(zombie, this_writer()) is False


def test_a_process_number_used_again_does_not_count_as_alive() -> None:
    here = this_writer()
    assert is_alive(here, here) is True
    assert is_alive(replace(here, started=here.started - 1), here) is False


@pytest.mark.parametrize("sole_owner", [False, True])
def test_what_a_living_process_writes_stays(tmp_path: Path, sole_owner: bool) -> None:
    path = left_by(tmp_path, this_writer())
    assert sweep_partials(tmp_path, sole_owner=sole_owner) == Swept((), ())
    assert path.exists()


def test_another_machines_goes_only_at_the_word_of_the_owner(tmp_path: Path) -> None:
    path = left_by(tmp_path, replace(this_writer(), place="0" * 16))
    assert sweep_partials(tmp_path).removed == ()
    assert sweep_partials(tmp_path, sole_owner=True).removed == (path.name,)


def test_trash_goes_whoever_made_it(tmp_path: Path) -> None:
    left_by(tmp_path, this_writer(), TRASH)
    left_by(tmp_path, replace(this_writer(), place="0" * 16), TRASH)
    assert len(sweep_partials(tmp_path).removed) == 2


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    names = {".partial-something", ".trash-1000", "checkpoint-20", "notes"}
    for name in names:
        (tmp_path / name).mkdir()
    sweep_partials(tmp_path, sole_owner=True)
    assert set(os.listdir(tmp_path)) == names


def test_a_link_in_their_place_is_not_followed(tmp_path: Path, dead: Writer) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(b"x")
    link = tmp_path / f"{PARTIAL}checkpoint-20-{dead.place}-{dead.pid}-{dead.started}-01234567"
    link.symlink_to(precious)
    assert sweep_partials(tmp_path).removed == (link.name,)
    assert (precious / "file").exists()


def test_no_directory_is_no_problem(tmp_path: Path) -> None:
    assert sweep_partials(tmp_path / "none") == Swept((), ())
