"""What a leader pays for its members, and how soon it notices that one is gone.

Measured: a hub in this process, pumped as the supervisor's loop pumps it (`select`, then
`pump`), and 1,000 members on the loopback in another process: raw sockets that speak the real
protocol. Each beats once a second and sends a state of about 300 bytes once a second, spread
evenly. The CPU time of this process over a stretch of it, as a share of one core, includes
reading the states as JSON. Then real members, processes of their own, are killed (SIGKILL) and
stopped (SIGSTOP) one after the other while the thousand go on: the time from the signal to
`Lost`. None of the thousand may be lost.

Not shown: a real network, and what the supervisor does with the states.

Run it (exit 1 if a target is missed):
    python -m tests.bench.link_members --members 1000
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from supervisor.link.address import Address, new_token
from supervisor.link.events import Event, Heard, Joined, Lost
from supervisor.link.handshake import answer, hello, read_challenge
from supervisor.link.hub import PUMP_S, Hub
from supervisor.link.line import Line
from supervisor.link.wire import Decoder, Frame, encode

SHARE, NOTICED_S = 0.10, 5.0
STATE = {
    "attempt": 3,
    "rank_steps": [123456, 123456, 123455, 123456, 123456, 123456, 123456, 123456],
    "phase": "step",
    "losses": [1.2345678, 1.3456789, float("nan"), 1.4567891],
    "alive": True,
    "snapshot": [0, 123455],
    "memory_bytes": 81604378624,
    "workers": [41234, 41235, 41236, 41237, 41238, 41239, 41240, 41241],
}


def main() -> None:
    arguments = argparse.ArgumentParser(description="CPU share of a hub, and how soon it notices losses")
    arguments.add_argument("--members", type=int, default=1000)
    arguments.add_argument("--seconds", type=float, default=30.0, help="of steady talk to watch")
    arguments.add_argument("--repeats", type=int, default=5, help="of each kind of loss")
    arguments.add_argument("--crowd", help=argparse.SUPPRESS)
    arguments.add_argument("--one", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    for role, what in ((given.crowd, crowd), (given.one, one)):
        if role:
            values = json.loads(role)
            what(Address.parse(values["address"]), values["members"])
            return
    sys.exit(not Leader(given.members).measured(given.seconds, given.repeats))


class Leader:
    """The hub, and who it is measured with."""

    def __init__(self, members: int) -> None:
        token = new_token()
        self.members = members
        self.hub = Hub("127.0.0.1", 0, token, {"run": "bench"})
        self.address = Address(*self.hub.address, token)
        self.heard = self.pumps = 0

    def start(self, role: str, members: list[int]) -> subprocess.Popen[bytes]:
        told = json.dumps({"address": self.address.encode(), "members": members})
        return subprocess.Popen([sys.executable, "-m", "tests.bench.link_members", role, told])

    def pump(self) -> list[Event]:
        select.select([self.hub.fd], [], [], PUMP_S)
        events = self.hub.pump(time.monotonic())
        self.pumps += 1
        self.heard += sum(isinstance(event, Heard) for event in events)
        return events

    def until(self, condition: Callable[[Event], bool], what: str, patience_s: float = 120.0) -> float:
        """Pump until something happens; the time at which it did [s]."""
        end_s = time.monotonic() + patience_s
        while time.monotonic() < end_s:
            for event in self.pump():
                assert not (isinstance(event, Lost) and event.node <= self.members), f"one of the crowd: {event}"
                if condition(event):
                    return time.monotonic()
        raise AssertionError(f"no {what} within {patience_s} s")

    def measured(self, seconds: float, repeats: int) -> bool:
        began_s = time.monotonic()
        crowd = self.start("--crowd", list(range(1, self.members + 1)))
        try:
            self.until(lambda _: len(self.hub.nodes) == self.members, "members")
            print(f"{self.members} members have joined after {time.monotonic() - began_s:.1f} s")
            self.share(5.0)  # until the pace is steady
            share = self.share(seconds)
            noticed = [self.noticed(number, n) for number in (signal.SIGKILL, signal.SIGSTOP) for n in range(repeats)]
        finally:
            crowd.kill()
            crowd.wait()
        return share < SHARE and max(noticed) < NOTICED_S

    def share(self, seconds: float) -> float:
        self.heard = self.pumps = 0
        before, began_s = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        while time.monotonic() < began_s + seconds:
            lost = [event for event in self.pump() if isinstance(event, Lost)]
            assert not lost, lost
        after, wall_s = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - began_s
        user_s, system_s = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        share = (user_s + system_s) / wall_s
        print(
            f"hub: {100 * share:.1f} % of a core over {wall_s:.0f} s (user {100 * user_s / wall_s:.1f} %), "
            f"{self.heard / wall_s:.0f} states/s, {self.pumps / wall_s:.0f} pumps/s; target under {100 * SHARE:.0f} %"
        )
        assert self.heard / wall_s > 0.9 * self.members, "the members did not talk as they should"
        return share

    def noticed(self, number: signal.Signals, n: int) -> float:
        """How long it takes to notice that a member is gone [s]."""
        node = self.members + 1 + n
        with self.start("--one", [node]) as member:
            try:
                self.until(lambda event: isinstance(event, Joined) and event.node == node, "member")
                heard_s = self.until(lambda event: isinstance(event, Heard) and event.node == node, "word of it")
                phase_s = n / 5 % 1.0
                while time.monotonic() < heard_s + phase_s:
                    self.pump()
                os.kill(member.pid, number)
                struck_s = time.monotonic()
                lost_s = self.until(lambda event: isinstance(event, Lost) and event.node == node, "loss") - struck_s
            finally:
                member.kill()
        print(f"{number.name} of a member: noticed after {lost_s:.3f} s; target within {NOTICED_S:.0f} s")
        return lost_s


def one(address: Address, nodes: list[int]) -> None:
    """A real member, talking once a second."""
    line, said_s = Line(lambda: address, {"node": nodes[0]}), 0.0
    while True:
        now_s = time.monotonic()
        line.pump(now_s)
        if line.joined and now_s > said_s + 1.0:
            said_s = now_s
            line.post(Frame("state", STATE))
        select.select([line.fd], [], [], PUMP_S)


def crowd(address: Address, nodes: list[int]) -> None:
    """Members that are sockets only: each beats once a second, and half a second later tells its state."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, len(nodes) + 100)), hard))
    sockets = [joined(address, node) for node in nodes]
    epoll = select.epoll()
    there = {connection.fileno(): connection for connection in sockets}
    for fd in there:
        epoll.register(fd, select.EPOLLIN)
    state, beats, count = encode(Frame("state", STATE)), encode(Frame("beat", {"n": 1})), len(sockets)
    # Turns: in each second every member beats once and tells its state once, evenly spread.
    began_s, turn = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - began_s) * 2 * count)
        for turn in range(turn, due):  # noqa: B020
            member = turn // 2 % count
            if turn % 2:
                sockets[member].sendall(beats)
            else:
                sockets[(member + count // 2) % count].sendall(state)
        turn = due
        for fd, _ in epoll.poll(0.5 / count, count):
            if not there[fd].recv(1 << 16):
                sys.exit("the hub hung up on one of the crowd")


def joined(address: Address, node: int) -> socket.socket:
    """A socket that is through with the handshake."""
    connection = socket.create_connection((address.host, address.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    decoder = Decoder()
    said = hello(address.token, {"node": node}, f"{node:032x}", os.urandom(16).hex())
    connection.sendall(encode(said))
    nonce = read_challenge(address.token, said.fields["proof"], awaited(connection, decoder))
    assert nonce is not None
    connection.sendall(encode(answer(address.token, said.fields["proof"], nonce)))
    assert awaited(connection, decoder).kind == "welcome"
    return connection


def awaited(connection: socket.socket, decoder: Decoder) -> Frame:
    while True:
        for frame in decoder.feed(connection.recv(4096)):
            return frame


if __name__ == "__main__":
    main()
