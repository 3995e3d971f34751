"""All nodes of a run as the loop has them: the leader's own, and the members where there are any."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from supervisor.board.pages import Beat
from supervisor.board.slots import Identity
from supervisor.engine.attempt import AttemptOrder
from supervisor.engine.disk import attended
from supervisor.engine.members.crew import Crew
from supervisor.engine.members.gathering import NoPart
from supervisor.engine.ranks.node import Node, Testimony, first_orders
from supervisor.engine.state.assembly import Share
from supervisor.link.hub import PUMP_S
from supervisor.policy.causes import Cause, Verdict
from supervisor.policy.crew import attendance, together
from supervisor.policy.lifecycle import Attendance, Gang
from supervisor.policy.stalls import Account
from supervisor.watch.ready import ready

#: How long nodes may take to join at the start; modules load, containers unpack [s].
JOIN_S = 300.0
#: How long a node that was lost may take to come back: a cut network heals, a dead machine does not [s].
REJOIN_S = 90.0
#: The same in a scheduler's job for one whose connection ended: nobody there starts its supervisor again [s].
ENDED_S = 20.0
#: With more members than this their news is looked at in batches, so often [s].
MANY, BATCH_S = 16, 0.05

T = TypeVar("T")


@dataclass(slots=True)
class Team:
    """Nodes taken together.

    Attributes:
        node: the leader's own.
        crew: the members; None on a single node.
        gang: the workers of all.
        scheduled: in a scheduler's job, where nobody starts a supervisor a second time.
        was_complete: every node has been there once.
        join_s: how long nodes may take to join at the start [s].
        rejoin_s: how long one that was lost may take to come back [s].
        renew: shows that this leader lives, at a monotonic time [s].
        name: of this node, as a scheduler knows it.
    """

    node: Node
    crew: Crew | None = None
    scheduled: bool = False
    gang: Gang = Gang.NONE
    was_complete: bool = False
    join_s: float = JOIN_S
    rejoin_s: float = REJOIN_S
    renew: Callable[[float], None] = lambda _now_s: None
    name: str = ""
    _killing: bool = False
    _missing_since_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.node.attend = self.attend
        self.node.memory.complete = lambda: not self.lost

    def look(self, now_s: float) -> Gang:
        """See how the workers of all nodes are.

        Args:
            now_s: monotonic time [s].
        """
        gangs = [self.node.look(now_s)]
        lost = False
        if self.crew is not None:
            self.hear(now_s)
            lost = bool(self.crew.losses)
            gangs += self.crew.gangs() if self.node.present else []
        self.gang = together(gangs, lost=lost, killing=self._killing)
        return self.gang

    def hear(self, now_s: float) -> bool:
        """Hear the members; whether there is any news."""
        assert self.crew is not None
        news = self.crew.look(now_s)
        complete = self.attendance_now() is Attendance.COMPLETE
        self.was_complete = self.was_complete or complete
        # Who is missing during an attempt was lost in it, and is waited for afterwards.
        if complete or self.node.present:
            self._missing_since_s = now_s
        return news

    def take_shortages(self) -> list[str]:
        """What has been seen of memory that comes to its end, here and on other nodes, since this was asked last."""
        own, self.node.shortage = self.node.shortage, None
        elsewhere = self.crew.news.take_shortages() if self.crew is not None else []
        return [*([own] if own is not None else ()), *(f"on {host}: {words}" for words, host in elsewhere)]

    def gpu_faults(self) -> list[tuple[str | None, str]]:
        """Nodes where no attempt can succeed, by name (None for this one), and what is wrong with their GPUs."""
        own = self.node.gpu_fault
        elsewhere = self.crew.gpu_faults() if self.crew is not None else []
        return [*([(None, own)] if own is not None else ()), *elsewhere]

    def attend(self, work: Callable[[], T]) -> T:
        """Have something done that may take long, while members go on hearing from this node, and the lease is renewed.

        A checkpoint of gigabytes is verified for longer than a leader may be silent.
        """

        def meanwhile() -> None:
            now_s = time.monotonic()
            if self.crew is not None:
                self.hear(now_s)
            self.renew(now_s)

        return attended(work, meanwhile, PUMP_S)

    def attendance_now(self) -> Attendance:
        """Whether all nodes are there for an attempt."""
        if self.crew is None:
            return Attendance.COMPLETE
        waited_s = time.monotonic() - self._missing_since_s
        patience_s = self.rejoin_s if self.was_complete else self.join_s
        if self.scheduled and self.was_complete and self.crew.ended:
            patience_s = min(patience_s, ENDED_S)
        return attendance(self.crew.absent(), waited_s, patience_s)

    def wait(self, fds: Sequence[int], timeout_s: float) -> None:
        """Sleep until one of ``fds``, a worker here, or a member has news; what members say every second is none."""
        own = [*fds, *self.node.fds]
        if self.crew is None or self.crew.dismissed:
            ready(own, timeout_s)
            return
        until_s = time.monotonic() + timeout_s
        while (left_s := until_s - time.monotonic()) > 0:
            if self.crew.nodes > MANY and ready(own, min(left_s, BATCH_S)):
                return
            woken = ready([*own, self.crew.fd], min(left_s, PUMP_S))
            if set(woken) - {self.crew.fd} or self.hear(time.monotonic()):
                return

    @property
    def beats(self) -> list[Beat]:
        """The newest beat of every rank, as far as it is known."""
        if self.crew is None:
            return self.node.beats
        return [*self.node.beats, *self.crew.beats(len(self.node.memory.ranks))]

    @property
    def lingers(self) -> bool:
        """Whether processes of a finished gang stay longer than they should."""
        return self.node.lingers or (self.crew is not None and self.crew.lingers)

    @property
    def lost(self) -> bool:
        """Whether a node was lost in the attempt under way."""
        return self.crew is not None and bool(self.crew.losses)

    # -- attempts

    def begin(self, order: AttemptOrder, *, period: int, due_every: int, taken: int) -> None:
        """Have every node begin its part.

        Raises:
            OSError: this node could not.
        """
        self._killing = False
        orders = {"period": period, "due_every": due_every, "taken": taken}
        self.node.begin(order, first_orders(order.number, **orders))
        if self.crew is not None:
            self.crew.begin(order, **orders, due_at=0, drain=0)
        self.gang = Gang.ALIVE

    def give_orders(self, **changes: int) -> None:
        """Change what the ranks of all nodes are told."""
        self.node.memory.give_orders(**changes)
        if self.crew is not None:
            self.crew.want(**changes)

    def kill(self) -> None:
        """End every worker of every node; `look` tells when none is left."""
        if not self._killing and self.crew is not None:
            self.crew.want(kill=True)
        self._killing = True
        self.node.kill()
        self.look(time.monotonic())

    def close_attempt(self) -> None:
        """The attempt has been dealt with: whoever is missing from now on has been so since now."""
        self._killing, self._missing_since_s = False, time.monotonic()
        self.node.close()
        if self.crew is not None:
            self.crew.close_attempt()
        self.gang = Gang.NONE

    def testimony(self) -> Testimony:
        """How the attempt ended, everywhere."""
        told = [self.node.testimony, *(self.crew.testimonies() if self.crew is not None else ())]
        ends = tuple(end for one in told for end in one.ends)
        launcher = next((one.launcher for one in told if one.launcher is not None), None)
        kills = [one.oom_kills for one in told if one.oom_kills is not None]
        return Testimony(
            all(one.finished for one in told) and not self.lost, ends, launcher, sum(kills) if kills else None
        )

    def verdict(self) -> Verdict | None:
        """What a lost node, a broken GPU or a node that could not begin says of the attempt's end; None without any."""
        if self.crew is not None and self.crew.losses:
            silent = all(loss.reason.startswith("silent") for loss in self.crew.losses)
            words = "; ".join(map(str, self.crew.losses))
            if any(whole.sharded for whole in self.node.memory.wholes()):
                words += "; its pieces of the sharded state are gone unless it comes back with them"
            return Verdict(Cause.DISCONNECTED if silent else Cause.NODE_LOST, words)
        for host, words in self.gpu_faults():
            return Verdict(Cause.GPU_FAULT, words if host is None else f"on {host}: {words}")
        failures = self.crew.failures() if self.crew is not None else []
        return Verdict(Cause.CRASHED, f"the attempt could not be started on {failures[0]}") if failures else None

    # -- what the ranks are at

    def inquire(self, number: int, *, native: bool) -> None:
        """Have every node ask its ranks what they are at.

        Args:
            number: of the question.
            native: whether what lies below Python is wanted as well.
        """
        self.node.inquire(number, native=native)
        if self.crew is not None:
            self.crew.want(inquiry=number, native=native)

    def accounts(self, number: int) -> tuple[list[Account], bool]:
        """What has been answered, and whether that is all.

        Args:
            number: of the question.
        """
        answered, own = self.node.accounts or (0, ())
        others, all_others = ([], True) if self.crew is None else self.crew.accounts(number)
        return [*(own if answered == number else ()), *others], answered == number and all_others

    @property
    def hosts(self) -> dict[int, str]:
        """Name of each rank's machine; nothing where there is only one."""
        if self.crew is None:
            return {}
        processes = len(self.node.memory.ranks)
        found = dict.fromkeys(range(processes), self.name)
        for node in self.crew.counted:
            first = self.crew.rank_of(node) * processes
            found |= dict.fromkeys(range(first, first + processes), self.crew.host_of(node))
        return found

    # -- snapshots of all nodes

    def elsewhere(self, identity: Identity) -> bool:
        """Whether every other node that counts has this snapshot whole."""
        return self.crew is None or self.crew.has(identity)

    def gather(self, identity: Identity) -> None:
        """Ask the other nodes for their ranks' own parts of a snapshot."""
        if self.crew is not None:
            self.crew.gather(identity)

    @property
    def gathered_bytes(self) -> int:
        """What has come of the parts that were asked for."""
        return 0 if self.crew is None or self.crew.gathering is None else self.crew.gathering.came_bytes

    def give_up_gathering(self) -> None:
        """What was asked for is not waited for any more."""
        if self.crew is not None:
            self.crew.gathered()

    def shares(self) -> tuple[Share, ...] | NoPart | None:
        """The parts that were asked for; why they will not come; None while they are on their way."""
        if self.crew is None or self.crew.gathering is None:
            return ()
        gathering = self.crew.gathering
        if gathering.problem is None and gathering.awaited:
            return None
        found = gathering.problem or gathering.shares()
        self.crew.gathered()
        return found

    @property
    def losable(self) -> int:
        """Machines each of whose losses loses state: all where each has pieces of its own, else one.

        Where all have the same, a node that is lost costs nothing, and only the loss of all of them does.
        """
        if self.crew is None or not any(whole.sharded for whole in self.node.memory.wholes()):
            return 1
        return self.crew.nodes

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return len(self.node.memory.ranks) * (1 if self.crew is None else self.crew.nodes)

    def beside(self, verdict: Verdict) -> list[str]:
        """What this node's GPU driver says beside a verdict that a GPU may have to do with."""
        if verdict.cause not in (Cause.GPU_OOM, Cause.GPU_FAULT, Cause.CRASHED, Cause.UNKNOWN):
            return []
        return self.node.gpus.words({beat.pid for beat in self.node.beats})

    def blamed(self, verdict: Verdict) -> tuple[str, ...]:
        """Names of the nodes that a verdict speaks against: lost ones, or the one on which hardware failed."""
        if self.lost and self.crew is not None:
            return tuple(loss.host for loss in self.crew.losses)
        if verdict.cause is not Cause.GPU_FAULT:
            return ()
        faulty = [self.name if host is None else host for host, _ in self.gpu_faults()]
        named = self.name if self.crew is None or not verdict.node else self.crew.host_of(verdict.node)
        return tuple(faulty or [named])

    @property
    def lost_ranks(self) -> tuple[int, ...]:
        """Global ranks of the nodes that were lost in this attempt."""
        processes = len(self.node.memory.ranks)
        lost = [] if self.crew is None else sorted(self.crew.rank_of(loss.node) for loss in self.crew.losses)
        return tuple(rank for node in lost for rank in range(node * processes, (node + 1) * processes))
