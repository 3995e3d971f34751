"""The loop: look, ask the policy for the next move, make it.

Everything that happened is written to the journal before anything depends on it. The loop
waits only in `select`; what takes long (a commit) is done on a thread.
"""

from __future__ import annotations

import os
import select
import time
from dataclasses import dataclass, field
from typing import Any

from supervisor.board.pages import Beat, Orders
from supervisor.checkpoint.sweep import sweep_partials
from supervisor.engine.allocation import Allocation
from supervisor.engine.checkpoints import Checkpoints
from supervisor.engine.commits import Committer, TornSnapshotError, write_final_from
from supervisor.engine.ending import explained, leave
from supervisor.engine.gang import Workers
from supervisor.engine.memory import Memory
from supervisor.engine.opening import as_mapping
from supervisor.engine.predecessor import EVIDENCE, end_workers, last_settled
from supervisor.engine.progress import Progress, known
from supervisor.engine.resuming import Resuming, Start
from supervisor.engine.seeing import Sight
from supervisor.engine.starting import Starter
from supervisor.engine.verdicts import verdict_of
from supervisor.engine.wishes import Wishes
from supervisor.engine.world import World
from supervisor.errors import DiskError, ExitCode, OwnedError, SupervisorError, TakenOverError
from supervisor.job import Job, Off, Seconds, Steps
from supervisor.journal import Journal
from supervisor.launch.gpus import memory_held_by
from supervisor.launch.slurm import incarnation
from supervisor.lease import RENEW_EVERY_S, Lease
from supervisor.owner import start_ticks
from supervisor.policy.causes import Cause, Verdict
from supervisor.policy.ledger import Ledger, fold
from supervisor.policy.lifecycle import Gang, Move, Situation, Wish, next_move
from supervisor.policy.restart import Finish, GiveUp, Restart, decide
from supervisor.policy.resume import Refuse
from supervisor.policy.schedule import AUTO_EVERY

#: How long the loop sleeps when nothing happens [s]. Everything urgent wakes it.
IDLE_S = 0.5
#: The same while a drain or a kill is under way and nobody rings for what is awaited [s].
BUSY_S = 0.02
#: How long a drain waits for one more step to settle [s]; contract, section 1.
DRAIN_S = 2.0
#: A GPU's driver may take this long to give a killed process's memory back [s].
GPU_MEMORY_S = 30.0
#: How long the commit thread may take to end once it has nothing to do [s].
CLOSE_S = 5.0


@dataclass(slots=True)
class Loop:
    """One stay of the supervisor with a run, from the lease to the exit code."""

    job: Job
    world: World
    run_id: str
    ledger: Ledger
    journal: Journal
    lease: Lease
    memory: Memory
    accept_changes: bool = False
    _allocation: Allocation = field(init=False)
    _starter: Starter = field(init=False)
    _sight: Sight = field(init=False)
    _wishes: Wishes = field(init=False)
    _checkpoints: Checkpoints = field(init=False)
    _resuming: Resuming = field(init=False)
    _progress: Progress = field(init=False)
    _start: Start = field(default_factory=Start)
    _workers: Workers | None = None
    _gang: Gang = Gang.NONE
    _state: str = "starting"
    _ready: bool = False
    _training: bool = False
    _tidied: bool = False
    _stood_by: bool = False  # the workers were there before their attempt began
    _looked: bool = False  # the disk was verified since the last start
    _verdict: Verdict | None = None  # found before the attempt ended
    _refusal: SupervisorError | None = None
    _gave_up: GiveUp | None = None
    _exit: ExitCode | None = None
    _drain_until_s: float | None = None
    _training_since_s: float = 0.0
    _launch_at_s: float = 0.0
    _killed_at_s: float = 0.0
    _renewed_at_s: float = 0.0

    def __post_init__(self) -> None:
        every = self.job.checkpoint.every
        run_dir = self.job.run_dir
        self._wishes = Wishes(
            self.world.inbox, run_dir, self.job.recovery.grace.s, self.world.ignore_hangup, self._write
        )
        self._checkpoints = Checkpoints(
            run_dir,
            every if isinstance(every, Seconds | Steps) else AUTO_EVERY,
            self.memory,
            Committer(
                run_dir,
                self.run_id,
                self.memory.board.directory,
                keep_last=self.job.checkpoint.keep_last,
                still_owner=self.lease.still_held,
            ),
            self._write,
        )
        self._resuming = Resuming(run_dir, self.run_id, self.memory)
        self._progress = Progress(run_dir, self.memory.board, self.world.tell)
        self._allocation = Allocation(incarnation(self.world.environment), run_dir, self._write)
        self._starter = Starter(
            self.job,
            self.world,
            self.run_id,
            self.memory.board.directory,
            self.memory.board.control,
            self._gpu_memory_held,
            self.accept_changes,
        )
        self._sight = Sight(self.job, self.memory, self._checkpoints, self._wishes)

    def run(self) -> ExitCode:
        """Go on until the run is decided or taken away.

        Returns:
            What the process is to exit with.
        """
        self._write(
            "allocation_started",
            allocation=self._allocation.name,
            nodes=1,
            processes=self.world.processes,
            epoch=self.lease.epoch,
            pid=os.getpid(),
            board_adopted=self.memory.board.adopted,
        )
        end_workers(self.run_id)
        if (lost := self.ledger.open_attempt) is not None:
            step = last_settled(self.memory, self.job.run_dir, lost)
            self._write("attempt_ended", attempt=lost, cause=Cause.UNKNOWN.value, evidence=EVIDENCE, step=step)
        sweep_partials(self.job.run_dir / "checkpoints", sole_owner=True)
        self._look_at_disk()
        try:
            while self._exit is None:
                self._look()
                move = next_move(self._situation())
                if move is Move.WAIT:
                    self._wait()
                else:
                    self._make(move)
        finally:
            self._starter.close()
            self._allocation.close(self._state)
        self._checkpoints.committer.close(patience_s=0.0 if self._checkpoints.under_way else CLOSE_S)
        self._tell_progress(force=True)
        return self._exit

    # -- looking

    def _look(self) -> None:
        now_s = time.monotonic()
        self._wishes.look(now_s)
        if self._wishes.wish is Wish.GO_ON and self._allocation.time_is_up(time.time(), self.job.recovery.grace.s):
            self._wishes.hand_back("the end of the allocation")
        self.memory.board.hush()
        if self._workers is not None:
            granted, refusal = self.memory.grant_wishes()
            self._refusal = self._refusal or refusal
            self._tidied = self._tidied and not granted  # a new layout leaves an old one behind
            self._gang = self._workers.look(now_s)
            if self._gang in (Gang.ALIVE, Gang.DONE):
                self._look_at_beats(now_s)
        for answer in self._checkpoints.committer.answers():
            self._checkpoints.take(answer, now_s, alive=self._gang is Gang.ALIVE)
            self.memory.release()
        if now_s - self._renewed_at_s >= RENEW_EVERY_S:
            self._renewed_at_s = now_s
            self._renew()
        self._tell_progress()

    def _renew(self) -> None:
        """Show that this owner lives.

        Raises:
            TakenOverError: somebody else owns the run; our workers are gone by then.
        """
        try:
            self.lease.renew()
        except OwnedError as error:
            while self._workers is not None and self._workers.look(time.monotonic()) is not Gang.GONE:
                self._kill()
            raise TakenOverError(error.problem, error.remedy) from error
        except DiskError:
            return  # nothing is known, so nothing changes; commits ask again before they count

    def _look_at_beats(self, now_s: float) -> None:
        beats = self._sight.beats()
        if not self._ready and all(beat.pid for beat in beats):
            self._ready = True
            self._write("workers_ready", pids=[beat.pid for beat in beats], stood_by=self._stood_by)
        if not self._training and all(beat.resumed >= 0 for beat in beats):
            self._training, self._training_since_s = True, now_s
            self._training_began(beats, now_s)
        if not self._training or min(beat.step for beat in beats) <= self._start.step:
            return
        if not self._tidied:
            self._tidy()
        if self._gang is Gang.ALIVE and self._wishes.wish is Wish.GO_ON:
            self._starter.stand_by(self.ledger.attempts + 1, self.ledger.lineage, beats, now_s - self._training_since_s)

    def _training_began(self, beats: list[Beat], now_s: float) -> None:
        step = beats[0].resumed
        self._state = "running"
        self._checkpoints.training_began(now_s)
        # A training that had ended may have been given more steps; then its end is still to come.
        self._checkpoints.trained = self._checkpoints.trained and all(beat.trained for beat in beats)
        self._write("training_started", step=step, source=self._start.source, max_steps=known(beats[0].max_steps))
        if any(beat.resumed != self._start.step for beat in beats):
            self._verdict = Verdict(
                Cause.USER_ERROR,
                f"training was to go on from step {self._start.step}, but the program began at step {step}; "
                "pass resume_point() to Trainer.train, or set `hooks: auto`",
            )

    def _tidy(self) -> None:
        """Training has moved on from what it resumed from: let that go, unless a commit reads it."""
        whole = self.memory.common()
        if self._checkpoints.under_way or whole is None or whole.step <= self._start.step:
            return
        self._tidied = True
        self.memory.tidy(whole, self.ledger.attempts)

    def _situation(self) -> Situation:
        condition = self._gang
        if condition is Gang.ALIVE and (self._refusal is not None or self._verdict is not None):
            condition = Gang.BROKEN  # its memory was refused, or it began at the wrong step
        workers = self._workers
        return self._sight.situation(
            gang=condition,
            training=self._training,
            beats=self._sight.beats() if workers is not None else [],
            lingers=workers is not None and workers.lingers(time.monotonic()),
            drain_until_s=self._drain_until_s,
            launch_at_s=self._launch_at_s,
            over=self._gave_up is not None or self._exit is not None,
        )

    # -- waiting

    def _wait(self) -> None:
        fds = [self.world.inbox.fd, self.memory.board.bell, self._checkpoints.committer.fd]
        fds += self._workers.fds if self._workers is not None else []
        timeout_s = IDLE_S
        if self._gang in (Gang.BROKEN, Gang.DONE) or self._drain_until_s is not None:
            timeout_s = BUSY_S
        elif self._gang is Gang.NONE:
            left_s = self._launch_at_s - time.monotonic()
            timeout_s = left_s if 0 < left_s < IDLE_S else IDLE_S
        select.select(fds, [], [], timeout_s)
        if self._gang is Gang.ALIVE and self._wishes.wish is Wish.GO_ON:
            self.memory.give_orders(period=self._sight.period(self._sight.beats()))

    # -- moves

    def _make(self, move: Move) -> None:
        match move:
            case Move.LAUNCH:
                self._launch()
            case Move.PAUSE:
                self._state = "draining"
                self.memory.give_orders(drain=1)
                # Before training has begun there is no step to wait for.
                wait_s = min(DRAIN_S, self.job.recovery.grace.s) if self._training else 0.0
                self._drain_until_s = time.monotonic() + wait_s
            case Move.COMMIT_PERIODIC | Move.COMMIT_EMERGENCY | Move.COMMIT_FINAL:
                self._checkpoints.begin(move.value.removeprefix("commit "), self._sight.beats(), time.monotonic())
            case Move.KILL:
                self._kill()
            case Move.CLOSE_ATTEMPT:
                self._close_attempt()
            case Move.LEAVE:
                if self._workers is not None:
                    self._close_attempt()  # killed on request: its end is known, and is written down
                if self._exit is None:
                    self._leave()
            case Move.WAIT:
                pass

    def _launch(self) -> None:
        # A predecessor may have started an attempt that it could not write down.
        attempt = max(self.ledger.attempts, self.memory.board.control.orders().attempt) + 1
        self._ready = self._training = self._tidied = False
        self._verdict = self._refusal = None
        self._checkpoints.failed = False
        self._state = "starting"
        try:
            self._start_attempt(attempt)
        except OSError as error:
            self._write("attempt_started", attempt=attempt, world_size=self.world.processes, source="fresh")
            verdict = Verdict(Cause.CRASHED, f"the attempt could not be started: {error}")
            self._write("attempt_ended", cause=verdict.cause.value, evidence=verdict.evidence, step=None)
            self._workers, self._gang = None, Gang.NONE
            self._decide(verdict)

    def _start_attempt(self, attempt: int) -> None:
        self.memory.begin_attempt(
            Orders(
                attempt=attempt,
                period=self._sight.period([]),
                due_every=self._checkpoints.due_every,
                taken=max(0, self._checkpoints.newest),
                supervisor_pid=os.getpid(),
                supervisor_ticks=start_ticks(os.getpid()) or 0,
            )
        )
        start = self._find_start(attempt)
        if start is None:
            return
        self._start = start
        self._secure_final(start)
        self._write(
            "attempt_started",
            attempt=attempt,
            world_size=self.world.processes,
            resume_step=None if start.source == "fresh" else start.step,
            source=start.source,
            lineage=self.ledger.lineage,
        )
        workers, self._stood_by = self._starter.start(attempt, self.ledger.lineage, start.checkpoint)
        self._workers, self._gang, self._looked = workers, Gang.ALIVE, False

    def _look_at_disk(self) -> None:
        """Verify what is on disk; say what is torn, and what cannot be read or is gone."""
        self._looked = True
        disk = self._resuming.look(self.ledger, time.time)
        for name, step, reason in disk.rejected:
            self._write("checkpoint_rejected", path=f"checkpoints/{name}", step=step, reason=reason)
        for problem in disk.unreadable:
            self._write("incident", cause=Cause.STORAGE.value, detail=problem, decision="it stays where it is")
        self._checkpoints.newest = disk.newest.step if disk.newest is not None else -1

    def _find_start(self, attempt: int) -> Start | None:
        """What the attempt goes on from; None if there is nothing left to go on from."""
        while True:
            if not self._looked and self._resuming.board_is_behind(self._checkpoints.newest):
                self._look_at_disk()
            chosen = self._resuming.choose(self.ledger, self.world.processes)
            if isinstance(chosen, Refuse):
                self._refuse(chosen)
                return None
            try:
                return self._resuming.point_at(chosen, attempt)
            except TornSnapshotError as error:
                self._incident(Verdict(Cause.BAD_CHECKPOINT, str(error)), "the next older state is tried")
                self._resuming.pass_over()

    def _refuse(self, refused: Refuse) -> None:
        verdict = Verdict(Cause.BAD_CHECKPOINT, refused.reason)
        if refused.transient:
            self._incident(verdict, "the same command may be tried again")
            self._write("decision", decision="leave", delay_s=0.0, reason=refused.reason)
            self._state, self._exit = "interrupted", ExitCode.HANDED_BACK
        else:
            self._give_up(verdict, GiveUp(f"bad_checkpoint: {refused.reason}"))

    def _secure_final(self, start: Start) -> None:
        """Training had ended before: its end counts as secured once the final adapter is there, too."""
        checkpoint = self.job.run_dir / "checkpoints" / f"checkpoint-{start.step}"
        on_disk = start.trained and self._checkpoints.newest >= start.step
        if on_disk and not (self.job.run_dir / "final").is_dir():
            write_final_from(checkpoint, self.job.run_dir)
        self._checkpoints.trained = on_disk

    def _kill(self) -> None:
        assert self._workers is not None
        self._killed_at_s = self._killed_at_s or time.monotonic()
        self._workers.kill()
        if self._workers.look(time.monotonic()) is not Gang.GONE:
            time.sleep(BUSY_S)

    def _gpu_memory_held(self, pids: set[int]) -> bool:
        leaving = self._wishes.wish is not Wish.GO_ON
        if self.world.gpus is None or leaving or time.monotonic() - self._killed_at_s > GPU_MEMORY_S:
            return False
        return memory_held_by(pids)

    def _close_attempt(self) -> None:
        assert self._workers is not None
        early = self._verdict or (Verdict(Cause.USER_ERROR, str(self._refusal), usage=True) if self._refusal else None)
        beats = self._sight.beats() if self._training else []
        verdict = verdict_of(self._workers, self._wishes, beats, early, explained(self._wishes, self._allocation))
        steps = [beat.step for beat in self._sight.beats()]
        whole = self.memory.common()
        step = max(whole.step if whole is not None else 0, min(steps, default=0))
        # At step 0 nothing has been settled: such an attempt bore nothing.
        self._write(
            "attempt_ended", cause=verdict.cause.value, evidence=verdict.evidence, step=step if step > 0 else None
        )
        self._workers.close()
        self._workers, self._gang, self._killed_at_s = None, Gang.NONE, 0.0
        self._drain_until_s = None
        self.memory.give_orders(drain=0)
        if self._wishes.wish is Wish.GO_ON or verdict.cause is Cause.FINISHED:
            self._decide(verdict)

    def _decide(self, verdict: Verdict) -> None:
        decision = decide(verdict, self.ledger, self.job.recovery.max_barren)
        match decision:
            case Finish():
                self._write("decision", decision="finish", delay_s=0.0, reason=verdict.evidence)
                self._finish()
            case Restart(delay_s):
                self._incident(verdict, f"restart in {delay_s:.0f} s" if delay_s else "restart at once")
                self._write("decision", decision="restart", delay_s=delay_s, reason=verdict.evidence)
                self._launch_at_s = time.monotonic() + delay_s
                self._state = "waiting"
            case GiveUp():
                self._give_up(verdict, decision)

    def _incident(self, verdict: Verdict, decision: str) -> None:
        self._write("incident", cause=verdict.cause.value, detail=verdict.evidence, decision=decision)

    def _give_up(self, verdict: Verdict, decision: GiveUp) -> None:
        self._incident(verdict, "give up")
        self._write("decision", decision="give_up", delay_s=0.0, reason=decision.reason)
        self._gave_up, self._verdict = decision, verdict

    def _finish(self) -> None:
        snapshots = not isinstance(self.job.checkpoint.snapshot, Off)
        if self._checkpoints.failed or (self._training and snapshots and not self._checkpoints.trained):
            reason = "training finished, but its last state could not be written; it stays in memory on this machine"
            self._give_up(Verdict(Cause.STORAGE, reason), GiveUp(reason))
            return
        final = self.job.run_dir / "final"
        self._state = "finished"
        self._write("run_finished", step=known(self._checkpoints.newest), final="final" if final.is_dir() else None)
        self._exit = ExitCode.FINISHED

    def _leave(self) -> None:
        left = leave(
            self.job.run_dir,
            self._wishes,
            self._allocation,
            self._write,
            gave_up=self._gave_up,
            verdict=self._verdict,
            committed=self._checkpoints.newest,
        )
        self._state, self._exit = left.state, left.code

    @property
    def board_is_needed(self) -> bool:
        """Whether memory holds a newer state than the disk, which a successor should find."""
        whole = self.memory.common()
        if whole is None:
            return False
        return whole.step > self._checkpoints.newest or (whole.trained and not self._checkpoints.trained)

    # -- writing

    def _write(self, event: str, /, **fields: Any) -> None:
        record = as_mapping(self.journal.note(event, **fields))
        self.ledger = fold([record], self.ledger)
        self.world.tell(event, record)

    def _tell_progress(self, *, force: bool = False) -> None:
        self._progress.tell(
            self._sight.beats() if self._workers is not None else None,
            self._state,
            self.ledger.attempts,
            now_s=time.monotonic(),
            force=force,
        )
