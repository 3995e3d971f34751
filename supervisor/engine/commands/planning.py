"""`supervisor plan`: what `run` would do, without doing it."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.board.store import PREFIX, human_bytes, left_behind
from supervisor.checkpoint.inventory import Found, newest_intact
from supervisor.checkpoint.names import checkpoint_name
from supervisor.checkpoint.verify import Intact
from supervisor.engine.attempt import AttemptOrder, Start
from supervisor.engine.machine import board_roots, count_processes, room, spare_bytes
from supervisor.engine.opening import Terms, check_terms, history, is_done
from supervisor.engine.state.beginning import Beginning, due, find_beginning
from supervisor.engine.state.memory import Whole, peek
from supervisor.engine.state.own import Own
from supervisor.engine.state.pace import interval_of, period_of
from supervisor.engine.state.resuming import diverged_ones, torn_ones, wanted_by
from supervisor.engine.state.retention import keep_of
from supervisor.engine.world import World, attempt_command
from supervisor.job import Auto, Job, check_program
from supervisor.job.parallelism import in_shards
from supervisor.launch.command import Rendezvous
from supervisor.launch.processes import free_port
from supervisor.policy.footprint import short_of_room
from supervisor.policy.ledger import Ledger
from supervisor.policy.resume import Candidate, FromCandidate, Refuse, choose
from supervisor.watch.gpus import visible_gpus
from supervisor.watch.signals import Inbox


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do; unknown is None.

    Attributes:
        run_dir: where everything of the run lives.
        command: the launcher's argument list.
        environment: what is set on top of the supervisor's own.
        nodes: how many take part.
        processes: ranks on this machine.
        gpus: identifiers, None without any.
        resume_from: newest intact checkpoint, None for none.
        resume_step: the step that would be gone on from, 0 for a fresh start.
        resume_source: ``fresh``, ``snapshot`` (in this machine's memory) or ``checkpoint``.
        refused: why the run could not go on; None if it can.
        finished: the run has finished and nothing would be done.
        every: when a checkpoint is made.
        checkpoint_bytes: size of the newest one.
        disk_need_bytes: for as many as are kept and one more; without those that `keep_every` keeps for ever.
        disk_free_bytes: where the run directory lives, or would.
        disk_short: that there is too little, in words; None while there is enough, or nothing is known.
        board: where the board would live, and what that place can give.
    """

    run_dir: str
    command: list[str]
    environment: dict[str, str]
    nodes: int
    processes: int
    gpus: list[str] | None
    resume_from: str | None
    resume_step: int
    resume_source: str
    refused: str | None
    finished: bool
    every: str
    checkpoint_bytes: int | None
    disk_need_bytes: int | None
    disk_free_bytes: int
    disk_short: str | None
    board: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """One JSON document."""
        return {name: getattr(self, name) for name in self.__slots__}

    def as_text(self) -> str:
        """For people."""
        size = "unknown until the first" if self.checkpoint_bytes is None else human_bytes(self.checkpoint_bytes)
        need = "" if self.disk_need_bytes is None else f", needs {human_bytes(self.disk_need_bytes)} in all"
        begins = "starts at step 0"
        if self.resume_source != "fresh":
            begins = f"goes on from step {self.resume_step} ({self.resume_source})"
        if self.finished:
            begins = "has finished: nothing would be done"
        lines = [
            f"run         {f'would give up: {self.refused}' if self.refused else begins}",
            f"resume from {self.resume_from or 'nothing'}",
            *([f"nodes       {self.nodes}, this is the command of the first"] if self.nodes > 1 else []),
            f"processes   {self.processes} ({'GPUs ' + ', '.join(self.gpus) if self.gpus else 'on the CPU'})",
            f"checkpoints every {self.every}; size {size}{need}; {human_bytes(self.disk_free_bytes)} free",
            *([f"            too little: {self.disk_short}"] if self.disk_short is not None else []),
            *(f"board       {place} can give {human_bytes(free)}" for place, free in self.board.items()),
            "environment",
            *(f"  {key}={shlex.quote(value)}" for key, value in sorted(self.environment.items())),
            "command",
            f"  {shlex.join(self.command)}",
        ]
        return "\n".join(lines)


def plan(job: Job) -> Plan:
    """Look at everything that `run` would look at, and change nothing.

    Raises:
        SupervisorError: whatever would refuse the run.
    """
    gpus = visible_gpus()
    processes = count_processes(job, gpus)
    ledger = history(job.run_dir)
    terms = Terms()
    check_terms(job, ledger, terms)
    check_program(job, Path.cwd())
    take_diverged = job.recovery.on_nan == "ignore"
    newest = newest_intact(
        job.run_dir / "checkpoints",
        ledger.run_id,
        [job.run_dir / p for _, _, p in ledger.committed],
        wanted_by(ledger, take_diverged=take_diverged),
    )
    found = newest.intact
    chosen = choose(
        _candidates(ledger, found, processes, take_diverged=take_diverged),
        ever_committed=sum(ledger.counts(lineage, step) for lineage, step, _ in ledger.committed),
        set_aside=torn_ones(job.run_dir),
        unusable=[f"{one.path.name}: {getattr(one.verdict, 'reason', '')}" for one in newest.rejected],
        diverged=diverged_ones(newest.unwanted, ledger),
    )
    going_on = chosen.candidate if isinstance(chosen, FromCandidate) else None
    begins = find_beginning(job, processes * job.launch.nodes) if due(job, ledger, terms) else None
    handed = _handed(job, ledger, begins) if found is None else None
    size = found.verdict.bytes if found is not None and isinstance(found.verdict, Intact) else None
    attempt = ledger.attempts + 1
    name = PREFIX + (ledger.run_id or "<run id>")
    made = attempt_command(
        job,
        World(
            processes=processes,
            gpus=gpus,
            environment=os.environ,
            inbox=Inbox(),
            tell=lambda _word, _facts: None,
            spare_bytes=spare_bytes,
        ),
        AttemptOrder(
            number=attempt,
            lineage=ledger.lineage,
            rendezvous=Rendezvous("127.0.0.1" if job.launch.nodes == 1 else "LEADER", free_port(), job.launch.nodes),
            processes=processes,
            start=Start(checkpoint=_start_path(job, found, begins) or handed),
            adaptation=ledger.adaptation,
        ),
        board=board_roots()[0] / name,
        run_id=ledger.run_id or "<run id>",
        logs=board_roots()[0] / name / "logs" / f"attempt-{attempt}",
    )
    free = shutil.disk_usage(_nearest(job.run_dir)).free
    standing = len(list((job.run_dir / "checkpoints").glob("checkpoint-*")))
    kept = keep_of(job).count
    short = short_of_room(size, kept, standing, free) if size is not None else None
    return Plan(
        run_dir=str(job.run_dir),
        command=made.command,
        environment=made.environment,
        nodes=job.launch.nodes,
        processes=processes,
        gpus=gpus,
        resume_from=next((str(p) for p in (found and found.path, begins and begins.path, handed) if p), None),
        resume_step=going_on.step if going_on is not None else begins.step if begins is not None else 0,
        resume_source=going_on.source if going_on is not None else "checkpoint" if begins is not None else "fresh",
        refused=chosen.reason if isinstance(chosen, Refuse) else None,
        finished=is_done(job, ledger, terms),
        every=_every(job, ledger),
        checkpoint_bytes=size,
        disk_need_bytes=size * (kept + 1) if size is not None else None,
        disk_free_bytes=free,
        disk_short=short,
        board={str(root): room(root) for root in board_roots()},
    )


def _every(job: Job, ledger: Ledger) -> str:
    """When a checkpoint would be made, and where that is found out, why then."""
    asked, grace_s = job.checkpoint.every, job.recovery.grace.s
    machines = job.launch.nodes if in_shards(job.launch.accelerate) else 1
    period = period_of(asked, ledger.exposure, grace_s, machines)
    found = interval_of(asked, ledger.exposure, grace_s, machines)
    why = ", until the first shows what one costs" if found is None else f": {found.words()}"
    return f"{period} (auto{why})" if isinstance(asked, Auto) else str(period)


def _start_path(job: Job, found: Found | None, begins: Beginning | None) -> Path | None:
    """Where the checkpoint lies that an attempt would start from; what a run begins with is taken in first."""
    if found is not None or begins is None:
        return None if found is None else found.path
    return job.run_dir / "checkpoints" / checkpoint_name(begins.step)


def _handed(job: Job, ledger: Ledger, begins: Beginning | None) -> Path | None:
    """What a program would be handed that goes on by itself: what it wrote, or else what it is to begin with."""
    if ledger.committed or begins is not None:
        return None
    own = Own(job.run_dir)
    own.look()
    begin = job.start_from if ledger.run_id is None else None  # afterwards it stands in the run directory
    return own.path() or (Path.cwd() / begin if begin is not None else None)


def _candidates(ledger: Ledger, found: Found | None, processes: int, *, take_diverged: bool) -> list[Candidate]:
    """What verifies and counts, on disk and in this machine's memory."""

    def counts(whole: Whole) -> bool:
        return ledger.counts(*whole.key) and (take_diverged or not whole.diverged)

    listed = []
    if found is not None and isinstance(found.verdict, Intact):
        listed.append(Candidate(found.verdict.manifest.lineage, found.step, "checkpoint", str(found.path)))
    key = peek(left_behind(ledger.run_id, board_roots()), processes, counts) if ledger.run_id else None
    if key is not None:
        listed.append(Candidate(*key, "snapshot", ""))
    return listed


def _nearest(path: Path) -> Path:
    """The path itself, or the nearest directory above it that exists."""
    return next(p for p in (path, *path.parents) if p.exists())
