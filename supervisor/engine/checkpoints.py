"""The run's checkpoints while it runs: what is on disk, what is on its way, what is due."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.board.pages import Beat
from supervisor.engine.commits import Answer, Committer, Order, sources_of
from supervisor.engine.memory import Memory, Whole
from supervisor.policy.causes import Cause
from supervisor.policy.schedule import Period, Steps, commit_due

#: A failed periodic commit is tried again after this long at the earliest [s].
RETRY_S = 30.0


@dataclass(slots=True)
class Checkpoints:
    """Orders commits, and keeps count of them.

    Attributes:
        run_dir: of the run.
        period: when a periodic one is due.
        memory: where snapshots are.
        committer: makes the commits.
        write: the journal's append.
        newest: newest step on disk, -1 for none.
        trained: the state at the training's end is on disk.
        under_way: one is being made.
        began_s: monotonic time at which it was begun [s].
        failed: the last one that had to succeed did not.
    """

    run_dir: Path
    period: Period
    memory: Memory
    committer: Committer
    write: Callable[..., Any]
    newest: int = -1
    trained: bool = False
    under_way: bool = False
    began_s: float = 0.0
    failed: bool = False
    _since_s: float | None = None
    _not_before_s: float = 0.0

    @property
    def due_every(self) -> int:
        """Steps from one due checkpoint to the next, 0 if the clock decides."""
        return self.period.n if isinstance(self.period, Steps) else 0

    def training_began(self, now_s: float) -> None:
        """The clock of the first checkpoint starts; a restart does not set it back."""
        if self._since_s is None:
            self._since_s = now_s

    def due(self, settled: int, now_s: float) -> bool:
        """Whether a periodic one is due.

        Args:
            settled: newest step settled on all ranks, -1 while training has not begun.
            now_s: monotonic time [s].
        """
        if settled < 0 or now_s < self._not_before_s or self._since_s is None:
            return False
        committed = max(self.newest, 0)  # not the step resumed from: that one may be in memory only
        return commit_due(self.period, settled=settled, committed=committed, since_s=now_s - self._since_s)

    def begin(self, reason: str, beats: list[Beat], now_s: float) -> None:
        """Order a commit of the newest snapshot, or of the step that was asked for if it is still there."""
        whole = self._due_snapshot() if reason == "periodic" and self.due_every else None
        whole = whole or self.memory.common()
        if whole is None and reason == "final":
            self.failed = True
            detail = "training ended, but its last state is not on the board any more"
            self.write("incident", cause=Cause.STORAGE.value, detail=detail, decision="the program goes on")
            return
        if whole is None or (whole.step <= self.newest and not whole.trained) or not self.memory.hold(whole):
            return  # not there yet, or gone between the look and the hold; the next look finds the newer one
        if reason == "periodic" and not self.due(whole.step, now_s):
            return  # the step that is due has not arrived on the board yet
        if reason == "final" and self._best_loaded(whole):
            reason = "best"
        costs = [beat.snapshot_s for beat in beats if not math.isnan(beat.snapshot_s)]
        self.under_way, self.began_s = True, now_s
        self.committer.submit(Order(reason, sources_of(self.memory, whole), max(costs, default=None)))
        if self.due_every:
            self.memory.give_orders(taken=whole.step)

    def _due_snapshot(self) -> Whole | None:
        whole = self.memory.common(self.due_every)
        return whole if whole is not None and whole.step > self.newest else None

    def _best_loaded(self, whole: Whole) -> bool:
        text = self.memory.reader(whole.parts[0]).text(whole.parts[0]) or b""
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
        order = answer.order
        if answer.committed is None:
            self.failed = order.reason != "periodic"
            self._not_before_s = now_s + RETRY_S
            self.write(
                "incident",
                cause=(Cause.DISK_FULL if answer.full else Cause.STORAGE).value,
                detail=f"the {order.reason} checkpoint of step {order.step} failed: {answer.problem}",
                decision="training goes on" if alive else "the state stays in memory",
            )
            return
        self.newest = max(self.newest, order.step)
        if order.reason in ("final", "best"):
            self.trained = answer.final_problem is None
            self.failed = not self.trained
        self.write(
            "checkpoint_committed",
            step=order.step,
            lineage=order.lineage,
            path=str(answer.committed.path.relative_to(self.run_dir)),
            bytes=answer.committed.bytes,
            stall_s=order.stall_s,
            write_s=answer.committed.write_s,
            reason=order.reason,
        )
        for problem in (answer.final_problem, answer.problem):
            if problem is not None:
                self.write("incident", cause=Cause.STORAGE.value, detail=problem, decision="the checkpoint is kept")
