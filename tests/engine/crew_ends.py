"""A leader's crew and its members' lines in one process, and a node without workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from harness import until

from supervisor.board.pages import Beat, Orders
from supervisor.engine.attempt import AttemptOrder, Start
from supervisor.engine.members.crew import Crew
from supervisor.engine.members.messages import SEEN, WANTED, Seen, Wanted
from supervisor.engine.ranks.node import Testimony
from supervisor.launch.command import Rendezvous
from supervisor.link.address import Address, new_token
from supervisor.link.events import Event, Heard, Refused
from supervisor.link.hub import Hub
from supervisor.link.line import Line
from supervisor.link.wire import Frame
from supervisor.policy.lifecycle import Gang
from supervisor.policy.stalls import Account

T = TypeVar("T")


def order_of(number: int, nodes: int = 3) -> AttemptOrder:
    """An attempt of one rank on each node."""
    meeting = Rendezvous("127.0.0.1", 29400, nodes)
    return AttemptOrder(number=number, lineage=0, rendezvous=meeting, processes=1, start=Start())


@dataclass
class Ends:
    """A crew and whoever has come."""

    hub: Hub
    crew: Crew
    address: Address
    lines: dict[int, Line] = field(default_factory=dict)
    events: dict[int, list[Event]] = field(default_factory=dict)

    def come(self, node: int) -> Line:
        """Another line of this node: the one before has gone."""
        if node in self.lines:
            self.lines[node].close()
        self.lines[node] = Line(lambda: self.address, {"node": node, "host": f"host{node}"})
        self.events[node] = []
        return self.lines[node]

    def join(self, node: int, gang: Gang = Gang.NONE, attempt: int = 0) -> Line:
        """One that has come, and has said how it is."""
        line = self.come(node)
        self.until(lambda: line.joined, f"node {node}")
        self.say(node, Seen(attempt=attempt, gang=gang))
        if gang is Gang.NONE:
            self.until(lambda: node in self.crew.ready(), "word of it")
        return line

    def say(self, node: int, seen: Seen) -> None:
        self.lines[node].send(Frame(SEEN, seen.fields()))

    def told(self, node: int) -> Wanted | None:
        """What a member heard last."""
        heard = [e.frame for e in self.events[node] if isinstance(e, Heard) and e.frame.kind == WANTED]
        return Wanted.read(heard[-1].fields) if heard else None

    def refusals(self, node: int) -> list[str]:
        return [event.reason for event in self.events[node] if isinstance(event, Refused)]

    def pump(self) -> None:
        self.crew.look(time.monotonic())
        for node, line in self.lines.items():
            self.events[node] += line.pump(time.monotonic())

    def until(self, condition: Callable[[], T | None], what: str) -> T:
        def pumped() -> T | None:
            self.pump()
            return condition()

        return until(pumped, what)


@contextmanager
def ends_of(nodes: int, accept: Callable[[Mapping[str, Any]], str | None] = lambda _said: None) -> Iterator[Ends]:
    token = new_token()
    hub = Hub("127.0.0.1", 0, token, {})
    made = Ends(hub, Crew(hub, nodes, Wanted(run_id="r", epoch=1, token="t"), accept), Address(*hub.address, token))
    try:
        yield made
    finally:
        for line in made.lines.values():
            line.close()
        hub.close()


@dataclass(frozen=True)
class Settled:
    """A snapshot of which only the step is told."""

    step: int
    identity: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass
class NoMemory:
    """A board on which only the steps of snapshots are, newest first."""

    directory: Path = Path("/nonexistent")
    given: dict[str, int] = field(default_factory=dict)
    ranks: range = range(1)
    steps: list[int] = field(default_factory=list)
    tidied: list[tuple[int, int]] = field(default_factory=list)

    def wholes(self) -> list[Any]:
        return [Settled(step, (0, step, 0, 1)) for step in self.steps]

    def tidy(self, whole: Any, attempt: int) -> None:
        self.tidied.append((whole.step, attempt))

    def give_orders(self, **changes: int) -> None:
        self.given |= changes

    def release(self) -> None:
        return

    def close(self, *, remove: bool) -> None:
        return


@dataclass
class NoWorkers:
    """A node whose workers are only told of.

    Attributes:
        begun: attempts that were begun.
        fails: what beginning one raises.
        inquiries: number of each question that it was asked.
    """

    begun: list[int] = field(default_factory=list)
    fails: Exception | None = None
    order: AttemptOrder | None = None
    gang: Gang = Gang.NONE
    present: bool = False
    memory: NoMemory = field(default_factory=NoMemory)
    beats: tuple[Beat, ...] = ()
    lingers: bool = False
    shortage: str | None = None
    gpu_fault: str | None = None
    testimony: Testimony = field(default_factory=Testimony)
    fds: tuple[int, ...] = ()
    granted: bool = False
    inquiries: list[tuple[int, bool]] = field(default_factory=list)
    accounts: tuple[int, tuple[Account, ...]] | None = None

    def new_layout(self) -> bool:
        granted, self.granted = self.granted, False
        return granted

    def inquire(self, number: int, *, native: bool) -> None:
        if (number, native) not in self.inquiries:
            self.inquiries.append((number, native))

    def prepare(self, order: AttemptOrder) -> None:
        return

    def begin(self, order: AttemptOrder, orders: Orders) -> None:
        self.order = order
        if self.fails is not None:
            raise self.fails
        self.begun.append(order.number)
        self.gang, self.present = Gang.ALIVE, True

    def look(self, now_s: float) -> Gang:
        return self.gang

    def kill(self) -> None:
        self.gang = Gang.GONE

    def end(self) -> None:
        if self.present:
            self.gang = Gang.GONE

    def close(self) -> None:
        self.gang, self.present = Gang.NONE, False

    def leave(self, *, keep: bool) -> None:
        self.end()
        self.close()
        self.memory.close(remove=not keep)
