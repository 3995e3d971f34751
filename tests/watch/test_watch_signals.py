"""Real signals, noted by a handler and read by a loop."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator

import pytest
from harness import until

from supervisor.watch.signals import Inbox, listen

CAUGHT = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    before = {signum: signal.getsignal(signum) for signum in CAUGHT}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored
    yield listen(CAUGHT)
    for signum, handler in before.items():
        signal.signal(signum, handler)


def readable(inbox: Inbox, patience_s: float = 0.0) -> bool:
    return bool(select.select([inbox.fd], [], [], patience_s)[0])


def waiting(inbox: Inbox) -> int:
    """How many signals have not been read."""
    return struct.unpack("i", fcntl.ioctl(inbox.fd, termios.FIONREAD, b"\0" * 4))[0]


def test_every_signal_is_read_once_in_the_order_it_came(inbox: Inbox) -> None:
    assert not readable(inbox)
    assert inbox.read() == []
    sent = [signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP]
    for n, signum in enumerate(sent, 1):
        signal.raise_signal(signum)  # the interpreter calls a handler soon after it, and only once for two of a kind
        until(lambda n=n: waiting(inbox) == n, f"signal {n}")
    assert inbox.read() == sent
    assert not readable(inbox)
    assert inbox.read() == []


def test_a_signal_wakes_whoever_waits(inbox: Inbox) -> None:
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert readable(inbox, patience_s=60.0)
    assert inbox.read() == [signal.SIGTERM]


def test_a_full_inbox_loses_signals_and_not_the_process(inbox: Inbox) -> None:
    for _ in range(70_000):  # more than a pipe holds
        inbox.note(signal.SIGUSR1)
    signal.raise_signal(signal.SIGTERM)
    assert len(inbox.read()) == 4096


def test_only_the_main_thread_can_listen() -> None:
    failures: list[Exception] = []

    def run() -> None:
        try:
            listen([signal.SIGUSR1])
        except ValueError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(failures) == 1


@pytest.mark.parametrize(("started_by", "expected"), [("SIG_IGN", "[]"), ("SIG_DFL", "['SIGHUP']")])
def test_a_hangup_that_nohup_ignores_stays_ignored(started_by: str, expected: str) -> None:
    program = f"""
import signal
from supervisor.watch.signals import listen
signal.signal(signal.SIGHUP, signal.{started_by})
inbox = listen([signal.SIGHUP, signal.SIGTERM])
signal.raise_signal(signal.SIGHUP)
print([s.name for s in inbox.read()])
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=180)
    assert done.stdout.strip() == expected
