"""The run's checkpoints while it runs: what is on disk, what is on its way, what is due."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from supervisor.board.footprint import find_footprint
from supervisor.engine.members.team import Team
from supervisor.engine.state.assembly import sources_of
from supervisor.engine.state.best import BestSoFar
from supervisor.engine.state.commits import Answer, Committer, Order
from supervisor.engine.state.memory import Memory, Whole
from supervisor.engine.state.pace import Pace
from supervisor.policy.causes import Cause
from supervisor.policy.lifecycle import Gang
from supervisor.policy.schedule import commit_due

#: How far ahead a step is named whose snapshot all nodes are to spare [s].
AHEAD_S = 0.5
#: A step that was named and has not come when so many later ones have is not coming: another is named.
MISSED_STEPS = 2
#: How long nothing may come of the parts of other nodes [s]; a node that is silent is lost before that.
GATHER_S = 10.0
#: A failed periodic commit is tried again after this long at the earliest [s].
RETRY_S = 30.0
#: What is committed for these reasons may be tried again: nobody leaves for want of it.
_TRAINING_GOES_ON = ("periodic", "safety", "evaluated")
#: What the journal calls them.
_CALLED = {"safety": "emergency", "evaluated": "best"}


@dataclass(slots=True)
class Checkpoints:
    """Orders commits, and keeps count of them.

    Attributes:
        run_dir: of the run.
        pace: when a periodic one is due, and what they cost.
        team: all nodes; where snapshots are.
        committer: makes the commits.
        write: the journal's append.
        newest: newest step on disk, -1 for none.
        trained: the state at the training's end is on disk.
        under_way: one is being made.
        began_s: monotonic time at which it was begun [s].
        failed: the last one that had to succeed did not.
        secured_s: monotonic time at which the last one that succeeded was begun [s]; None without one.
        write_s: how long it took [s].
        best: hears what the program measures.
    """

    run_dir: Path
    pace: Pace
    team: Team
    committer: Committer
    write: Callable[..., Any]
    newest: int = -1
    trained: bool = False
    under_way: bool = False
    began_s: float = 0.0
    failed: bool = False
    secured_s: float | None = None
    write_s: float = 0.0
    best: BestSoFar = field(init=False)
    _order: Order | None = None  # waits for the parts of other nodes
    _came: tuple[int, float] = (0, 0.0)  # bytes of these, and when that was first so
    _aim: int = 0  # the step to come that all nodes are to spare
    _since_s: float | None = None
    _not_before_s: float = 0.0
    _cramped: bool = False  # the last commit found room only since something went; that is said once

    def __post_init__(self) -> None:
        self.pace.machines = lambda: self.team.losable
        self.best = BestSoFar(self.team, self.committer.retention, self.write)

    @property
    def due_every(self) -> int:
        """Steps from one due checkpoint to the next, 0 if the clock decides."""
        return self.pace.steps

    def training_began(self, now_s: float) -> None:
        """The clock of the first checkpoint starts; a restart does not set it back."""
        self._aim = 0  # no rank of this attempt has been told of it
        self.best.training_began()
        if self._since_s is None:
            self._since_s = now_s
            if (foot := find_footprint(self.team.node.memory.board.directory)) is not None:
                self.committer.foresee(foot)

    def due(self, settled: int, now_s: float) -> bool:
        """Whether a periodic one is due, or one for what was measured.

        Args:
            settled: newest step settled on all ranks, -1 while training has not begun.
            now_s: monotonic time [s].
        """
        if settled < 0 or now_s < self._not_before_s or self._since_s is None:
            return False
        return self.best.wanted is not None or self._due_by_period(settled, now_s)

    def _due_by_period(self, settled: int, now_s: float) -> bool:
        if self._since_s is None:
            return False
        committed = max(self.newest, 0)  # not the step resumed from: that one may be in memory only
        return commit_due(self.pace.period, settled=settled, committed=committed, since_s=now_s - self._since_s)

    def may_retry(self, now_s: float) -> bool:
        """Whether a commit that training does not wait for may be begun: after a failure not at once.

        Args:
            now_s: monotonic time [s].
        """
        return now_s >= self._not_before_s

    def begin(self, reason: str, now_s: float) -> None:
        """Order a commit of the newest snapshot, or of the step that was asked for if it is still there."""
        memory = self.team.node.memory
        evaluated = self.best.find(memory) if reason == "periodic" else None
        whole, reason = (evaluated, "evaluated") if evaluated is not None else (self._chosen(reason), reason)
        if whole is None and reason == "final":
            self.failed = True
            detail = "training ended, but its last state is not on the board any more"
            self.write("incident", cause=Cause.STORAGE.value, detail=detail, decision="the program goes on")
            return
        if whole is None or (whole.step <= self.newest and not whole.trained) or not memory.hold(whole):
            return  # not there yet, or gone between the look and the hold; the next look finds the newer one
        if reason == "final" and not whole.trained:
            return  # the end has not arrived everywhere yet
        if reason == "periodic" and not self._due_by_period(whole.step, now_s):
            return  # the step that is due has not arrived on the board yet
        if reason == "final" and self._best_loaded(whole):
            reason = "best"
        costs = [beat.snapshot_s for beat in self.team.beats if not math.isnan(beat.snapshot_s)]
        self.under_way, self.began_s = True, now_s
        self.pace.begins(self.team.node.beats)
        self._order = Order(
            reason,
            sources_of(memory, whole),
            max(costs, default=None),
            world_size=self.team.world_size,
            lost=self.team.lost_ranks,
        )
        self._came = 0, now_s
        self.team.gather(whole.identity)
        self.look(now_s)

    def look(self, now_s: float) -> None:
        """Hear what was evaluated and foreseen, and hand a commit over once the parts of all nodes are here.

        Args:
            now_s: monotonic time [s].
        """
        self.best.look()
        self._warn(self.committer.warnings())
        self.pace.look(self.team.node.beats if self.team.node.present else [])
        order = self._order
        if order is None:
            return
        shares = self.team.shares()
        if self.team.gathered_bytes != self._came[0]:
            self._came = self.team.gathered_bytes, now_s
        if shares is None and now_s - self._came[1] <= GATHER_S:
            return
        self._order = None
        if isinstance(shares, tuple):
            self.committer.submit(replace(order, others=shares))
            if self.due_every or self._aim or order.reason == "evaluated":
                self.team.give_orders(taken=order.step)
            return
        self.team.give_up_gathering()
        self.team.node.memory.release()
        if shares is not None and shares.again:
            self.under_way, self._aim = False, 0  # it was overwritten meanwhile, or its node is gone: another is chosen
            return
        reason = shares.reason if shares is not None else f"nothing came of other nodes' parts for {GATHER_S:.0f} s"
        self.take(Answer(order, None, reason), now_s, alive=self.team.gang is Gang.ALIVE)

    def _chosen(self, reason: str) -> Whole | None:
        """The snapshot to commit; None while there is none."""
        memory = self.team.node.memory
        safety = reason == "safety"
        if reason != "periodic" and not (safety and self.team.crew is not None):
            return memory.common()
        steps = self.due_every or 1
        due = (w for w in memory.wholes() if w.step % steps == 0 and w.step > self.newest and not w.trained)
        if self.team.crew is None:
            return next(due, None) or memory.common()
        # What other nodes have whole is heard a moment later than it is so, and by then it may be overwritten.
        # So a step to come is named, and every rank spares it until it has been taken.
        if safety or not self.due_every:
            self._take_aim(memory)
            due = (w for w in memory.wholes() if w.step == self._aim)
        return next(due, None)

    def _take_aim(self, memory: Memory) -> None:
        newest = max((w.step for w in memory.wholes()), default=0)
        if self._aim > self.newest and newest <= self._aim + MISSED_STEPS:
            return
        if self.best.spared > newest:  # ranks spare one step; what is measured there is worth as much as any other
            self._aim = self.best.spared
            return
        paces = [beat.step_s for beat in self.team.beats if beat.step_s > 0]
        self._aim = newest + math.ceil(AHEAD_S / min(paces, default=AHEAD_S)) + 1
        self.team.give_orders(due_at=self._aim)

    def _best_loaded(self, whole: Whole) -> bool:
        text = self.team.node.memory.reader(whole.parts[0]).text(whole.parts[0]) or b""
        return b'"best_loaded":true' in text

    def take(self, answer: Answer, now_s: float, *, alive: bool) -> None:
        """A commit is over: write down how it went.

        Args:
            answer: of the committer.
            now_s: monotonic time [s].
            alive: whether training goes on.
        """
        self.under_way = False
        self._since_s = now_s
        self._warn(self.committer.warnings())  # foreseen before it was made
        self.pace.ends(self.team.node.beats if alive else [])
        order = answer.order
        if answer.committed is None:
            self.failed = order.reason not in _TRAINING_GOES_ON
            self._not_before_s = now_s + RETRY_S
            self.write(
                "incident",
                cause=(Cause.DISK_FULL if answer.full else Cause.STORAGE).value,
                detail=f"the {order.reason} checkpoint of step {order.step} failed: {answer.problem}",
                decision="training goes on" if alive else "the state stays in memory",
            )
            return
        self.newest = max(self.newest, order.step)
        self.best.committed(self.newest)
        self.secured_s, self.write_s = self.began_s, answer.committed.write_s
        if order.others:
            self.write_s = max(self.write_s, now_s - self.began_s)  # their way here is a part of it
        if order.reason in ("final", "best"):
            self.trained = answer.final_problem is None
            self.failed = not self.trained
            self.best.warn_if_unseen()
        told = {
            "step": order.step,
            "lineage": order.lineage,
            "path": str(answer.committed.path.relative_to(self.run_dir)),
            "bytes": answer.committed.bytes,
            "stall_s": order.stall_s,
            "write_s": answer.committed.write_s,
            "reason": _CALLED.get(order.reason, order.reason),
            **({"trained": False} if order.reason == "evaluated" else {}),  # the best one at the end is called so, too
            **({"stood_in": list(order.lost)} if order.lost else {}),
        }
        self.write("checkpoint_committed", **told, **self.pace.told(told))
        if answer.gave and not self._cramped:
            gone = f"the disk was full: {', '.join(answer.gave)} had to go for the checkpoint of step {order.step}"
            decision = "the checkpoint is kept; fewer stay than `checkpoint.keep_last` says"
            self.write("incident", cause=Cause.DISK_FULL.value, detail=gone, decision=decision)
        self._cramped = bool(answer.gave)
        self._warn(answer.warnings)
        for problem, full in ((answer.final_problem, answer.full), (answer.problem, False)):
            cause = Cause.DISK_FULL if full else Cause.STORAGE
            if problem is not None:
                self.write("incident", cause=cause.value, detail=problem, decision="the checkpoint is kept")

    def _warn(self, warnings: Iterable[str]) -> None:
        for warning in warnings:
            self.write("incident", cause=Cause.STORAGE.value, detail=warning, decision="training goes on")
