"""A network that is really cut: a router between leader and member, each in a network namespace of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from apart import LEADER, Net, allowed, net_between
from harness import BUSY_S, until
from link_processes import Process

from supervisor.link.address import new_token

LIMIT_S = 5.0 + BUSY_S


pytestmark = pytest.mark.skipif(not allowed(), reason="network namespaces cannot be made here")


@pytest.fixture
def net() -> Iterator[Net]:
    with net_between(f"link{os.getpid()}") as made:
        yield made


@contextmanager
def joined(net: Net) -> Iterator[tuple[Process, Process]]:
    token = new_token().hex()
    with Process("hub", LEADER, "0", token, through=net.there("leader")) as hub:
        port = hub.tells("ready")[1]
        with Process("line", "1", LEADER, port, token, through=net.there("member")) as line:
            hub.tells("Joined")
            line.tells("Joined")
            hub.tells("Heard", count=2)
            yield hub, line


def pass_s(seconds: float) -> None:
    end_s = time.monotonic() + seconds
    until(lambda: time.monotonic() >= end_s, "end of the cut", seconds + 60.0)


def silence_s(end: Process) -> float:
    """The longest time between two frames that an end heard."""
    heard = [float(line[2]) for line in end.told("Heard")]
    return max(b - a for a, b in pairwise(heard))


@pytest.mark.parametrize(
    ("how", "phase_s"),
    [
        ("packets lost", 0.0),
        ("packets lost", 0.2),
        ("packets lost", 0.4),
        ("cable pulled at the member", 0.1),
        ("cable pulled at the leader", 0.3),
    ],
)
def test_a_cut_of_two_seconds_is_survived(net: Net, how: str, phase_s: float) -> None:
    with joined(net) as (hub, line):
        pass_s(phase_s)
        net.cut(how, True)
        pass_s(2.0)
        net.cut(how, False)
        before = len(hub.told("Heard")), len(line.told("Heard"))
        hub.tells("Heard", count=before[0] + 2)
        line.tells("Heard", count=before[1] + 2)
        assert hub.told("Lost") == line.told("Lost") == []
        assert silence_s(hub) > 1.5, "nothing was cut"


@pytest.mark.parametrize("how", ["packets lost", "cable pulled at the member", "cable pulled at the leader"])
def test_a_longer_cut_is_noticed_on_both_sides_and_healed_soon_after_it_ends(net: Net, how: str) -> None:
    with joined(net) as (hub, line):
        cut_s = time.monotonic()
        net.cut(how, True)
        for end in (hub, line):
            assert 2.5 < float(end.tells("Lost")[2]) - cut_s < LIMIT_S
        pass_s(3.0)
        healed_s = time.monotonic()
        net.cut(how, False)
        for end in (hub, line):
            assert float(end.tells("Joined", count=2)[2]) - healed_s < 4.0 + BUSY_S
