"""What the attempts so far have shown, folded from the journal.

Nothing else holds it, so budgets survive a requeue and a new machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from supervisor.policy.causes import CLASSES, Cause, CauseClass


@dataclass(frozen=True, slots=True)
class Ledger:
    """The run's memory.

    Attributes:
        run_id: of the run; None before it ever started.
        mathematics: digest of what the job computes, as it was accepted last.
        attempts: how many were started.
        barren: attempts in a row that settled no newer step; expected ends do not count.
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
    """

    run_id: str | None = None
    mathematics: str | None = None
    attempts: int = 0
    barren: int = 0
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


def fold(records: Iterable[Mapping[str, Any]], start: Ledger | None = None) -> Ledger:
    """The ledger after these journal records.

    >>> fold([{"event": "attempt_ended", "cause": "crashed", "step": None}]).barren
    1
    >>> fold([{"event": "attempt_ended", "cause": "preempted", "step": None}]).barren
    0
    """
    ledger = start or Ledger()
    for record in records:
        ledger = _after(ledger, record)
    return ledger


def _after(ledger: Ledger, record: Mapping[str, Any]) -> Ledger:  # noqa: PLR0911 - one case per event
    match record.get("event"):
        case "run_started":
            anew = Ledger(lineage=ledger.lineage + 1, attempts=ledger.attempts, epoch=ledger.epoch)
            fresh = anew if record.get("fresh") else ledger
            forgiven = replace(fresh, gave_up=None, barren=0) if record.get("forgive") else fresh
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
            trained = record.get("reason") in ("final", "best")
            return replace(
                ledger,
                committed=(*ledger.committed, one),
                trained_step=one[1] if trained else ledger.trained_step,
            )
        case "attempt_ended":
            return _ended(replace(ledger, open_attempt=None), record)
        case "run_finished":
            return replace(ledger, finished=True, gave_up=None)
        case "run_gave_up":
            return replace(ledger, gave_up=str(record.get("reason", "")))
    return ledger


def _ended(ledger: Ledger, record: Mapping[str, Any]) -> Ledger:
    step = record.get("step")
    newer = isinstance(step, int) and step > ledger.best_step
    if newer:
        return replace(ledger, barren=0, best_step=int(step or 0))
    return ledger if _expected(record.get("cause")) else replace(ledger, barren=ledger.barren + 1)


def _expected(cause: object) -> bool:
    try:
        return CLASSES[Cause(cause)] is CauseClass.EXPECTED
    except ValueError:
        return False
