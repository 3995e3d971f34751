"""One node's part in a run: its board and its workers. The leader has one, and so has every member."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from supervisor.board.pages import Beat, Orders
from supervisor.engine.attempt import AttemptOrder
from supervisor.engine.ranks.gang import Workers
from supervisor.engine.ranks.gpus import Gpus
from supervisor.engine.ranks.host_memory import HostMemory, holders_of
from supervisor.engine.ranks.inquiry import Accounts, Inquiry
from supervisor.engine.ranks.starting import Starter
from supervisor.engine.state.memory import Memory
from supervisor.engine.state.resuming import leave_note
from supervisor.errors import SupervisorError
from supervisor.owner import start_ticks
from supervisor.policy.causes import RankEnd
from supervisor.policy.lifecycle import Gang

#: Whether memory was granted, and the first refusal.
Granted = tuple[bool, SupervisorError | None]

#: Pause between two looks at a kill that nobody rings for [s].
_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Testimony:
    """What is known of an attempt's end.

    Attributes:
        finished: every rank recorded that its program returned.
        ends: of the ranks that ended badly.
        launcher: last words of a launcher that ended before any rank.
        oom_kills: how many processes the kernel killed for memory since the attempt began; None while unknown.
    """

    finished: bool = False
    ends: tuple[RankEnd, ...] = ()
    launcher: str | None = None
    oom_kills: int | None = None


@dataclass(slots=True)
class Node:
    """What is done on this machine for a run.

    Attributes:
        run_id: of the run.
        memory: the board.
        starter: of attempts.
        order: the attempt under way, or the last one; None before the first.
        gang: its workers.
        refusal: memory was refused to one of them.
        stood_by: they were there before their attempt began.
        shortage: the newest that this machine's memory comes to its end; None if there was none.
        host_memory: where that is seen.
        gpus: that its ranks use.
        attend: has something done that may take long (a gigabyte is reserved in a second or two), while other nodes
            go on hearing from this one.
        inquiry: what its ranks are at was asked with it; None as long as nobody wanted to know.
    """

    run_id: str
    memory: Memory
    starter: Starter
    order: AttemptOrder | None = None
    gang: Gang = Gang.NONE
    refusal: SupervisorError | None = None
    stood_by: bool = False
    shortage: str | None = None
    host_memory: HostMemory = field(default_factory=HostMemory)
    gpus: Gpus = field(default_factory=lambda: Gpus(None))
    attend: Callable[[Callable[[], Granted]], Granted] = lambda work: work()
    inquiry: Inquiry | None = None
    _workers: Workers | None = None
    _granted: bool = field(default=False)

    def prepare(self, order: AttemptOrder) -> None:
        """Leave the workers the note of what they go on from.

        Raises:
            TornSnapshotError: the snapshot that was chosen is not whole any more.
            OSError: the board refused.
        """
        leave_note(self.memory, self.run_id, order)

    def begin(self, order: AttemptOrder, orders: Orders) -> None:
        """Start this node's workers.

        Args:
            order: the attempt.
            orders: what its ranks are told at first.

        Raises:
            OSError: they could not be started.
        """
        self.order, self.refusal = order, None
        self.memory.begin_attempt(orders)
        self.gpus.begin_attempt()
        self._workers, self.stood_by = self.starter.start(order)
        self._workers.begin()
        self.gang = Gang.ALIVE

    def look(self, now_s: float) -> Gang:
        """See how the workers are, and reserve the memory that they ask for.

        Args:
            now_s: monotonic time [s].
        """
        self.memory.board.hush()
        self.gpus.look()
        self.starter.logbook.look(now_s)
        if self._workers is not None:
            granted, refusal = self.attend(self.memory.grant_wishes) if self.memory.wished else (False, None)
            self.refusal = self.refusal or refusal
            self._granted = self._granted or granted
            before = self.gang
            self._look_at(self._workers, now_s)
            if self.gang is Gang.BROKEN and before is Gang.ALIVE:
                self.gpus.ask()
            if self.gang is Gang.ALIVE and self.host_memory.is_due(now_s):
                self._look_at_host_memory(now_s)
        else:
            self.starter.reap()
        return self.gang

    def _look_at(self, workers: Workers, now_s: float) -> None:
        """See how they are; whoever hears that they are gone finds their logs in the run directory."""
        before, self.gang = self.gang, workers.look(now_s)
        if self.gang is Gang.GONE and before is not Gang.GONE and self.order is not None:
            self.starter.logbook.finish(self.order.number)

    def _look_at_host_memory(self, now_s: float) -> None:
        assert self.order is not None
        beats, first = self.beats, self.order.first_rank
        ranks = {beat.pid: first + at for at, beat in enumerate(beats) if beat.pid}
        said = self.host_memory.look(
            now_s,
            training=all(beat.resumed >= 0 for beat in beats),
            held=lambda: holders_of(self.run_id, self.memory.board.directory, ranks),
        )
        self.shortage = said or self.shortage

    def new_layout(self) -> bool:
        """Whether memory has been granted since this was asked last: a new layout leaves an old one behind."""
        granted, self._granted = self._granted, False
        return granted

    @property
    def beats(self) -> list[Beat]:
        """The newest beat of every local rank."""
        return [self.memory.board.control.beat(rank) for rank in self.memory.ranks]

    @property
    def lingers(self) -> bool:
        """Whether a finished gang's processes stay longer than they should."""
        return self._workers is not None and self._workers.lingers(time.monotonic())

    @property
    def testimony(self) -> Testimony:
        """How the attempt ended here, as far as it was recorded."""
        if self._workers is None:
            return Testimony()
        workers = self._workers
        return Testimony(workers.finished, workers.ends, workers.launcher_words, workers.oom_kills)

    @property
    def gpu_fault(self) -> str | None:
        """What is wrong with a GPU here, so that no attempt on this machine can succeed; None if nothing is known."""
        fault = self.gpus.fault
        return None if fault is None else fault.evidence

    def inquire(self, number: int, *, native: bool) -> None:
        """Begin to ask this node's ranks what they are at; `accounts` tells what came of it.

        Args:
            number: of the question; the same one is asked once.
            native: whether what lies below Python is wanted as well.
        """
        if self._workers is None or self.order is None:
            return
        world = self.starter.world
        if self.inquiry is None:
            gpus = (world.gpus or ())[: world.processes]
            self.inquiry = Inquiry(self.memory.board.directory, lambda: _use_of(gpus))
        if self.inquiry.number != number:
            self.inquiry.ask(number, self.beats, self._workers.logs, self.order.first_rank, native=native)

    @property
    def accounts(self) -> tuple[int, Accounts] | None:
        """The number of the last question and what is known; None before any, and while more may come."""
        answer = self.inquiry.answer() if self.inquiry is not None else None
        return None if answer is None or self.inquiry is None else (self.inquiry.number, answer)

    @property
    def fds(self) -> Sequence[int]:
        """Readable when there is something to see."""
        return [self.memory.board.bell, *self.gpus.fds, *(self._workers.fds if self._workers is not None else ())]

    @property
    def present(self) -> bool:
        """Whether workers of an attempt are, or were, here and have not been dealt with."""
        return self._workers is not None

    def kill(self) -> None:
        """End every worker; `look` tells when none is left."""
        if self._workers is None:
            return
        self._workers.kill()
        self._look_at(self._workers, time.monotonic())

    def end(self) -> None:
        """Kill until none is left."""
        while self._workers is not None:
            self._look_at(self._workers, time.monotonic())
            if self.gang is Gang.GONE:
                return
            self.kill()
            time.sleep(_PAUSE_S)

    def close(self) -> None:
        """The attempt has been dealt with."""
        if self._workers is not None:
            self._workers.close()
        self._workers, self.gang = None, Gang.NONE

    def leave(self, *, keep: bool) -> None:
        """Have no more to do with the run.

        Args:
            keep: whether what memory holds is to stay.
        """
        self.end()
        self.close()
        self.starter.close()
        self.memory.close(remove=not keep)


def _use_of(gpus: Sequence[str]) -> Sequence[int | None]:
    if not gpus:
        return ()
    from supervisor.watch.nvml import use_of

    return use_of(gpus)


def first_orders(attempt: int, *, period: int, due_every: int, taken: int) -> Orders:
    """What the ranks of a node are told at the beginning; this process is their supervisor."""
    return Orders(
        attempt=attempt,
        period=period,
        due_every=due_every,
        taken=taken,
        supervisor_pid=os.getpid(),
        supervisor_ticks=start_ticks(os.getpid()) or 0,
    )
