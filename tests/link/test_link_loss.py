"""Real processes that are killed or stopped: the other end notices within five seconds, whatever happened."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from harness import BUSY_S
from link_processes import Process

from supervisor.link.address import new_token

LIMIT_S = 5.0 + BUSY_S


@contextmanager
def joined() -> Iterator[tuple[Process, Process, Process, list[str]]]:
    """A hub and two members in processes of their own, and how to reach the hub."""
    token = new_token().hex()
    with Process("hub", "127.0.0.1", "0", token) as hub:
        there = ["127.0.0.1", hub.tells("ready")[1], token]
        with Process("line", "1", *there) as first, Process("line", "2", *there) as second:
            for node, line in ((1, first), (2, second)):
                hub.tells("Joined", node)
                line.tells("Joined")
            yield hub, first, second, there


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_member_that_is_killed_or_stopped_is_noticed(number: signal.Signals) -> None:
    with joined() as (hub, first, _, _):
        struck_s = time.monotonic()
        first.process.send_signal(number)
        _, _, at_s, *reason = hub.tells("Lost", 1)
        assert float(at_s) - struck_s < (2.0 + BUSY_S if number == signal.SIGKILL else LIMIT_S)
        assert " ".join(reason) == ("the connection ended" if number == signal.SIGKILL else "silent for 4.0 s")
        assert hub.told("Lost", 2) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_leader_that_is_killed_or_stopped_is_noticed(number: signal.Signals) -> None:
    with joined() as (hub, first, second, _):
        struck_s = time.monotonic()
        hub.process.send_signal(number)
        for line in (first, second):
            assert float(line.tells("Lost")[2]) - struck_s < (2.0 + BUSY_S if number == signal.SIGKILL else LIMIT_S)


def test_a_member_that_goes_on_comes_back_by_itself() -> None:
    with joined() as (hub, first, _, _):
        first.process.send_signal(signal.SIGSTOP)
        hub.tells("Lost", 1)
        first.process.send_signal(signal.SIGCONT)
        hub.tells("Joined", 1, count=2)
        first.tells("Joined", count=2)
        assert hub.told("Lost", 2) == []


def test_a_new_leader_in_the_same_place_finds_its_members_again() -> None:
    with joined() as (hub, first, second, there):
        hub.process.kill()
        hub.process.wait()
        with Process("hub", *there) as successor:
            for node, line in ((1, first), (2, second)):
                successor.tells("Joined", node)
                line.tells("Joined", count=2)
