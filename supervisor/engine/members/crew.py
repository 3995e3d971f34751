"""The members, as the leader has them: what they were told last, what they said last, and who was lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from supervisor.board.pages import Beat
from supervisor.board.slots import Identity
from supervisor.engine.attempt import AttemptOrder
from supervisor.engine.members.gathering import Gathering, NoPart
from supervisor.engine.members.messages import PART, PARTED, SEEN, WANTED, MessageError, Seen, Wanted
from supervisor.engine.members.news import News
from supervisor.engine.members.warnings import Warnings
from supervisor.engine.ranks.node import Testimony
from supervisor.errors import ExitCode
from supervisor.link.events import Event, Heard, Joined, Lost
from supervisor.link.hub import Hub
from supervisor.link.wire import Frame
from supervisor.policy.lifecycle import Gang
from supervisor.policy.stalls import Account

#: How long what is said last may take to arrive [s].
DISMISS_S = 2.0


@dataclass(frozen=True, slots=True)
class Loss:
    """A member that was lost.

    Attributes:
        node: its number.
        host: its machine's name.
        reason: how that was noticed.
    """

    node: int
    host: str
    reason: str

    def __str__(self) -> str:
        return f"node {self.node} ({self.host}): {self.reason}"


class Crew:
    """All nodes but the leader's own.

    Attributes:
        nodes: how many take part, the leader's included.
        losses: members lost in the attempt under way.
        news: what was heard of them and nobody has taken yet.
        warnings: what their clouds gave notice of.
        dismissed: they have been told to leave, and nothing is heard of them any more.
    """

    def __init__(self, hub: Hub, nodes: int, wanted: Wanted, accept: Callable[[Mapping[str, Any]], str | None]) -> None:
        """Know nobody yet.

        Args:
            hub: where they come in.
            nodes: how many take part, the leader's included.
            wanted: what is wanted of them at first.
            accept: asked with what a member says of itself; why it cannot take part, None if it can.
        """
        self._hub, self.nodes, self._wanted, self._accept = hub, nodes, wanted, accept
        self.losses: list[Loss] = []
        self.news = News()
        self.warnings = Warnings()
        self._seen: dict[int, Seen] = {}
        self._there: set[int] = set()
        self._hosts: dict[int, str] = {}
        self._gathering: Gathering | None = None
        self._number = 0
        self.dismissed = False
        self._ended: set[int] = set()  # nodes whose connection ended, and that have not come back
        self._members = list(range(1, nodes))  # numbers, in the order of their ranks
        self._under_way = False  # an attempt, until it is closed: who is lost while it is being ended is lost in it

    @property
    def fd(self) -> int:
        """Readable when there is something to hear."""
        return self._hub.fd

    # -- hearing

    def look(self, now_s: float) -> bool:
        """Hear what has come; whether any of it is more than that all goes on.

        Args:
            now_s: monotonic time [s].
        """
        if self.dismissed:
            return False
        news = False
        for event in self._hub.pump(now_s):
            news = self._take(event) or news
        return news

    def _take(self, event: Event) -> bool:
        match event:
            case Joined(node, fields):
                self._join(node, fields)
            case Lost(node, reason):
                self._lose(node, reason)
            case Heard(node, frame) if node in self._there:  # one that was sent away may have said more before it left
                try:
                    return self._hear(node, frame)
                except (MessageError, KeyError, TypeError, ValueError, OverflowError) as error:
                    self._hub.drop(node, f"not understood: {error}")
                    self._lose(node, f"what it said was not understood: {error}")
        return True

    def _join(self, node: int, fields: Mapping[str, Any]) -> None:
        host = str(fields.get("host", "?"))
        wrong = self._accept(fields) if node in self._members else f"the run goes on without node {node}"
        if wrong is not None:
            self.news.sent_away(node, f"node {node} ({host}): {wrong}")
            self._hub.drop(node, wrong)
            return
        self.news.joined(node)
        self._hosts[node] = host
        self._ended.discard(node)
        self._seen.pop(node, None)
        self._there.add(node)
        if self._gathering is not None and node in self._gathering.awaited:
            self._gathering.problem = NoPart(f"node {node} came back over a new connection", again=True)
        self._post(node)

    def _lose(self, node: int, reason: str) -> None:
        self._seen.pop(node, None)
        if not reason.startswith("silent"):
            self._ended.add(node)
        self._there.discard(node)
        if self._gathering is not None and node in self._gathering.awaited:
            self._gathering.problem = NoPart(f"node {node} was lost", again=True)
        if self._under_way and not self._is_lost(node) and node in self._members:
            self.losses.append(Loss(node, self.host_of(node), reason))

    def _hear(self, node: int, frame: Frame) -> bool:
        match frame.kind:
            case kind if kind == SEEN:
                seen, before = Seen.read(frame.fields), self._seen.get(node)
                self._seen[node] = seen
                host = self.host_of(node)
                self.news.hear(host, seen, before)
                self.warnings.hear(node, seen.warned, host)
                return seen.is_news(before)
            case kind if kind == PART:
                if self._gathering is not None and frame.fields["number"] == self._gathering.number:
                    self._gathering.take(frame)
                    return self._gathering.problem is not None  # there may be thousands, and the last word is PARTED
            case kind if kind == PARTED:
                self._parted(node, frame.fields)
        return True

    def _parted(self, node: int, fields: Mapping[str, Any]) -> None:
        if self._gathering is None or fields["number"] != self._gathering.number:
            return
        self._gathering.awaited.discard(node)
        if fields["problem"] is not None:
            self._gathering.problem = NoPart(f"node {node}: {fields['problem']}", again=bool(fields["again"]))

    # -- saying

    def want(self, **changes: Any) -> None:
        """Change what is wanted of every member."""
        changed = replace(self._wanted, **changes)
        if changed != self._wanted:
            self._wanted = changed
            for node in self._members:
                self._post(node)

    def _post(self, node: int) -> None:
        wanted = self._wanted
        if wanted.order is not None:
            meeting = replace(wanted.order.rendezvous, node=self.rank_of(node))
            wanted = replace(wanted, order=replace(wanted.order, rendezvous=meeting))
        self._hub.post(node, Frame(WANTED, wanted.fields()))

    def begin(self, order: AttemptOrder, **orders: int) -> None:
        """Have every member begin an attempt; who left while it was being prepared is lost to it."""
        self.losses.clear()
        gone = [node for node in self.counted if node not in self._there]
        self.losses += [Loss(node, self.host_of(node), "it left before the attempt began") for node in gone]
        self._under_way = True
        self.want(order=order, kill=False, part=None, inquiry=0, **orders)

    def close_attempt(self) -> None:
        """The attempt has been dealt with: who was lost in it, and is back, counts again."""
        self.losses.clear()
        self._gathering, self._under_way = None, False
        self.want(kill=True, part=None)

    # -- how they are

    def _is_lost(self, node: int) -> bool:
        return any(loss.node == node for loss in self.losses)

    @property
    def counted(self) -> list[int]:
        """The nodes that are not lost."""
        return [node for node in self._members if not self._is_lost(node)]

    def rank_of(self, node: int) -> int:
        """Which of the nodes that take part this one is, the leader being 0."""
        return self._members.index(node) + 1

    def go_on_without(self, missing: Sequence[int]) -> None:
        """Take those that are missing from the crew for good; the others move up."""
        self.warnings.forget(missing)
        self._members = [node for node in self._members if node not in missing]
        self.nodes = len(self._members) + 1

    def _of_this_attempt(self, node: int) -> Seen | None:
        seen, order = self._seen.get(node), self._wanted.order
        return seen if seen is not None and order is not None and seen.attempt == order.number else None

    def gangs(self) -> list[Gang]:
        """Of each node that counts; one that has not begun yet counts as alive."""
        found = []
        for node in self.counted:
            seen = self._of_this_attempt(node)
            found.append(Gang.ALIVE if seen is None else seen.gang)
        return found

    def beats(self, processes: int) -> list[Beat]:
        """Of every rank of the nodes that count; empty ones where nothing is known.

        Args:
            processes: ranks on each node.
        """
        found: list[Beat] = []
        for node in self.counted:
            seen = self._of_this_attempt(node)
            found += seen.beats if seen is not None and seen.beats else [Beat()] * processes
        return found

    def accounts(self, number: int) -> tuple[list[Account], bool]:
        """What the ranks of the nodes that count are at, and whether all of those have answered.

        Args:
            number: of the question.
        """
        found: list[Account] = []
        nodes = self.counted
        answers = [one for one in map(self._of_this_attempt, nodes) if one is not None and one.answered == number]
        for one in answers:
            found += one.accounts
        return found, len(answers) == len(nodes)

    def host_of(self, node: int) -> str:
        """Name of a node's machine, by its own word."""
        return self._hosts.get(node, "?")

    def testimonies(self) -> list[Testimony]:
        """How the attempt ended on each node that counts."""
        seen = (self._of_this_attempt(node) for node in self.counted)
        return [Testimony() if one is None else one.testimony for one in seen]

    def failures(self) -> list[str]:
        """Why the attempt could not be begun somewhere."""
        found = ((node, self._of_this_attempt(node)) for node in self.counted)
        return [
            f"node {n} ({self._hosts.get(n)}): {one.failure}" for n, one in found if one is not None and one.failure
        ]

    def gpu_faults(self) -> list[tuple[str, str]]:
        """Nodes where no attempt can succeed, by name, and what is wrong with their GPUs."""
        found = ((node, self._of_this_attempt(node)) for node in self.counted)
        return [(self.host_of(n), one.gpu_fault) for n, one in found if one is not None and one.gpu_fault]

    @property
    def lingers(self) -> bool:
        """Whether processes of a finished gang stay longer than they should."""
        return any(one.lingers for one in map(self._of_this_attempt, self.counted) if one is not None)

    def ready(self) -> set[int]:
        """Nodes that are there, with nothing of an earlier attempt left."""
        return {node for node, seen in self._seen.items() if seen.gang in (Gang.NONE, Gang.GONE)}

    def absent(self) -> list[int]:
        """Numbers of the nodes that are not ready."""
        ready = self.ready()
        return [node for node in self._members if node not in ready]

    @property
    def ended(self) -> bool:
        """Whether every node that is absent went with its connection: its process is gone, or its machine is down."""
        return set(self.absent()) <= self._ended

    def missing(self) -> Sequence[str]:
        """Who is not ready, for people."""
        named = ((node, self._hosts.get(node)) for node in self.absent())
        return [f"node {node}" + (f" ({host})" if host is not None else "") for node, host in named]

    def has(self, identity: Identity) -> bool:
        """Whether every node that counts has this snapshot whole."""
        return all(node in self._seen and identity in self._seen[node].whole for node in self.counted)

    # -- parts of a checkpoint

    def gather(self, identity: Identity) -> None:
        """Ask every node that counts for its ranks' own parts of a snapshot."""
        self._number += 1
        self._gathering = Gathering(self._number, set(self.counted))
        self.want(part=(self._number, identity))

    @property
    def gathering(self) -> Gathering | None:
        """The parts that are coming in; None while none were asked for."""
        return self._gathering

    def gathered(self) -> None:
        """They have been used, or are not wanted any more."""
        self._gathering = None
        self.want(part=None)

    # -- leaving

    def dismiss(self, code: int | None, *, keep: bool) -> None:
        """Have every member leave with this exit code, and hang up; a second time nothing happens.

        Args:
            code: None for a leader that leaves undecided: then the run goes on elsewhere.
            keep: their boards are needed by whoever goes on with the run.
        """
        if self.dismissed:
            return
        self.dismissed = True
        self.want(leave=ExitCode.HANDED_BACK if code is None else code, kill=True, keep=keep)
        self._hub.flush(DISMISS_S)
        self._hub.close()
