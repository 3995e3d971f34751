"""The journal, folded into the history of a run.

Pure: records in, values out. A record that lacks a field leaves that field
unknown; a record of an unknown event changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from supervisor.journal import Record

#: States in which nothing happens any more unless somebody starts the run again.
ENDED = frozenset({"interrupted", "finished", "requeued", "gave_up", "stopped"})

NO_END = "no end was recorded: the supervisor itself was killed, or its machine went down"


@dataclass(slots=True)
class Attempt:
    """One launch of the workers; times in unix seconds.

    Attributes:
        number: as in the journal; a fresh start counts anew.
        stay: which start of the supervisor it belongs to.
        started: when it was launched.
        seen: the newest sign of it that is not its end.
        host: of the leader.
        world_size: its ranks.
        source: what it resumed from: fresh, snapshot, checkpoint or mirror.
        training: when training started; None if it never did.
        resumed: the step that training started from.
        ended: when it ended; for an attempt whose end nobody recorded, `seen`.
        step: newest settled step; None while it runs, or when it is not known.
        committed: newest step that it committed.
        cause: why it ended.
        evidence: where that was read.
        root: short and the same for the same root in every attempt.
        details: further evidence, a line each.
        decision: what followed.
        delay_s: pause before what followed [s].
        reason: why that was decided.
    """

    number: int | None
    stay: int
    started: float
    seen: float
    host: str | None = None
    world_size: int | None = None
    source: str | None = None
    training: float | None = None
    resumed: int | None = None
    ended: float | None = None
    step: int | None = None
    committed: int | None = None
    cause: str | None = None
    evidence: str | None = None
    root: str | None = None
    details: list[str] = field(default_factory=list)
    decision: str | None = None
    delay_s: float | None = None
    reason: str | None = None

    @property
    def reached(self) -> int | None:
        """The newest step that is known to have been settled in it."""
        known = [step for step in (self.resumed, self.committed, self.step) if step is not None]
        return max(known, default=None)


@dataclass(frozen=True, slots=True)
class Commit:
    """One checkpoint on disk, as committed."""

    time: float
    attempt: int | None
    step: int
    lineage: int
    path: str
    bytes: int | None
    stall_s: float | None
    write_s: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that went wrong, and what was done about it."""

    time: float
    attempt: int | None
    cause: str | None
    detail: str | None
    decision: str | None


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a checkpoint is made where the run finds that out, and why.

    Attributes:
        every_s: from the end of a commit to the next one's beginning [s].
        cost_s: what one costs training [s].
        between_s: training between two losses of memory, as it is expected [s].
    """

    every_s: float
    cost_s: float | None
    between_s: float | None


@dataclass(slots=True)
class RunHistory:
    """All that is known of a run.

    Attributes:
        name: of the run; None before it started.
        run_id: of the run.
        state: one of the contract's words, as far as the journal can tell.
        started: when the run, or its last fresh start, began [unix s].
        ended: when it finished, gave up or was stopped [unix s].
        stays: how often a supervisor started on it.
        allocation: the last one.
        attempts: all of them, oldest first.
        since: index of the first attempt that counts: those before a fresh start do not.
        commits: of the run since then, without those that were rejected later.
        mirrored: lineage and step of the newest checkpoint that is in the mirror, too.
        incidents: all of them.
        adapted: what was changed last so that it could go on, and when [unix s].
        pace: how often checkpoints are made; None where the job says so itself, or it is not known yet.
        max_steps: as the training last said.
        final_step: the step of the run's end.
        final: where the final adapter is, relative to the run directory.
        reason: why the run gave up.
        stopped_by: who asked it to stop.
        newest: time of the newest record [unix s].
    """

    name: str | None = None
    run_id: str | None = None
    state: str = "pending"
    started: float | None = None
    ended: float | None = None
    stays: int = 0
    allocation: str | None = None
    attempts: list[Attempt] = field(default_factory=list)
    since: int = 0
    commits: list[Commit] = field(default_factory=list)
    mirrored: tuple[int, int] | None = None
    incidents: list[Incident] = field(default_factory=list)
    adapted: tuple[float, str] | None = None
    pace: Pace | None = None
    max_steps: int | None = None
    final_step: int | None = None
    final: str | None = None
    reason: str | None = None
    stopped_by: str | None = None
    newest: float | None = None

    @property
    def counted(self) -> list[Attempt]:
        """The attempts since the last fresh start."""
        return self.attempts[self.since :]

    @property
    def last(self) -> Attempt | None:
        """The newest attempt that counts."""
        return self.attempts[-1] if len(self.attempts) > self.since else None

    @property
    def step(self) -> int | None:
        """The newest step known to be settled in the attempt that trained last."""
        if self.state == "finished" and self.final_step is not None:
            return self.final_step
        return next((a.reached for a in reversed(self.counted) if a.training is not None), None)

    @property
    def last_commit(self) -> Commit | None:
        """The newest checkpoint: highest (lineage, step)."""
        return max(self.commits, key=lambda commit: (commit.lineage, commit.step), default=None)


def fold(records: Iterable[Record], onto: RunHistory | None = None) -> RunHistory:
    """Make the history of a run from its journal.

    Args:
        records: of the journal, oldest first.
        onto: what earlier records made; it is changed, and given back.

    >>> fold([Record(5.0, "run_started", fields={"name": "demo"})]).state
    'starting'
    """
    history = RunHistory() if onto is None else onto
    for record in records:
        _take(history, record)
    return history


def _take(history: RunHistory, record: Record) -> None:  # noqa: PLR0912 - one case per event
    history.newest = record.time
    last = history.last
    if last is not None and last.ended is None and last.number == record.attempt and record.event != "attempt_started":
        last.seen = max(last.seen, record.time)
    match record.event:
        case "run_started":
            _start(history, record)
        case "allocation_started":
            history.allocation = record.text("allocation")
            history.state = "starting"
        case "attempt_started":
            _start_attempt(history, record)
        case "training_started":
            _start_training(history, record)
        case "checkpoint_committed":
            _commit(history, record)
        case "mirrored":
            at = record.count("lineage") or 0, record.count("step") or 0
            history.mirrored = max(at, history.mirrored or at)  # older ones may follow the newest
        case "checkpoint_rejected":
            history.commits = [commit for commit in history.commits if commit.path != record.text("path")]
        case "notice" if "urgent" in record.fields or "withdrawn" in record.fields:
            pass  # a cloud's: training goes on until its deadline is near
        case "stop_asked" | "notice":
            history.state = "draining" if history.state not in ENDED else history.state
        case "incident":
            words = (record.text("cause"), record.text("detail"), record.text("decision"))
            history.incidents.append(Incident(record.time, record.attempt, *words))
        case "adapted":
            history.adapted = (record.time, record.text("detail") or "")
        case "attempt_ended":
            _end_attempt(history, record)
        case "decision":
            _decide(history, record)
        case "requeued":
            history.state = "requeued"
        case "run_finished":
            history.state, history.ended = "finished", record.time
            history.final_step, history.final = record.count("step"), record.text("final")
        case "run_gave_up":
            history.state, history.ended, history.reason = "gave_up", record.time, record.text("reason")
        case "run_stopped":
            history.state, history.ended, history.stopped_by = "stopped", record.time, record.text("by")


def _start(history: RunHistory, record: Record) -> None:
    _close_open(history)
    fresh = record.fields.get("fresh") is True
    history.stays += 1
    history.state, history.ended, history.reason, history.stopped_by = "starting", None, None, None
    history.final, history.final_step, history.pace = None, None, None
    history.name = record.text("name") or history.name
    history.run_id = record.text("run_id") or history.run_id
    if fresh or history.started is None:
        history.started = record.time
    if fresh:
        history.since, history.commits, history.max_steps = len(history.attempts), [], None
        history.adapted = history.mirrored = None


def _close_open(history: RunHistory) -> None:
    """End the attempt that a killed supervisor left without an end."""
    last = history.attempts[-1] if history.attempts else None
    if last is not None and last.ended is None:
        last.ended, last.cause, last.evidence = last.seen, "unknown", NO_END


def _start_attempt(history: RunHistory, record: Record) -> None:
    _close_open(history)
    history.state = "starting"
    attempt = Attempt(record.attempt, history.stays, record.time, record.time, host=record.host)
    attempt.world_size, attempt.source = record.count("world_size"), record.text("source")
    history.attempts.append(attempt)


def _start_training(history: RunHistory, record: Record) -> None:
    history.state = "running"
    history.max_steps = record.count("max_steps") or history.max_steps
    attempt = _attempt(history, record)
    if attempt is None:
        return
    attempt.training, attempt.resumed = record.time, record.count("step")
    attempt.source = record.text("source") or attempt.source
    before = next((a for a in reversed(history.counted[:-1]) if a.training is not None), None)
    if before is not None and before.step is None and attempt.source == "snapshot":
        before.step = attempt.resumed  # memory holds the newest step that was settled


def _commit(history: RunHistory, record: Record) -> None:
    step, path = record.count("step"), record.text("path")
    if step is None or path is None:
        return
    figures = (record.count("bytes"), record.number("stall_s"), record.number("write_s"))
    commit = Commit(
        record.time, record.attempt, step, record.count("lineage") or 0, path, *figures, record.text("reason")
    )
    history.commits.append(commit)
    if (every_s := record.number("every_s")) is not None:
        history.pace = Pace(every_s, record.number("cost_s"), record.number("between_s"))
    attempt = _attempt(history, record)
    if attempt is not None:
        attempt.committed = max(step, attempt.committed if attempt.committed is not None else step)


def _end_attempt(history: RunHistory, record: Record) -> None:
    attempt = _attempt(history, record)
    if attempt is None:
        return
    told_by_itself = attempt.stay == history.stays
    attempt.ended = record.time if told_by_itself else attempt.seen
    attempt.cause, attempt.evidence = record.text("cause") or "unknown", record.text("evidence")
    attempt.root = record.text("root")
    details = record.fields.get("details")
    attempt.details = [one for one in details if isinstance(one, str)] if isinstance(details, list) else []
    attempt.step = record.count("step")
    if attempt.step is None and told_by_itself:
        attempt.step = attempt.resumed  # it settled nothing newer
    if told_by_itself:
        history.state = "waiting"


def _decide(history: RunHistory, record: Record) -> None:
    decision = record.text("decision")
    match decision:
        case "restart":
            history.state = "waiting"
        case "give_up":
            history.state, history.ended, history.reason = "gave_up", record.time, record.text("reason")
        case "leave":
            history.state = "interrupted"
    attempt = _attempt(history, record)
    if attempt is not None and attempt.stay == history.stays:
        attempt.decision, attempt.delay_s = decision, record.number("delay_s")
        attempt.reason = record.text("reason")


def _attempt(history: RunHistory, record: Record) -> Attempt | None:
    """The attempt that a record speaks of; the last one if it names none that is known."""
    for index in range(len(history.attempts) - 1, history.since - 1, -1):
        if history.attempts[index].number == record.attempt:
            return history.attempts[index]
    return history.last
