"""What follows the look at a settled step and its snapshot: its pace is told, a bad one ends it, a drain is obeyed."""

from __future__ import annotations

import time

from supervisor.board.pages import Phase
from supervisor.worker.health import Measured, await_end
from supervisor.worker.seat import Seat
from supervisor.worker.snapshots import SnapshotTaker
from supervisor.worker.typical import Typical


class Pacing:
    """How long steps and snapshots of this rank usually take, as its beat tells it."""

    def __init__(self, at: Seat) -> None:
        self._at = at
        self._began_s = float("nan")
        self._step_s, self._snapshot_s = Typical(), Typical()

    def begins(self) -> None:
        """The first step of a loop begins."""
        self._began_s = time.perf_counter()

    def settled(
        self, step: int, measured: Measured, taker: SnapshotTaker, *, taken: bool, asked_for: bool, own_s: float
    ) -> None:
        """Say so of a step, and go on as is wanted.

        Args:
            step: that is settled.
            measured: what was seen of it; one that went wrong is waited on until this process is ended.
            taker: of this rank's snapshots.
            taken: whether there is a snapshot of it.
            asked_for: whether somebody waits to hear of it.
            own_s: what a step usually takes without waiting for peers [s].
        """
        now_s = time.perf_counter()
        step_s = self._step_s.add(now_s - self._began_s)
        self._began_s = now_s
        snapshot_s = self._snapshot_s.add(taker.cost_s if taken else float("nan"))
        tell = self._at.announce if asked_for else self._at.publish
        tell(phase=Phase.TRAINING, step=step, step_s=step_s, snapshot_s=snapshot_s, own_s=own_s, **measured.beat())
        if measured.ends:
            await_end(self._at, taker, step, measured)
        self.obey(taker)

    def obey(self, taker: SnapshotTaker) -> None:
        """Wait at the beginning of a step once a drain was asked for; the supervisor ends this process."""
        if not self._at.orders().drain:
            return
        taker.finish()
        before = self._at.beat.phase
        self._at.announce(phase=Phase.PAUSED)
        while self._at.orders().drain:
            time.sleep(0.01)
        self._at.announce(phase=before)
