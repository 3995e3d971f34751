"""A member: the supervisor of a node that does not lead.

It compares what the leader wants with what is, and does what is missing; after a cut just as before it.
It decides one thing by itself: without the leader for longer than a cut is survived, its workers are ended,
since the leader has ended the others'.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from supervisor.engine.disk import attended
from supervisor.engine.members.messages import PARTED, SEEN, WANTED, Seen, Wanted, Warned
from supervisor.engine.members.parting import Parting
from supervisor.engine.members.team import JOIN_S
from supervisor.engine.ranks.node import Granted, Node, Testimony, first_orders
from supervisor.engine.state.assembly import TornSnapshotError
from supervisor.errors import ExitCode, MachineError, SupervisorError
from supervisor.link.events import Event, Heard, Joined, Lost, Refused
from supervisor.link.hub import PATIENCE_S, PUMP_S
from supervisor.link.line import Line
from supervisor.link.wire import Frame
from supervisor.policy.lifecycle import Gang, Wish
from supervisor.watch.ready import ready

#: What all goes on is told so often [s].
TELL_S = 1.0
#: While a kill is under way nobody rings [s].
BUSY_S = 0.02
#: A leader that refuses this node for so long means it [s].
REFUSED_S = 10.0


@dataclass(slots=True)
class Member:
    """One stay of a member, until the leader has it leave.

    Attributes:
        line: to the leader.
        fd: of the inbox of signals.
        heard: asks for what signals mean: the wish, and who made it.
        open: makes this node's part of a run, once the leader has said which.
        tell: shown every change, for people.
        number: of this node.
        warned: asks for the notice of a cloud that stands, at a monotonic time [s].
        wanted: what the leader wants; None before it said so.
        node: this node's part; None before that.
        since_s: when this stay began, monotonic [s].
    """

    line: Line
    fd: int
    heard: Callable[[float], tuple[Wish, str]]
    open: Callable[[Wanted], Node]
    tell: Callable[[str, dict[str, object]], None]
    number: int
    wanted: Wanted | None = None
    node: Node | None = None
    since_s: float = field(default_factory=time.monotonic)
    wish: Wish = Wish.GO_ON
    by: str = ""
    warned: Callable[[float], Warned | None] = lambda _now_s: None
    _early: list[Event] = field(default_factory=list)  # heard while something took long
    _told: Seen | None = None
    _told_at_s: float = 0.0
    _unbegun: tuple[int, str | None] | None = None  # an attempt that was not begun here, and why not
    _answered: tuple[int, int] = (0, 0)  # epoch of the leader that asked for a part last, and its number
    _refused: tuple[float, str] | None = None
    _parting: ExitCode | None = None
    _parting_with: Parting | None = None  # of a checkpoint, on its way to the leader
    _accepted: bool = False
    _tidied: bool = False
    _trouble: str | None = None

    def step(self) -> ExitCode | None:
        """Look, obey and tell once; the exit code when the leader has this member leave.

        Raises:
            MachineError: the leader does not want this node.
        """
        now_s = time.monotonic()
        self.wish, self.by = self.heard(now_s)
        heard, self._early = [*self._early, *self.line.pump(now_s)], []
        for event in heard:
            self._take(event, now_s)
        if self._refused is not None and now_s - self._refused[0] > REFUSED_S:
            raise MachineError(f"the leader sent this node away: {self._refused[1]}", "see the leader's own words")
        if self.node is not None and self.wanted is not None:
            gang = self.node.look(now_s)
            if not self.line.joined and self.line.silent_s(now_s) > PATIENCE_S and gang is not Gang.GONE:
                self.node.kill()  # the leader has ended the others by now
            self._obey(self.node, self.wanted)
            self._tidy(self.node)
        if self.wish is Wish.KILL:
            self._parting = ExitCode.STOPPED  # a second Ctrl-C does not wait for anybody
        self._speak(now_s)
        self._complain()
        return self._parting

    def wait(self) -> None:
        """Sleep until something comes, or a beat is due."""
        fds = [self.fd, self.line.fd, *(self.node.fds if self.node is not None else ())]
        ending = self.node is not None and self.node.present and (self.wanted is None or self.wanted.kill)
        ready(fds, BUSY_S if ending and self.node is not None and self.node.gang is not Gang.GONE else PUMP_S)

    @property
    def overdue(self) -> bool:
        """Whether the leader should have come long ago."""
        return self.wanted is None and time.monotonic() - self.since_s > JOIN_S

    @property
    def keeps(self) -> bool:
        """Whether its board is to stay when it leaves: the next stay of the run goes on from it."""
        return self.wanted is not None and self.wanted.keep

    # -- hearing

    def _take(self, event: Event, now_s: float) -> None:
        match event:
            case Joined():
                # It knows nothing of us yet; whether it wants us, it says next. What was on its way is lost.
                self._told, self._accepted = None, False
                self._let_go()
            case Refused(reason, _):
                self._refused = self._refused or (now_s, reason)
                self._refused = (self._refused[0], reason)
            case Lost(_, reason):
                self.tell("leader_lost", {"reason": reason, "node": self.number})
            case Heard(_, frame) if frame.kind == WANTED:
                wanted, self._refused = Wanted.read(frame.fields), None
                if not self._accepted:
                    self._accepted = True
                    self.tell("joined", {})
                if self.node is None or self.wanted is None or self.wanted.run_id != wanted.run_id:
                    self._leave_run()
                    self.node = self.open(wanted)
                    self.node.attend = self._attend
                self.wanted = wanted
            case Heard():
                pass  # a leader of a later release may say more

    def _leave_run(self) -> None:
        self._let_go()
        if self.node is not None:
            self.node.leave(keep=False)
            self.node, self._unbegun = None, None

    def _attend(self, work: Callable[[], Granted]) -> Granted:
        """Have something done that takes long, while the leader goes on hearing from this node."""
        return attended(work, lambda: self._early.extend(self.line.pump(time.monotonic())), PUMP_S)

    # -- obeying

    def _obey(self, node: Node, wanted: Wanted) -> None:
        if wanted.leave is not None:
            node.end()
            node.close()
            self._parting = ExitCode(wanted.leave)
            return
        self._follow(node, wanted)
        self._part(node, wanted)  # also of an attempt that is over: its end is committed while none is under way

    def _follow(self, node: Node, wanted: Wanted) -> None:
        """Have the attempt under way that the leader wants."""
        order = wanted.order
        begun = node.order is not None and order is not None and node.order.number == order.number
        if order is None:
            self._clear(node)  # a new leader, which knows nothing of what an old one began
            return
        if self._unbegun is not None and self._unbegun[0] == order.number:
            return
        if not begun:
            self._begin(node, wanted)
            return
        if wanted.kill:
            if node.gang is not Gang.GONE:
                node.kill()
            return
        if wanted.inquiry:
            node.inquire(wanted.inquiry, native=wanted.native)
        node.memory.give_orders(
            drain=wanted.drain,
            period=wanted.period,
            due_every=wanted.due_every,
            due_at=wanted.due_at,
            taken=wanted.taken,
        )

    def _begin(self, node: Node, wanted: Wanted) -> None:
        order = wanted.order
        assert order is not None
        if not self._clear(node):
            return
        if wanted.kill:
            self._unbegun = order.number, None  # it was over before it was heard of here
            return
        try:
            node.prepare(order)
            node.begin(
                order,
                first_orders(
                    order.number, period=wanted.period, due_every=wanted.due_every, taken=max(0, wanted.taken)
                ),
            )
        except (OSError, SupervisorError) as error:
            self._unbegun = order.number, f"{type(error).__name__}: {error}"
            node.close()

    @staticmethod
    def _clear(node: Node) -> bool:
        """End what is left of an older attempt; whether nothing is."""
        if node.present and node.gang is not Gang.GONE:
            node.kill()
            return False
        node.close()
        return True

    def _tidy(self, node: Node) -> None:
        """Let go of what the attempt resumed from, once two newer snapshots are whole here.

        Ranks are at most a step apart, so the older of them is whole everywhere.
        """
        self._tidied = self._tidied and not node.new_layout()
        if self._tidied or node.order is None or node.gang is not Gang.ALIVE:
            return
        since = node.order.start.step
        newer = [whole for whole in node.memory.wholes() if whole.step > since]
        if len(newer) > 1:
            node.memory.tidy(newer[1], node.order.number)
            self._tidied = True

    # -- this node's part of a checkpoint

    def _part(self, node: Node, wanted: Wanted) -> None:
        if self._parting_with is not None:
            self._send_on(wanted)
            return
        if wanted.part is None or (wanted.epoch, wanted.part[0]) == self._answered:
            return
        number, identity = wanted.part
        if node.order is None:  # then nobody can tell which ranks these were
            self._parted(number, "no attempt was made since its supervisor started", again=False)
            return
        wholes = node.memory.wholes()
        whole = next((one for one in wholes if one.identity == identity), None)
        if whole is None:
            passed = any(one.identity[:2] > identity[:2] for one in wholes)
            if passed or node.gang is not Gang.ALIVE:
                self._parted(number, "it is not on this node's board any more", again=True)
            return  # else its step has not settled here yet
        try:
            self._parting_with = Parting.begin(number, node.memory, whole, node.order.first_rank, self.line)
        except TornSnapshotError as error:
            self._parted(number, str(error), again=True)
            return
        self._send_on(wanted)

    def _send_on(self, wanted: Wanted) -> None:
        """Send more of what is on its way, as long as it is wanted."""
        part = self._parting_with
        assert part is not None
        if not self.line.joined:
            self._answered = wanted.epoch, part.number  # over another connection it is asked for anew
        if not self.line.joined or wanted.part is None or wanted.part[0] != part.number:
            self._let_go()
            return
        try:
            if part.go_on():
                self._parted(part.number, None, again=False)
        except (OSError, TornSnapshotError) as error:
            self._parted(part.number, str(error), again=isinstance(error, TornSnapshotError))

    def _let_go(self) -> None:
        if self._parting_with is not None:
            self._parting_with.close()
            self._parting_with = None

    def _parted(self, number: int, problem: str | None, *, again: bool) -> None:
        assert self.wanted is not None
        self._let_go()
        self._answered = self.wanted.epoch, number
        self.line.send(Frame(PARTED, {"number": number, "problem": problem, "again": again}))

    # -- telling

    def _complain(self) -> None:
        """Tell people once what keeps this node from its leader."""
        trouble = None if self.line.joined or self._refused is not None else self.line.trouble
        if trouble is not None and trouble != self._trouble:
            self.tell("leader_awaited", {"trouble": trouble})
        self._trouble = trouble or self._trouble

    def _speak(self, now_s: float) -> None:
        if not self.line.joined or self.wanted is None:
            return
        seen = replace(self.seen(), warned=self.warned(now_s))
        if seen.is_news(self._told) or now_s - self._told_at_s >= TELL_S:
            self._told, self._told_at_s = seen, now_s
            self.line.post(Frame(SEEN, seen.fields()))

    def seen(self) -> Seen:
        """How this node is."""
        node, notice = self.node, self.by if self.wish is Wish.HAND_BACK else None
        stop = self.wish in (Wish.STOP, Wish.KILL)
        if node is None:
            return Seen(notice=notice, stop=stop)
        beats = tuple(node.beats)  # first: what they tell of is whole by now, and not the other way round
        whole = tuple(one.identity for one in node.memory.wholes())
        if self._unbegun is not None and (node.order is None or self._unbegun[0] >= node.order.number):
            number, failure = self._unbegun
            gang = Gang.GONE if failure is None or (self.wanted is not None and self.wanted.kill) else Gang.BROKEN
            return Seen(attempt=number, gang=gang, whole=whole, failure=failure, notice=notice, stop=stop)
        if node.order is None:
            return Seen(whole=whole, notice=notice, stop=stop)
        testimony = node.testimony if node.gang is not Gang.ALIVE else Testimony()
        gang, order = node.gang, self.wanted.order if self.wanted is not None and not self.wanted.kill else None
        ended_here = gang is Gang.GONE and not testimony.finished and order is not None
        killed_here = ended_here and order is not None and order.number == node.order.number
        answered, accounts = node.accounts or (0, ())
        return Seen(
            attempt=node.order.number,
            gang=Gang.BROKEN if killed_here else gang,
            beats=beats,
            whole=whole,
            lingers=node.lingers,
            testimony=testimony,
            notice=notice,
            stop=stop,
            shortage=node.shortage,
            gpu_fault=node.gpu_fault,
            answered=answered,
            accounts=accounts,
        )
