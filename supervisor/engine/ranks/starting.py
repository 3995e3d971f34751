"""Starting attempts: from nothing, or by letting workers go that stand by.

A launcher that has to start, and ranks that have to import torch and transformers, are most
of what a restart costs. So the workers of the next attempt are started while this one trains:
imported, marked and logged as the next attempt's, holding no device memory, published nowhere,
blocked at a gate. What can go wrong with them is no incident: the next attempt is then
started from nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.board.environment import marker
from supervisor.board.gate import Gate
from supervisor.board.pages import Beat, Control
from supervisor.engine.attempt import AttemptOrder
from supervisor.engine.ranks.gang import Workers
from supervisor.engine.ranks.logbook import Logbook
from supervisor.engine.world import World, attempt_command
from supervisor.job import Job
from supervisor.launch.processes import Children

#: With `standby: auto`, training must have lasted so long [s]: in a short run they only take the CPU.
AUTO_AFTER_S = 30.0
#: With `auto`, training must be going to last so long still [s].
AUTO_LEFT_S = 60.0
#: With `auto`, memory that must be free for what trains, and that each process that waits may take [bytes].
AUTO_SPARE_BYTES = 2 << 30
PROCESS_BYTES = 1 << 30
#: How long the processes of a standby that is not needed may take to end [s]; they are tied to this one anyway.
PATIENCE_S = 5.0
_PAUSE_S = 0.01


@dataclass(slots=True)
class _Standby:
    order: AttemptOrder
    workers: Workers
    gate: Gate


@dataclass(slots=True)
class Starter:
    """Starts the attempts of one stay.

    Attributes:
        job: checked.
        world: the machine.
        run_id: of the run.
        board: the board's directory.
        control: its control file.
        resource_held: asked with the pids of killed ranks.
        logbook: of the attempts.
    """

    job: Job
    world: World
    run_id: str
    board: Path
    control: Control
    resource_held: Callable[[set[int]], bool]
    logbook: Logbook = field(init=False)
    _children: Children = field(default_factory=Children)
    _standby: _Standby | None = None
    _tried: int = 0  # the last attempt that workers were to stand by for
    _opened: Gate | None = None

    def __post_init__(self) -> None:
        self.logbook = Logbook(self.board, self.job.run_dir / "logs")

    def start(self, order: AttemptOrder) -> tuple[Workers, bool]:
        """Start this node's part in an attempt.

        Returns:
            Its workers, and whether they had stood by.

        Raises:
            OSError: the launcher could not be started.
        """
        self._forget_gate()
        ready = self._standby
        if ready is not None and _alike(ready.order, order) and not ready.workers.left:
            self._standby, self._opened = None, ready.gate
            checkpoint = order.start.checkpoint
            self.logbook.begin(order.number)
            ready.gate.open(resume_from=None if checkpoint is None else str(checkpoint))
            return ready.workers, True
        self.discard()
        workers = self._workers(order, standby=False)
        workers.start(self.world.environment)
        return workers, False

    def stand_by(self, order: AttemptOrder, beats: Sequence[Beat], trained_s: float) -> None:
        """Start the workers of the next attempt, if the job wants that and now is a time for it.

        On several nodes none stand by: theirs would have to wait at the same rendezvous, and one that
        is gone takes the others along.

        Args:
            order: of that attempt; what it starts from is not known yet, and told at the gate.
            beats: of the attempt that trains.
            trained_s: how long it has [s].
        """
        if self.world.nodes > 1 or order.number == self._tried or not self._due(beats, trained_s):
            return
        self._tried = order.number
        self.discard()
        try:
            workers = self._workers(order, standby=True)
            gate = Gate(self.board, order.number, self.world.processes)
            self._standby = _Standby(order, workers, gate)
            workers.start(self.world.environment)
        except OSError:
            self.discard()  # the next attempt meets the same trouble, and tells it

    def _due(self, beats: Sequence[Beat], trained_s: float) -> bool:
        if self.job.launch.standby != "auto":
            return self.job.launch.standby == "on"
        left_s = [(beat.max_steps - beat.step) * beat.step_s for beat in beats if beat.max_steps >= 0]
        if trained_s < AUTO_AFTER_S or any(one < AUTO_LEFT_S for one in left_s):
            return False
        return self.world.spare_bytes() > AUTO_SPARE_BYTES + PROCESS_BYTES * (1 + self.world.processes)

    def reap(self) -> None:
        """Collect what has ended of earlier attempts, while none is under way that would do it."""
        self._children.status(0)

    def discard(self) -> None:
        """End the workers that stand by, and leave nothing of them."""
        standby, self._standby = self._standby, None
        if standby is None:
            return
        until_s = time.monotonic() + PATIENCE_S
        standby.workers.kill()
        while not standby.workers.gone and time.monotonic() < until_s:
            time.sleep(_PAUSE_S)
            standby.workers.kill()
        standby.workers.close()
        standby.gate.remove()
        self.logbook.forget(standby.order.number)

    def close(self) -> None:
        """Leave no process and no gate, and all logs where they belong."""
        self._forget_gate()
        self.discard()
        self.logbook.close()

    def _forget_gate(self) -> None:
        if self._opened is not None:
            self._opened.remove()
            self._opened = None

    def _workers(self, order: AttemptOrder, *, standby: bool) -> Workers:
        logs = self.logbook.open(order.number, waits=standby)
        return Workers(
            attempt_command(
                self.job, self.world, order, board=self.board, run_id=self.run_id, logs=logs, standby=standby
            ),
            marker=marker(self.run_id, order.number, self.world.node),
            logs=logs,
            beat=self.control.beat,
            ranks=self.world.processes,
            first_rank=order.first_rank,
            resource_held=self.resource_held,
            children=self._children,
        )


def _alike(stood_by: AttemptOrder, wanted: AttemptOrder) -> bool:
    """Whether workers that stand by were started as those that are wanted would be."""
    one, other = ((o.number, o.lineage, o.start.accumulation, o.adaptation) for o in (stood_by, wanted))
    return one == other
