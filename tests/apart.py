"""Two places in one machine with a network between them that can really be cut.

A router between them, in a network namespace of its own as both ends are. A router that stops forwarding is the
worst kind of cut: no reset, no carrier lost, no ICMP; packets vanish.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

CABLE = "end0"
GATEWAYS = {"leader": "10.99.1.1", "member": "10.99.2.1"}
LEADER = "10.99.1.2"


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

    def cut(self, how: str, on: bool) -> None:
        """Cut, or heal: `packets lost`, or `cable pulled at the leader` or the member."""
        if how == "packets lost":
            self.forward(not on)
        else:
            self.plug(how.rpartition(" ")[2], not on)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def allowed() -> bool:
    try:
        run("unshare", "--net", "ip", "link", "add", "end0", "type", "veth", "peer", "name", "end1")
    except (OSError, subprocess.CalledProcessError):
        return False
    return os.geteuid() == 0


@contextmanager
def net_between(name: str) -> Iterator[Net]:
    """The network, until the block ends."""
    net = Net(name)
    places = ("router", "leader", "member")
    try:
        for place in places:
            run("ip", "netns", "add", f"{net.name}-{place}")
            run(*net.there(place), "ip", "link", "set", "lo", "up")
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
