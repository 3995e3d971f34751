"""What the loop sees: beats, slots and its own few memories, made into a `Situation`."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from supervisor.board.pages import Beat, Phase, Trained
from supervisor.engine.members.team import Team
from supervisor.engine.ranks.host_memory import HostMemory
from supervisor.engine.state.checkpoints import Checkpoints
from supervisor.engine.state.memory import Memory
from supervisor.engine.state.mirroring import Mirroring
from supervisor.engine.wishes import Wishes
from supervisor.job import Job, Off, Steps
from supervisor.policy.adapt import Settings
from supervisor.policy.causes import Cause, Verdict
from supervisor.policy.divergence import Divergence
from supervisor.policy.lifecycle import Gang, Situation, Wish
from supervisor.policy.restart import Facts
from supervisor.policy.schedule import snapshot_period

#: A commit that takes longer than this does not keep a supervisor that is to leave [s], unless the grace is longer.
HUNG_S = 10.0
#: What leaving itself takes of the grace [s].
LEAVE_S = 5.0


@dataclass(slots=True)
class Sight:
    """Looks at one run.

    Attributes:
        job: of the run.
        memory: its board.
        checkpoints: what is on disk and on its way.
        wishes: what somebody outside wants.
        team: all nodes.
        mirror: where checkpoints go from disk.
    """

    job: Job
    memory: Memory
    checkpoints: Checkpoints
    wishes: Wishes
    team: Team
    mirror: Mirroring = field(default_factory=Mirroring)

    @property
    def securing_s(self) -> float:
        """How long it took the last checkpoint to come to disk, and from there to the mirror [s]."""
        return self.checkpoints.write_s + self.mirror.send_s

    def period(self, beats: list[Beat]) -> int:
        """Snapshots are taken of the steps that it divides; 0 for none."""
        match self.job.checkpoint.snapshot:
            case Off():
                return 0
            case Steps(n):
                return n
        return max((snapshot_period(beat.snapshot_s, beat.step_s) for beat in beats), default=1)

    def situation(
        self,
        *,
        gang: Gang,
        training: bool,
        drain_until_s: float | None,
        launch_at_s: float,
        over: bool,
    ) -> Situation:
        """Everything that the next move depends on.

        Args:
            gang: the workers.
            training: whether this attempt's training has begun.
            drain_until_s: monotonic time until which a drain waits [s]; None without one.
            launch_at_s: monotonic time of the next launch [s].
            over: the run is decided.
        """
        now_s = time.monotonic()
        beats = self.team.beats if self.team.node.present else []
        settled = self._settled(gang, beats if training else [])
        hung = self._hung(now_s)
        return Situation(
            gang=gang,
            wish=self.wishes.wish,
            paused=drain_until_s is not None,
            all_paused=bool(beats) and all(beat.phase in (Phase.PAUSED, Phase.FINISHED) for beat in beats),
            drain_over=drain_until_s is not None and now_s >= drain_until_s,
            done_too_long=self.team.lingers,
            settled=settled,
            committed=self.checkpoints.newest,
            trained=self._trained(beats, over=over),
            trained_committed=self.checkpoints.trained,
            committing=self.checkpoints.under_way and not hung,
            commit_failed=self.checkpoints.failed or hung,
            periodic_due=self.checkpoints.due(settled if training else -1, now_s),
            safety_due=self.wishes.safety_due and self.checkpoints.may_retry(now_s),
            launch_due=now_s >= launch_at_s,
            over=over,
            lost=self.team.lost,
            attendance=self.team.attendance_now(),
            mirroring=self.mirror.awaited(self.checkpoints.newest, self.wishes.leave_by_s, now_s),
        )

    def _hung(self, now_s: float) -> bool:
        """Whether no commit is worth waiting for: one that hangs must not keep us from leaving, nor must a next one."""
        if not self.checkpoints.under_way or self.wishes.wish is Wish.GO_ON:
            return False
        patience_s = max(HUNG_S, self.job.recovery.grace.s - LEAVE_S)
        return now_s - max(self.checkpoints.began_s, self.wishes.since_s) > patience_s

    def _trained(self, beats: list[Beat], *, over: bool) -> bool:
        """Whether the state at the training's end is on the board.

        The beats tell; at a leave the slots are looked at as well, for a predecessor may have left it.
        """
        if beats and all(beat.trained == Trained.ON_BOARD for beat in beats):
            return True
        if self.wishes.wish is Wish.GO_ON and not over:
            return False
        whole = self.memory.common()
        return whole is not None and whole.trained

    def _settled(self, gang: Gang, beats: list[Beat]) -> int:
        """Newest step whose snapshot is whole on all ranks.

        While all is well the beats tell, which costs nothing; else the slots are looked at.
        """
        if isinstance(self.job.checkpoint.snapshot, Off):
            return -1
        if gang is Gang.ALIVE and self.wishes.wish is Wish.GO_ON:
            if not beats:
                return -1
            # All ranks are at most a step apart, and what other nodes say is a moment old.
            step, due_every = min(beat.step for beat in self.team.node.beats), self.checkpoints.due_every
            period = self.period(beats)
            return max(step // period * period, step // due_every * due_every if due_every else 0)
        whole = self.memory.common()
        return whole.step if whole is not None and not whole.trained else -1


def facts_of(
    beats: Sequence[Beat],
    verdict: Verdict,
    memory: HostMemory,
    diverged: Divergence | None,
    states: tuple[int, ...],
) -> Facts:
    """What an attempt left besides its verdict.

    Args:
        beats: the last ones.
        verdict: why it ended.
        memory: of this machine.
        diverged: what showed that training had diverged.
        states: steps of the good states that are there to go back to.
    """
    return Facts(
        settings=settings_of(beats),
        needs_bytes=memory.needs_bytes() if verdict.cause is Cause.HOST_OOM else None,
        diverged=diverged,
        states=states,
        chance=random.random(),  # noqa: S311 - it spreads pauses
    )


def settings_of(beats: Sequence[Beat]) -> Settings:
    """How the program was set, as any rank published it.

    >>> settings_of([Beat(), Beat(micro_batch=4, accumulation=2)])
    Settings(micro_batch=4, accumulation=2, loader_workers=None, checkpointing=None)
    """

    def told(name: str) -> int | None:
        return next((value for beat in beats if (value := getattr(beat, name)) >= 0), None)

    checkpointing = told("checkpointing")
    return Settings(
        micro_batch=told("micro_batch"),
        accumulation=told("accumulation"),
        loader_workers=told("loader_workers"),
        checkpointing=None if checkpointing is None else bool(checkpointing),
    )
