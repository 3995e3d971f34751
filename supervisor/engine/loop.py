"""The loop: look, ask the policy for the next move, make it.

Everything that happened is written to the journal before anything depends on it. The loop
waits only in `select`; what takes long (a commit) is done on a thread.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from typing import Any

from supervisor.board.pages import Beat
from supervisor.checkpoint.sweep import sweep_partials
from supervisor.engine.allocation import Allocation
from supervisor.engine.attempt import AttemptOrder, Start
from supervisor.engine.course import Course
from supervisor.engine.disk import Disk
from supervisor.engine.ending import explained
from supervisor.engine.members.crew import Crew
from supervisor.engine.members.team import Team
from supervisor.engine.opening import as_mapping
from supervisor.engine.progress import Progress, known
from supervisor.engine.ranks.gpus import Gpus
from supervisor.engine.ranks.node import Node
from supervisor.engine.ranks.predecessor import EVIDENCE, end_workers, last_settled
from supervisor.engine.ranks.starting import Starter
from supervisor.engine.ranks.vigil import Vigil
from supervisor.engine.seeing import Sight, facts_of
from supervisor.engine.state.checkpoints import Checkpoints
from supervisor.engine.state.commits import Committer
from supervisor.engine.state.diverging import Diverging
from supervisor.engine.state.memory import Memory
from supervisor.engine.state.mirroring import Mirroring
from supervisor.engine.state.origin import Origin
from supervisor.engine.state.pace import Pace
from supervisor.engine.state.resuming import Resuming
from supervisor.engine.state.retention import keep_of
from supervisor.engine.tenure import Tenure
from supervisor.engine.verdicts import verdict_of
from supervisor.engine.wishes import Wishes
from supervisor.engine.world import World
from supervisor.errors import DiskError, ExitCode
from supervisor.job import Job, Seconds
from supervisor.journal import Journal
from supervisor.launch.command import Rendezvous
from supervisor.launch.processes import free_port
from supervisor.launch.slurm import incarnation
from supervisor.lease import Lease
from supervisor.policy.batch import accumulation_for
from supervisor.policy.causes import Cause, Verdict
from supervisor.policy.ledger import Ledger, fold
from supervisor.policy.lifecycle import Gang, Move, Situation, Wish, next_move
from supervisor.policy.resume import Refuse

#: How long the loop sleeps when nothing happens [s]. Everything urgent wakes it.
IDLE_S = 0.5
#: The same while a drain or a kill is under way and nobody rings for what is awaited [s].
BUSY_S = 0.02
#: How long a drain waits for one more step to settle [s]; contract, section 1.
DRAIN_S = 2.0
#: How long the commit thread may take to end once it has nothing to do [s].
CLOSE_S = 5.0


#: With what members leave that are dismissed before the leader knows its own exit code for certain.
_LEAVING = {Wish.HAND_BACK: ExitCode.HANDED_BACK, Wish.STOP: ExitCode.STOPPED, Wish.KILL: ExitCode.STOPPED}


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
    crew: Crew | None = None
    mirror: Mirroring = field(default_factory=Mirroring)
    _allocation: Allocation = field(init=False)
    _gpus: Gpus = field(init=False)
    _starter: Starter = field(init=False)
    _team: Team = field(init=False)
    _origin: Origin = field(init=False)
    _sight: Sight = field(init=False)
    _wishes: Wishes = field(init=False)
    _checkpoints: Checkpoints = field(init=False)
    _course: Course = field(init=False)
    _diverging: Diverging = field(init=False)
    _progress: Progress = field(init=False)
    _vigil: Vigil = field(init=False)
    _tenure: Tenure = field(init=False)
    _start: Start = field(default_factory=Start)
    _ready: bool = False
    _training: bool = False
    _tidied: bool = False
    _verdict: Verdict | None = None  # found before the attempt ended
    _drain_until_s: float | None = None
    _training_since_s: float = 0.0
    _disk: Disk = field(default_factory=Disk)

    def __post_init__(self) -> None:
        run_dir = self.job.run_dir
        self._wishes = Wishes(
            self.world.inbox,
            run_dir,
            self.job.recovery.grace.s,
            self.world.ignore_hangup,
            self._write,
            self._disk.ask,
            self.world.clouds,
        )
        at = incarnation(self.world.environment)
        self._allocation = Allocation(at, run_dir, self._write)
        self._gpus = Gpus.of(self.world.gpus)
        self._starter = Starter(
            self.job,
            self.world,
            self.run_id,
            self.memory.board.directory,
            self.memory.board.control,
            self._gpu_memory_held,
        )
        node = Node(self.run_id, self.memory, self._starter, gpus=self._gpus)
        self._tenure = Tenure(self.lease, self._disk, node.end, self.mirror)
        self._team = Team(node, self.crew, scheduled=at is not None, renew=self._tenure.renew, name=self.world.name)
        self.memory.elsewhere = self._team.elsewhere
        on_nan = self.job.recovery.on_nan
        self._diverging = Diverging(on_nan, lambda: self._team.beats, lambda: self.ledger, self._write)
        self.memory.counts = self._diverging.counts
        self._checkpoints = Checkpoints(
            run_dir,
            Pace(self.job.checkpoint.every, self.job.recovery.grace.s, lambda: self.ledger.exposure),
            self._team,
            Committer(
                run_dir,
                self.run_id,
                self.memory.board.directory,
                keep=keep_of(self.job),
                still_owner=self.lease.still_held,
            ),
            self._write,
        )
        resuming = Resuming(run_dir, self.run_id, self.memory, take_diverged=on_nan == "ignore")
        self._origin = Origin(run_dir, resuming, self._checkpoints, self._write, self._team.attend, self.mirror)
        self._progress = Progress(run_dir, self.memory.board, self.world.tell, self._disk.ask)
        self._course = Course(self.job, self._checkpoints, self._wishes, self._allocation, self._write)
        stall_after = self.job.recovery.stall_after
        fixed_s = stall_after.s if isinstance(stall_after, Seconds) else None
        self._vigil = Vigil(self._team, self._disk, self._write, run_dir / "logs", fixed_s)
        self._sight = Sight(self.job, self.memory, self._checkpoints, self._wishes, self._team, self.mirror)

    def run(self) -> ExitCode:
        """Go on until the run is decided or taken away.

        Returns:
            What the process is to exit with.
        """
        self._write(
            "allocation_started",
            allocation=self._allocation.name,
            nodes=self.world.nodes,
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
        self._origin.look_at_disk(self.ledger)
        try:
            while self._course.exit is None:
                self._look()
                move = next_move(self._situation())
                if move is Move.WAIT:
                    self._wait()
                else:
                    self._make(move)
        finally:
            self._starter.close()
            self._gpus.close()
            self._allocation.close(self._course.state)
            if self.crew is not None:
                self.crew.dismiss(self._course.exit, keep=self.board_is_needed)
        self._checkpoints.committer.close(patience_s=0.0 if self._checkpoints.under_way else CLOSE_S)
        self._tell_progress(force=True)
        self._disk.close(CLOSE_S)
        self._wishes.leave(secured=not self.board_is_needed)
        return self._course.exit

    # -- looking

    def _look(self) -> None:
        now_s = time.monotonic()
        self._wishes.look(now_s, secured_s=self._checkpoints.secured_s, commit_s=self._sight.securing_s)
        if self._wishes.wish is Wish.GO_ON and self._allocation.time_is_up(time.time(), self.job.recovery.grace.s):
            self._wishes.hand_back("the end of the allocation")
        gang = self._team.look(now_s)
        self._hear_members()
        for words in self._team.take_shortages():
            self._write("incident", cause=Cause.HOST_OOM.value, detail=words, decision="training goes on")
        if self._team.node.new_layout():
            self._tidied = False  # it leaves an old one behind
        if gang in (Gang.ALIVE, Gang.DONE):
            self._look_at_beats(now_s)
        if gang is Gang.ALIVE and self._wishes.wish is Wish.GO_ON and self._verdict is None:
            self._verdict = self._vigil.look(now_s, trains=self._training or self.ledger.best_step >= 0)
        self._checkpoints.look(now_s)
        for answer in self._checkpoints.committer.answers():
            self._checkpoints.take(answer, now_s, alive=gang is Gang.ALIVE)
            self.memory.release()
        self._tenure.renew(now_s)
        self._tell_progress()

    def _look_at_beats(self, now_s: float) -> None:
        beats = self._team.beats
        if not self._ready and all(beat.pid for beat in beats):
            self._ready = True
            self._write("workers_ready", pids=[beat.pid for beat in beats], stood_by=self._team.node.stood_by)
        if not self._training and all(beat.resumed >= 0 for beat in beats):
            self._training, self._training_since_s = True, now_s
            self._training_began(beats, now_s)
        if self._training:
            self._verdict = self._verdict or self._diverging.look(now_s)
        if not self._training or min(beat.step for beat in beats) <= self._start.step:
            return
        if not self._tidied:
            self._tidy()
        if self._team.gang is Gang.ALIVE and self._wishes.wish is Wish.GO_ON:
            order = self._order(self.ledger.attempts + 1, Start())
            self._starter.stand_by(order, beats, now_s - self._training_since_s)

    def _training_began(self, beats: list[Beat], now_s: float) -> None:
        step = beats[0].resumed
        self._course.state = "running"
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
        whole = next(iter(self.memory.wholes()), None)
        if self._checkpoints.under_way or whole is None or whole.step <= self._start.step:
            return
        self._tidied = True
        self.memory.tidy(whole, self.ledger.attempts)

    def _hear_members(self) -> None:
        """What members heard from outside counts as if it had been heard here."""
        if self.crew is None:
            return
        for name, host in self.crew.news.take_notices():
            self._wishes.hand_back(f"{name} on {host}")
        self._wishes.hear(self.crew.warnings.take(time.time()), time.monotonic())
        for host in self.crew.news.take_stops():
            self._wishes.stop_once(f"SIGINT on {host}")
        for refusal in self.crew.news.take_refusals():
            self._write("incident", cause=Cause.DISCONNECTED.value, detail=refusal, decision="it was sent away")

    def _situation(self) -> Situation:
        gang = self._team.gang
        self._verdict = self._verdict or self._team.verdict()
        if gang is Gang.ALIVE and (self._team.node.refusal is not None or self._verdict is not None):
            gang = Gang.BROKEN  # its memory was refused, or it began at the wrong step
        return self._sight.situation(
            gang=gang,
            training=self._training,
            drain_until_s=self._drain_until_s,
            launch_at_s=self._course.launch_at_s,
            over=self._course.over,
        )

    # -- waiting

    def _wait(self) -> None:
        fds = [*self._wishes.fds, self._checkpoints.committer.fd]
        timeout_s = IDLE_S
        if self._team.gang in (Gang.BROKEN, Gang.DONE) or self._drain_until_s is not None:
            timeout_s = BUSY_S
        elif self._team.gang is Gang.ALIVE and self._vigil.asking:
            timeout_s = BUSY_S  # ranks answer without ringing
        elif self._team.gang is Gang.NONE:
            left_s = self._course.launch_at_s - time.monotonic()
            timeout_s = left_s if 0 < left_s < IDLE_S else IDLE_S
        self._team.wait(fds, timeout_s)
        if self._team.gang is Gang.ALIVE and self._wishes.wish is Wish.GO_ON:
            self._team.give_orders(period=self._sight.period(self._team.beats))

    # -- moves

    def _make(self, move: Move) -> None:
        match move:
            case Move.LAUNCH:
                self._launch()
            case Move.PAUSE:
                self._course.state = "draining"
                self._team.give_orders(drain=1)
                # Before training has begun there is no step to wait for.
                wait_s = min(DRAIN_S, self.job.recovery.grace.s) if self._training else 0.0
                self._drain_until_s = time.monotonic() + wait_s
            case Move.COMMIT_PERIODIC | Move.COMMIT_SAFETY | Move.COMMIT_EMERGENCY | Move.COMMIT_FINAL:
                self._checkpoints.begin(move.value.removeprefix("commit "), time.monotonic())
                if not self._checkpoints.under_way and self._team.gang is Gang.ALIVE:
                    self._wait()  # its step is still to come, here or elsewhere; workers ring when it is there
            case Move.KILL:
                self._kill()
            case Move.MISS:
                self._miss()
            case Move.CLOSE_ATTEMPT:
                self._close_attempt()
            case Move.LEAVE:
                if self._team.node.present:
                    self._close_attempt()  # killed on request: its end is known, and is written down
                if self._course.exit is None:
                    self._dismiss(_LEAVING.get(self._wishes.wish, ExitCode.GAVE_UP))
                    self._course.leave(self.ledger)
            case Move.WAIT:
                pass

    def _launch(self) -> None:
        # A predecessor may have started an attempt that it could not write down.
        attempt = max(self.ledger.attempts, self.memory.board.control.orders().attempt) + 1
        self._ready = self._training = self._tidied = False
        self._verdict = None
        self._diverging.begin()
        self._checkpoints.failed = False
        self._course.state = "starting"
        try:
            self._start_attempt(attempt)
        except (OSError, DiskError) as error:
            self._team.close_attempt()
            self._course.could_not_start(error, attempt, self.world.world_size, lambda: self.ledger)

    def _start_attempt(self, attempt: int) -> None:
        start = self._origin.find(
            self.ledger, self.world.world_size, lambda start: self._team.node.prepare(self._order(attempt, start))
        )
        if isinstance(start, Refuse):
            self._course.refuse(start)
            return
        self._start = start
        self._write(
            "attempt_started",
            attempt=attempt,
            world_size=self.world.world_size,
            **start.told(),
            lineage=self.ledger.lineage,
        )
        self._team.begin(
            self._order(attempt, start),
            period=self._sight.period([]),
            due_every=self._checkpoints.due_every,
            taken=max(0, self._checkpoints.newest),
        )
        self._vigil.begin(attempt)
        self._course.started()

    def _miss(self) -> None:
        """A node has been waited for long enough: go on without it, or hand back."""
        assert self.crew is not None
        missing, absent = ", ".join(self.crew.missing()), self.crew.absent()
        left = replace(self.world, nodes=self.world.nodes - len(absent))
        batch = self._origin.batch_on_disk(self.ledger)
        accumulation = accumulation_for(batch, left.world_size) if batch is not None else None
        if self._allocation.no_kill and self._team.was_complete and accumulation is not None:
            self.crew.go_on_without(absent)
            self.world = left
            rest = f"{left.nodes} nodes go on" if left.nodes > 1 else "one node goes on"
            detail = f"{missing} did not come back: {rest}, with the same batch"
            self._write("adapted", nodes=left.nodes, accumulation=accumulation, detail=detail)
            return
        attempt = None if self._team.was_complete else self.ledger.attempts + 1
        self._course.miss(missing, attempt, self.world.world_size, lambda: self.ledger)

    def _order(self, attempt: int, start: Start) -> AttemptOrder:
        return AttemptOrder(
            number=attempt,
            lineage=self.ledger.lineage,
            rendezvous=Rendezvous(self.world.host, free_port(self.world.host), self.world.nodes),
            processes=self.world.processes,
            start=start,
            accept_changes=self.accept_changes,
            adaptation=self.ledger.adaptation,
        )

    def _kill(self) -> None:
        self._team.kill()
        if self._team.gang is not Gang.GONE:
            time.sleep(BUSY_S)

    def _gpu_memory_held(self, pids: set[int]) -> bool:
        leaving = self._wishes.wish is not Wish.GO_ON
        return not leaving and self._gpus.hold(pids)

    def _close_attempt(self) -> None:
        refusal = self._team.node.refusal
        early = self._verdict or (Verdict(Cause.USER_ERROR, str(refusal), usage=True) if refusal else None)
        beats, testimony = self._team.beats, self._team.testimony()
        diverged = self._diverging.seen if self._training and not testimony.finished else None
        if diverged is not None:
            early = Verdict(Cause.DIVERGED, diverged.words())  # whatever ended it, this came first
        whole = self.memory.common()
        if self._wishes.wish is not Wish.GO_ON:
            self._dismiss(ExitCode.FINISHED if testimony.finished else _LEAVING[self._wishes.wish])
        verdict = verdict_of(
            testimony,
            self._wishes,
            beats if self._training else [],
            early,
            explained(self._wishes, self._allocation),
            trained_before=self.ledger.best_step > 0,
        )
        own = self._origin.own_step(self.ledger, leaving=self._wishes.wish is not Wish.GO_ON)
        step = max(whole.step if whole is not None else 0, min((beat.step for beat in beats), default=0), own)
        # At step 0 nothing has been settled: such an attempt bore nothing.
        nodes = self._team.blamed(verdict) or self._vigil.hosts
        told = {"nodes": list(nodes)} if nodes else {}
        self._write(
            "attempt_ended",
            cause=verdict.cause.value,
            evidence=verdict.evidence,
            root=verdict.root,
            details=[*verdict.details, *self._team.beside(verdict)],
            step=step if step > 0 else None,
            **told,
        )
        states = self._origin.states(self.ledger, leaving=self._wishes.wish is not Wish.GO_ON) if diverged else ()
        self._team.close_attempt()
        self._drain_until_s = None
        self._team.give_orders(drain=0)
        facts = facts_of(beats, verdict, self._team.node.host_memory, diverged, states)
        if self._wishes.wish is Wish.GO_ON or verdict.cause is Cause.FINISHED:
            self._course.follow(verdict, self.ledger, trained=self._training, nodes=nodes, facts=facts)
        elif diverged is not None:
            self._course.remember(diverged.words(), self.ledger, facts)

    def _dismiss(self, code: ExitCode) -> None:
        """Have the members leave first: while a scheduler lets us wait, they would take us for dead and act alone."""
        if self.crew is not None:
            self.crew.dismiss(code, keep=self.board_is_needed)

    @property
    def board_is_needed(self) -> bool:
        """Whether memory holds a newer state than the disk, which a successor should find."""
        whole = next(iter(self.memory.wholes()), None)
        if whole is None:
            return False
        return whole.step > self._checkpoints.newest or (whole.trained and not self._checkpoints.trained)

    # -- writing

    def _write(self, event: str, /, **fields: Any) -> None:
        record = as_mapping(self.journal.keep(event, **fields))
        self._disk.do(self.journal.write_kept)
        self.ledger = fold([record], self.ledger)
        self.world.tell(event, record)

    def _tell_progress(self, *, force: bool = False) -> None:
        self._progress.tell(
            self._team.beats if self._team.node.present else None,
            self._course.state,
            self.ledger.attempts,
            now_s=time.monotonic(),
            force=force,
        )
