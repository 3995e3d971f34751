"""Processes that say nothing are asked: real ones, stopped, locked, deaf, and gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from harness import until

from supervisor.owner import start_ticks
from supervisor.policy.stalls import Account
from supervisor.watch.witness import Suspect, accounts_of, bare_account, catches, frames_of, spied_frames, state_of

SIGNAL = signal.SIGRTMIN + 7
ANSWERS = """
import faulthandler, signal, sys
stacks = open(sys.argv[1], "a")
faulthandler.register(signal.SIGRTMIN + 7, file=stacks, all_threads=True, chain=False)
"""
LOCKED = """
import threading
def waits_for_ever():
    lock = threading.Lock()
    lock.acquire()
    print("ready", flush=True)
    lock.acquire()
waits_for_ever()
"""
#: One call in C that holds the interpreter's lock for hours.
BUSY = """
import re
def matches():
    print("ready", flush=True)
    re.match("(a+)+$", "a" * 60 + "b")
matches()
"""

Begin = Callable[..., Suspect]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """A process that has printed `ready`."""
    started: list[subprocess.Popen[str]] = []

    def start(source: str, rank: int = 0) -> Suspect:
        (tmp_path / f"program{rank}.py").write_text(dedent(source))
        stacks = tmp_path / f"rank-{rank}.stacks.txt"
        command = [sys.executable, str(tmp_path / f"program{rank}.py"), str(stacks)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return Suspect(rank, process.pid, start_ticks(process.pid) or 0, stacks)

    yield start
    for process in started:
        process.kill()
        process.wait()


def asked(*suspects: Suspect, limit_s: float = 60.0, native: bool = False) -> list[Account]:
    return accounts_of(suspects, signum=SIGNAL, heading="settled steps [7]", limit_s=limit_s, native=native)


@pytest.mark.parametrize(("program", "function"), [(LOCKED, "waits_for_ever"), (BUSY, "matches")])
def test_a_process_tells_where_it_is_though_it_is_locked_or_holds_the_interpreter(
    begin: Begin, program: str, function: str
) -> None:
    suspect = begin(ANSWERS + program)
    [account] = asked(suspect)
    assert account.frames is not None
    assert f"program0.py:{function}" in account.frames[:3]
    assert account.files == ("rank-0.stacks.txt",)
    written = suspect.stacks.read_text()
    assert f"--- rank 0, process {suspect.pid}, state " in written
    assert "settled steps [7] ---" in written
    assert state_of(suspect.pid) in ("S", "R")  # and lives on


def test_a_stopped_process_is_seen_to_be_stopped_and_stays_so(begin: Begin) -> None:
    stopped, other = begin(ANSWERS + LOCKED, 0), begin(ANSWERS + LOCKED, 1)
    os.kill(stopped.pid, signal.SIGSTOP)
    until(lambda: state_of(stopped.pid) == "T", "stop")
    one, two = asked(stopped, other, native=True)
    assert one.state == "T"
    assert two.frames is not None
    assert "program1.py:waits_for_ever" in two.frames
    assert state_of(stopped.pid) == "T"
    os.kill(stopped.pid, signal.SIGCONT)
    until(lambda: state_of(stopped.pid) in ("S", "R"), "going on")
    assert "Current thread" not in stopped.stacks.read_text()  # no signal waited for it


def test_a_process_that_does_not_know_the_signal_does_not_get_it(begin: Begin) -> None:
    deaf = begin(LOCKED)
    blocks = begin(
        ANSWERS + "import threading\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN + 7})\n" + LOCKED, 1
    )
    assert not catches(deaf.pid, SIGNAL)
    assert not catches(blocks.pid, SIGNAL)
    accounts = asked(deaf, blocks, limit_s=3.0)
    assert [account.rank for account in accounts if account.state in ("S", "R")] == [0, 1]
    assert {state_of(suspect.pid) for suspect in (deaf, blocks)} <= {"S", "R"}


def test_a_process_that_is_gone_and_one_that_has_its_number_are_left_alone(begin: Begin) -> None:
    suspect = begin(ANSWERS + LOCKED)
    size = suspect.stacks.stat().st_size
    other = Suspect(0, suspect.pid, suspect.start_ticks + 1, suspect.stacks)
    assert asked(other) == [Account(rank=0)]
    assert bare_account(other) == Account(rank=0)
    assert suspect.stacks.stat().st_size == size
    os.kill(suspect.pid, signal.SIGKILL)
    until(lambda: start_ticks(suspect.pid) is None, "end")
    assert asked(suspect) == [Account(rank=0)]


def test_all_of_it_takes_no_longer_than_it_may(begin: Begin, tmp_path: Path) -> None:
    silent = begin(LOCKED)
    refused = Suspect(1, silent.pid, silent.start_ticks, tmp_path / "missing" / "rank-1.stacks.txt")
    began_s = time.monotonic()
    accounts = asked(silent, refused, limit_s=1.0, native=True)
    assert time.monotonic() - began_s < 15.0
    assert [account.pid for account in accounts] == [silent.pid, silent.pid]
    assert accounts[1].files == ()


def test_the_main_thread_is_the_last_one_and_packages_are_named_without_their_place() -> None:
    dump = dedent("""\
        Thread 0x00007f850d4ec6c0 (most recent call first):
          File "/x/lib/python3.11/threading.py", line 982 in run

        Current thread 0x00007f850e47db80 (most recent call first):
          File "/venv/lib/python3.11/site-packages/torch/distributed/distributed_c10d.py", line 4287 in all_gather
          File "/home/me/train.py", line 5 in <module>
        """)
    assert frames_of(dump) == ("torch/distributed/distributed_c10d.py:all_gather", "train.py:<module>")
    assert frames_of("") == ()
    assert frames_of("kernel:\n[<0>] futex_do_wait+0x46/0x90\n") == ()


def test_what_py_spy_says_is_read_for_the_main_thread_and_for_python_alone() -> None:
    dump = dedent("""\
        Process 7: python train.py
        Python v3.11.7

        Thread 7 (idle): "MainThread"
            clock_nanosleep (libc.so.6)
            Trace.on_step_end (tiny_trainer.py:125)
            <module> (train.py:10)
        Thread 8 (idle): "Thread-1 (other)"
            other (p.py:5)
        """)
    assert spied_frames(dump) == ("tiny_trainer.py:on_step_end", "train.py:<module>")
    assert spied_frames("Error: Failed to get stack traces\n") == ()
