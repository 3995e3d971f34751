"""A hub and lines in one process, pumped in turn; time is an argument, so a silence takes no time.

Their clock goes with the real one, except that it stands still with the process: where other tests have the machine
for seconds, nobody here has been silent meanwhile.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from harness import until

from supervisor.link.address import Address, new_token
from supervisor.link.events import Event, Heard
from supervisor.link.hub import Hub
from supervisor.link.line import Line
from supervisor.link.wire import Decoder, Frame

T = TypeVar("T")
PATIENCE_S = 60.0
#: The most that passes between two looks [s].
LOOK_S = 0.25


@dataclass
class End:
    """A line, or the hub, and what it has reported."""

    of: Hub | Line
    events: list[Event] = field(default_factory=list)
    stopped: bool = False

    def seen(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    def heard(self, kind: str) -> list[Frame]:
        return [event.frame for event in self.seen(Heard) if event.frame.kind == kind]


@dataclass
class World:
    token: bytes = field(default_factory=new_token)
    now_s: float = field(default_factory=time.monotonic)
    ends: list[End] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hub = Hub("127.0.0.1", 0, self.token, {"run": "r"})
        self.address = Address(*self.hub.address, self.token)
        self.leader = self.end(self.hub)
        self._seen_s = self.now_s

    def end(self, of: Hub | Line) -> End:
        self.ends.append(End(of))
        return self.ends[-1]

    def line(self, node: int, where: Callable[[], Address | None] | None = None, **told: Any) -> End:
        return self.end(Line(where or (lambda: self.address), {"node": node, **told}))

    def member(self, node: int, **told: Any) -> End:
        """A line that has joined."""
        end, before = self.line(node, **told), len(self.leader.events)
        self.until(lambda: end.of.joined and len(self.leader.events) > before, f"node {node} at the leader")
        return end

    def stranger(self, said: bytes = b"") -> socket.socket:
        """A connection that says something, and whatever follows is up to the test."""
        connection = socket.create_connection(self.hub.address, timeout=PATIENCE_S)
        self.sockets.append(connection)
        connection.sendall(said)
        return connection

    def pump(self) -> None:
        seen_s = time.monotonic()
        self.now_s += min(seen_s - self._seen_s, LOOK_S)
        self._seen_s = seen_s
        for end in self.ends:
            if not end.stopped:
                end.events += end.of.pump(self.now_s)

    def until(self, condition: Callable[[], T | None], what: str) -> T:
        def pumped() -> T | None:
            self.pump()
            return condition()

        return until(pumped, what, PATIENCE_S)

    def rounds(self, count: int) -> None:
        for _ in range(count):
            self.pump()

    def skip(self, seconds: float, step_s: float = 0.25) -> None:
        """Let time pass, in the steps in which a loop would pump."""
        for _ in range(round(seconds / step_s)):
            self.now_s += step_s
            self.rounds(3)

    def close(self) -> None:
        for end in self.ends:
            end.of.close()
        for connection in self.sockets:
            connection.close()


@contextmanager
def world() -> Iterator[World]:
    made = World()
    try:
        yield made
    finally:
        made.close()


def frames_from(connection: socket.socket, world: World, count: int = 1) -> list[Frame]:
    """The next frames that the hub sends to a stranger's socket, pumping it meanwhile."""
    decoder, frames = Decoder(), []
    connection.setblocking(False)

    def found() -> bool:
        try:
            frames.extend(decoder.feed(connection.recv(4096)))
        except BlockingIOError:
            pass
        return len(frames) >= count

    world.until(found, f"{count} frames")
    connection.setblocking(True)
    return frames


def got(connection: socket.socket, world: World) -> bytes:
    """All that the hub ever sends to a socket, until it hangs up."""
    connection.setblocking(False)
    said = bytearray()

    def ended() -> bool:
        try:
            piece = connection.recv(4096)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
        said.extend(piece)
        return not piece

    world.until(ended, "end of the connection")
    return bytes(said)
