"""A node asks its ranks on a thread; what hangs there holds up nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import until

from supervisor.board.environment import trace_environment, trace_file, trace_pipe
from supervisor.board.pages import Beat
from supervisor.engine.ranks.inquiry import Accounts, Inquiry
from supervisor.owner import start_ticks

PROGRAM = """
import faulthandler, signal, sys, time
faulthandler.register(signal.SIGRTMIN + 7, file=open(sys.argv[1], "a"), all_threads=True, chain=False)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def beat(tmp_path: Path) -> Iterator[Beat]:
    """Of rank 4, a process that answers."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "rank-4.stacks.txt")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield Beat(pid=process.pid, start_ticks=start_ticks(process.pid) or 0, step=7)
    process.kill()
    process.wait()


def answer(inquiry: Inquiry) -> Accounts:
    return until(inquiry.answer, "answer")


def test_the_ranks_of_a_node_are_asked_by_their_global_numbers(tmp_path: Path, beat: Beat) -> None:
    inquiry = Inquiry(tmp_path, lambda: [93, None], limit_s=10.0)
    inquiry.ask(1001, [beat, Beat()], tmp_path, 4, native=False)
    four, five = answer(inquiry)
    assert (four.rank, four.pid, four.frames, four.gpu_percent) == (4, beat.pid, ("<string>:<module>",), 93)
    assert four.state in ("S", "R")
    assert (five.rank, five.pid, five.state, five.gpu_percent) == (5, 0, None, None)
    assert inquiry.number == 1001


def test_files_that_hang_cost_the_stacks_and_no_more_than_the_time_that_is_given(tmp_path: Path, beat: Beat) -> None:
    (tmp_path / "rank-4.stacks.txt").unlink()
    os.mkfifo(tmp_path / "rank-4.stacks.txt")  # whoever opens it to write waits for a reader
    os.kill(beat.pid, signal.SIGSTOP)
    inquiry = Inquiry(tmp_path, list, limit_s=3.0)
    for number in (1, 2):
        began_s = time.monotonic()
        inquiry.ask(number, [beat], tmp_path, 4, native=False)
        assert time.monotonic() - began_s < 2.0
        [account] = answer(inquiry)
        assert (account.state, account.frames) == ("T", None)
        assert time.monotonic() - began_s < 20.0
    with (tmp_path / "rank-4.stacks.txt").open("rb") as reader:
        assert b"settled steps [7]" in reader.readline() + reader.readline()


def test_torch_is_asked_for_its_last_collectives_where_it_listens(tmp_path: Path, beat: Beat) -> None:
    """What is told to torch and what is looked for afterwards belong together."""
    board, logs = tmp_path / "board", tmp_path / "attempt-2"
    board.mkdir()
    logs.mkdir()
    told = trace_environment(board, logs, {"PATH": "/bin", "NCCL_DEBUG": "INFO"})
    assert told["TORCH_NCCL_TRACE_BUFFER_SIZE"] == "2000"
    # As torch makes both names: a stem, to which the rank is added.
    pipe, file = (
        Path(f"{told['TORCH_NCCL_DEBUG_INFO_PIPE_FILE']}4.pipe"),
        Path(f"{told['TORCH_NCCL_DEBUG_INFO_TEMP_FILE']}4"),
    )
    assert (pipe, file) == (trace_pipe(board, logs, 4), trace_file(logs, 4))
    os.mkfifo(pipe)
    listening = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    over = threading.Event()

    def dump() -> None:
        while not over.wait(0.02):
            if os.read(listening, 128):
                file.write_bytes(b"\x80\x02")
                return

    torch = threading.Thread(target=dump)
    torch.start()
    try:
        inquiry = Inquiry(board, list, limit_s=10.0)
        inquiry.ask(2001, [beat, beat], logs, 4, native=False)
        four, five = answer(inquiry)
    finally:
        over.set()
        torch.join()
        os.close(listening)
    assert file.name in four.files
    assert "collectives-rank-5" not in five.files


@pytest.mark.parametrize(
    "name", ["TORCH_NCCL_TRACE_BUFFER_SIZE", "TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE"]
)
def test_what_a_user_has_set_of_it_is_left_alone(tmp_path: Path, name: str) -> None:
    assert trace_environment(tmp_path, tmp_path, {name: "0"}) == {}
