"""What ranks write reaches the run directory whole, and takes no memory that it does not need."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import until

from supervisor.engine.ranks import logbook as subject
from supervisor.engine.ranks.evidence import TAIL_BYTES
from supervisor.engine.ranks.logbook import Logbook

MIB = 1 << 20


@pytest.fixture
def board() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        yield Path(place)


def write(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def look(book: Logbook) -> None:
    """Have it carried now, and wait until it is."""
    book.look(book._carried_s + 2 * subject.EVERY_S)
    until(lambda: book._carrying is None or book._carrying.over, "carrying")


def test_a_log_is_carried_over_as_it_grows_and_gives_its_memory_back(board: Path, tmp_path: Path) -> None:
    book = Logbook(board, tmp_path / "logs")
    log = book.open(1) / "rank-0.log"
    assert log.is_relative_to(board)
    whole = b""
    for n in range(8):
        piece = os.urandom(MIB)
        write(log, piece)
        whole += piece
        look(book)
        assert (tmp_path / "logs/attempt-1/rank-0.log").read_bytes() == whole, n
    assert log.stat().st_size == len(whole)
    assert log.stat().st_blocks * 512 < 4 * MIB
    assert log.read_bytes()[-TAIL_BYTES:] == whole[-TAIL_BYTES:]  # which the verdict reads
    book.finish(1)
    until(lambda: not log.parent.exists(), "end of what was in memory")
    book.close()


def test_a_record_is_carried_over_as_it_is_written_anew_and_half_of_one_is_not(board: Path, tmp_path: Path) -> None:
    book = Logbook(board, tmp_path / "logs")
    attempt = book.open(3)
    (attempt / "rank-0.error.partial").write_text("{")
    (attempt / "collectives-rank-0").write_text("first")
    look(book)
    (attempt / "collectives-rank-0").write_text("second")
    (attempt / "rank-0.error.json").write_text("{}")
    book.close()
    assert {path.name: path.read_text() for path in (tmp_path / "logs/attempt-3").iterdir()} == {
        "rank-0.error.json": "{}",
        "collectives-rank-0": "second",
    }


def test_what_a_killed_supervisor_left_is_carried_over_by_the_next_from_where_it_stood(
    board: Path, tmp_path: Path
) -> None:
    before = Logbook(board, tmp_path / "logs")
    log = before.open(1) / "rank-0.log"
    write(log, b"first line\n")
    look(before)
    write(log, b"last words\n")
    after = Logbook(board, tmp_path / "logs")  # nobody closed the one before
    look(after)
    assert (tmp_path / "logs/attempt-1/rank-0.log").read_text() == "first line\nlast words\n"
    until(lambda: not log.parent.exists(), "end of what was in memory")
    after.close()


def test_while_the_disk_takes_nothing_so_much_waits_and_the_oldest_is_given_up(board: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    book = Logbook(board, logs)
    log = book.open(1) / "rank-0.log"
    gate = tmp_path / "hangs"
    os.mkfifo(gate)
    stuck = book._disk.ask(gate.read_bytes)  # a disk that hangs
    book.look(100.0)  # waits behind it
    write(log, b"o" * MIB)
    write(log, os.urandom(subject.MOST_WAITING_BYTES))
    write(log, b"the end\n")
    book.look(200.0)
    assert log.stat().st_blocks * 512 < 2 * MIB
    gate.write_bytes(b"")  # it is back
    until(lambda: stuck.over, "disk")
    look(book)
    kept = logs / "attempt-1/rank-0.log"
    assert kept.stat().st_size == log.stat().st_size
    assert kept.read_bytes().endswith(b"the end\n")
    assert kept.stat().st_blocks * 512 < 2 * MIB  # a hole stays one
    book.close()


def test_on_a_full_disk_no_more_waits_than_on_one_that_hangs(board: Path, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")  # refused at once, each time
    book = Logbook(board, tmp_path / "logs")
    log = book.open(1) / "rank-0.log"
    write(log, os.urandom(subject.MOST_WAITING_BYTES + MIB))
    look(book)
    assert log.stat().st_blocks * 512 < 2 * MIB
    book.close()


def test_an_attempt_that_never_was_leaves_nothing_whoever_opened_it(board: Path, tmp_path: Path) -> None:
    before = Logbook(board, tmp_path / "logs")
    write(before.open(2, waits=True) / "rank-0.log", b"imported\n")
    look(before)
    after = Logbook(board, tmp_path / "logs")  # nobody closed the one before
    write(after.open(2) / "rank-0.log", b"begun\n")
    look(after)
    write(after.open(3, waits=True) / "rank-0.log", b"imported\n")
    look(after)
    after.forget(3)
    after.close()
    assert {path.name: path.read_text() for path in (tmp_path / "logs").rglob("*.log")} == {"rank-0.log": "begun\n"}
    assert list((board / "logs").iterdir()) == []


def test_what_stood_by_is_carried_once_it_begins(board: Path, tmp_path: Path) -> None:
    book = Logbook(board, tmp_path / "logs")
    write(book.open(2, waits=True) / "rank-0.log", b"imported\n")
    look(book)
    assert not (tmp_path / "logs").exists()
    book.begin(2)
    book.close()
    assert (tmp_path / "logs/attempt-2/rank-0.log").read_text() == "imported\n"


def test_a_directory_that_is_opened_anew_is_not_taken_away_with_what_a_killed_supervisor_left(
    board: Path, tmp_path: Path
) -> None:
    write(Logbook(board, tmp_path / "logs").open(1) / "rank-0.log", b"nobody wrote down that it began\n")
    for _ in range(200):
        book = Logbook(board, tmp_path / "logs")
        book._carrying = book._disk.ask(book._carry)
        directory = book.open(1)
        until(lambda book=book: book._carrying.over, "carrying")
        assert directory.is_dir()
        write(directory / "rank-0.log", b"again\n")


def test_a_full_disk_is_tried_again(board: Path, tmp_path: Path) -> None:
    book = Logbook(board, tmp_path / "logs")
    write(book.open(1) / "rank-0.log", b"line\n")
    (tmp_path / "logs").write_text("in the way")
    look(book)
    book.finish(1)
    (tmp_path / "logs").unlink()
    book.close()
    assert (tmp_path / "logs/attempt-1/rank-0.log").read_text() == "line\n"
