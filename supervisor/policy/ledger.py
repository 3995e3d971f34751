"""What the attempts so far have shown, folded from the journal.

Nothing else holds it, so budgets survive a requeue and a new machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from supervisor.policy.adapt import CHANGES, Adaptation
from supervisor.policy.causes import CLASSES, Cause, CauseClass
from supervisor.policy.interval import Exposure
from supervisor.policy.lineage import counts
from supervisor.policy.shrink import forget_memory

_TAKEN_AWAY = (Cause.PREEMPTED.value, Cause.TIME_LIMIT.value)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The run's memory.

    Attributes:
        run_id: of the run; None before it ever started.
        mathematics: digest of what the job computes, as it was accepted last.
        attempts: how many were started.
        barren: attempts in a row that settled no newer step; expected ends do not count.
        idle: expected ends in a row (preemptions, time limits) without a newer step; a user's stop is none.
        best_step: newest step ever settled, -1 for none.
        lineage: grows when a run goes back behind a checkpoint.
        committed: checkpoints ever committed, as (lineage, step, path relative to the run directory).
        world_size: processes of the last attempt.
        processes: of one node, in the last allocation.
        finished: whether training reached its end and the program returned.
        trained_step: step of the training's end, once its state is committed.
        gave_up: why the run gave up, until it is forgiven.
        open_attempt: an attempt whose end nobody has written down, None for none.
        epoch: highest epoch under which the run was ever owned.
        adaptation: what the next attempt is started with in place of the program's own settings.
        root: what ended the last attempt, and after which step; None if it is nothing that can be compared.
        same_root: attempts in a row that ended for that root at that step.
        behind: each time the run went back, the lineage that began then, and the step that it went back behind.
        forgiven_behind: how many of these times a person knew of when the run was forgiven last.
        exposure: how often memory was lost, and what commits cost; over all lineages.
    """

    run_id: str | None = None
    mathematics: str | None = None
    attempts: int = 0
    barren: int = 0
    idle: int = 0
    best_step: int = -1
    lineage: int = 0
    committed: tuple[tuple[int, int, str], ...] = ()
    world_size: int | None = None
    processes: int | None = None
    finished: bool = False
    trained_step: int | None = None
    gave_up: str | None = None
    open_attempt: int | None = None
    epoch: int = 0
    adaptation: Adaptation = field(default_factory=Adaptation)
    root: tuple[str, int | None] | None = None
    same_root: int = 0
    behind: tuple[tuple[int, int], ...] = ()
    forgiven_behind: int = 0
    exposure: Exposure = field(default_factory=Exposure)

    def counts(self, lineage: int, step: int) -> bool:
        """Whether a state still counts: the run has not gone back behind it since.

        >>> Ledger(behind=((1, 7),)).counts(0, 6), Ledger(behind=((1, 7),)).counts(0, 7)
        (True, False)
        >>> Ledger(behind=((1, 7),)).counts(1, 7)
        True
        """
        return counts(self.behind, lineage, step)


def fold(records: Iterable[Mapping[str, Any]], start: Ledger | None = None) -> Ledger:
    """The ledger after these journal records; one whose fields make no sense is passed over, as a torn line is.

    >>> fold([{"event": "attempt_ended", "cause": "crashed", "step": None}]).barren
    1
    >>> fold([{"event": "attempt_ended", "cause": "preempted", "step": None}]).barren
    0
    """
    ledger = start or Ledger()
    for record in records:
        try:
            ledger = replace(_after(ledger, record), exposure=ledger.exposure.after(record))
        except (TypeError, ValueError, AttributeError, OverflowError):
            continue
    return ledger


def _after(ledger: Ledger, record: Mapping[str, Any]) -> Ledger:  # noqa: PLR0911 - one case per event
    match record.get("event"):
        case "run_started":
            anew = Ledger(lineage=ledger.lineage + 1, attempts=ledger.attempts, epoch=ledger.epoch)
            fresh = anew if record.get("fresh") else ledger
            anew = replace(fresh, gave_up=None, barren=0, idle=0, same_root=0, forgiven_behind=len(fresh.behind))
            forgiven = anew if record.get("forgive") else fresh
            if _room_was_made(ledger, record):
                forgiven = replace(forgiven, adaptation=forget_memory(forgiven.adaptation))
            return replace(
                forgiven,
                run_id=record.get("run_id", ledger.run_id),
                mathematics=record.get("mathematics", ledger.mathematics),
                finished=forgiven.finished and not record.get("continued"),
            )
        case "allocation_started":
            epoch = record.get("epoch")
            return replace(
                ledger,
                epoch=max(ledger.epoch, epoch if isinstance(epoch, int) else 0),
                processes=record.get("processes", ledger.processes),
            )
        case "attempt_started":
            return replace(
                ledger,
                attempts=max(ledger.attempts, int(record.get("attempt") or 0)),
                world_size=record.get("world_size", ledger.world_size),
                open_attempt=record.get("attempt"),
            )
        case "checkpoint_committed":
            one = (int(record.get("lineage", 0)), int(record.get("step", 0)), str(record.get("path", "")))
            trained = record.get("reason") in ("final", "best") and record.get("trained") is not False
            return replace(
                ledger,
                committed=(*ledger.committed, one),
                trained_step=one[1] if trained else ledger.trained_step,
            )
        case "attempt_ended":
            return _ended(replace(ledger, open_attempt=None), record)
        case "adapted" if CHANGES in record:
            # With other settings it is another attempt at it: what the old ones bore tells nothing.
            adaptation = ledger.adaptation.after(record[CHANGES])
            adapted = replace(ledger, adaptation=adaptation, barren=0, same_root=0)
            return _back(adapted, record.get("lineage"), record.get("before"))
        case "run_finished":
            return replace(ledger, finished=True, gave_up=None)
        case "run_gave_up":
            return replace(ledger, gave_up=str(record.get("reason", "")))
    return ledger


def _room_was_made(ledger: Ledger, record: Mapping[str, Any]) -> bool:
    """Whether what did not fit may fit now: the job computes something else, or memory ended it and a person came."""
    mathematics = record.get("mathematics", ledger.mathematics)
    ended = (ledger.gave_up or "").startswith((Cause.GPU_OOM.value, Cause.HOST_OOM.value))
    return mathematics != ledger.mathematics or bool(record.get("forgive") and ended)


def _back(ledger: Ledger, lineage: object, before: object) -> Ledger:
    """Behind a step: what was settled from there on counts as never done."""
    if not isinstance(lineage, int) or not isinstance(before, int) or lineage <= ledger.lineage:
        return ledger
    return replace(
        ledger,
        lineage=lineage,
        behind=(*ledger.behind, (lineage, before)),
        best_step=min(ledger.best_step, before - 1),
        trained_step=None,
    )


def _ended(ledger: Ledger, record: Mapping[str, Any]) -> Ledger:
    step = record.get("step")
    root = (record["root"], step) if isinstance(record.get("root"), str) else None
    again = root is not None and root == ledger.root
    ledger = replace(ledger, root=root, same_root=ledger.same_root + 1 if again else int(root is not None))
    newer = isinstance(step, int) and step > ledger.best_step
    if newer:
        return replace(ledger, barren=0, idle=0, best_step=int(step or 0))
    if record.get("cause") in _TAKEN_AWAY:
        return replace(ledger, idle=ledger.idle + 1)
    return ledger if _expected(record.get("cause")) else replace(ledger, barren=ledger.barren + 1)


def _expected(cause: object) -> bool:
    try:
        return CLASSES[Cause(cause)] is CauseClass.EXPECTED
    except ValueError:
        return False
