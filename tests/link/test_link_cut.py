"""A network that is really cut: a router between leader and member, each in a network namespace of its own.

A router that stops forwarding is the worst kind of cut: no reset, no carrier lost, no ICMP; packets vanish.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import pytest
from harness import until
from link_processes import Process

from supervisor.link.address import new_token

LIMIT_S = 5.0


@dataclass
class Net:
    """Namespaces `<name>-leader`, `<name>-router` and `<name>-member`."""

    name: str

    def there(self, place: str) -> list[str]:
        return ["ip", "netns", "exec", f"{self.name}-{place}"]

    def forward(self, on: bool) -> None:
        """Let the router forward, or lose, what comes."""
        run(*self.there("router"), "sysctl", "-q", "-w", f"net.ipv4.ip_forward={int(on)}")

    def plug(self, place: str, on: bool) -> None:
        """Plug an end's cable in, or pull it; a pulled one takes its routes with it."""
        run(*self.there(place), "ip", "link", "set", CABLE, "up" if on else "down")
        if on:
            run(*self.there(place), "ip", "route", "replace", "default", "via", GATEWAYS[place])


CABLE = "end0"
GATEWAYS = {"leader": "10.99.1.1", "member": "10.99.2.1"}
LEADER = "10.99.1.2"


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def allowed() -> bool:
    try:
        run("unshare", "--net", "ip", "link", "add", "end0", "type", "veth", "peer", "name", "end1")
    except (OSError, subprocess.CalledProcessError):
        return False
    return os.geteuid() == 0


pytestmark = pytest.mark.skipif(not allowed(), reason="network namespaces cannot be made here")


@pytest.fixture
def net() -> Iterator[Net]:
    net = Net(f"link{os.getpid()}")
    places = ("router", "leader", "member")
    try:
        for place in places:
            run("ip", "netns", "add", f"{net.name}-{place}")
        for n, place in enumerate(("leader", "member"), 1):
            router, end = net.there("router"), net.there(place)
            peer = ["peer", "name", CABLE, "netns", f"{net.name}-{place}"]
            run(*router, "ip", "link", "add", place, "type", "veth", *peer)
            run(*router, "ip", "address", "add", f"10.99.{n}.1/24", "dev", place)
            run(*router, "ip", "link", "set", place, "up")
            run(*end, "ip", "address", "add", f"10.99.{n}.2/24", "dev", CABLE)
            net.plug(place, True)
        net.forward(True)
        yield net
    finally:
        for place in places:
            subprocess.run(["ip", "netns", "del", f"{net.name}-{place}"], check=False, capture_output=True)


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
    until(lambda: time.monotonic() >= end_s, "end of the cut", seconds + 5.0)


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
        cut(net, how, True)
        pass_s(2.0)
        cut(net, how, False)
        before = len(hub.told("Heard")), len(line.told("Heard"))
        hub.tells("Heard", count=before[0] + 2)
        line.tells("Heard", count=before[1] + 2)
        assert hub.told("Lost") == line.told("Lost") == []
        assert silence_s(hub) > 1.5, "nothing was cut"


@pytest.mark.parametrize("how", ["packets lost", "cable pulled at the member", "cable pulled at the leader"])
def test_a_longer_cut_is_noticed_on_both_sides_and_healed_soon_after_it_ends(net: Net, how: str) -> None:
    with joined(net) as (hub, line):
        cut_s = time.monotonic()
        cut(net, how, True)
        for end in (hub, line):
            assert 2.5 < float(end.tells("Lost")[2]) - cut_s < LIMIT_S
        pass_s(3.0)
        healed_s = time.monotonic()
        cut(net, how, False)
        for end in (hub, line):
            assert float(end.tells("Joined", count=2)[2]) - healed_s < 4.0


def cut(net: Net, how: str, on: bool) -> None:
    if how == "packets lost":
        net.forward(not on)
    else:
        net.plug(how.rpartition(" ")[2], not on)
