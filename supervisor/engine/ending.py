"""Leaving: what is written down last, and what the process exits with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from supervisor.engine.allocation import Allocation
from supervisor.engine.opening import as_mapping
from supervisor.engine.progress import known
from supervisor.engine.wishes import Wishes
from supervisor.errors import DiskError, ExitCode
from supervisor.journal import read_run
from supervisor.policy.causes import Cause, Verdict
from supervisor.policy.lifecycle import Wish
from supervisor.policy.restart import GiveUp
from supervisor.policy.strikes import Strikes, strikes_of
from supervisor.watch.requests import forget_stop


@dataclass(frozen=True, slots=True)
class Left:
    """How a stay ended.

    Attributes:
        state: one of the contract's words.
        code: to exit with.
    """

    state: str
    code: ExitCode


def explained(wishes: Wishes, allocation: Allocation) -> Verdict | None:
    """Why a scheduler takes the machine back; a job that was cancelled is a wish to stop.

    Returns:
        None where there is no scheduler, or nobody wants the machine back.
    """
    if wishes.wish is not Wish.HAND_BACK:
        return None
    verdict = allocation.why(f"received {wishes.by}")
    if allocation.cancelled:
        wishes.stop("scancel")
    return verdict


def leave(
    run_dir: Path,
    wishes: Wishes,
    allocation: Allocation,
    write: Callable[..., object],
    *,
    gave_up: GiveUp | None,
    verdict: Verdict | None,
    committed: int,
    hopeless: str | None = None,
) -> Left:
    """Leave with a run that has not finished.

    Args:
        run_dir: of the run.
        wishes: what somebody outside wanted.
        allocation: where this supervisor runs.
        write: the journal's append.
        gave_up: why nothing is tried any more.
        verdict: that led to it.
        committed: newest step on disk, -1 for none.
        hopeless: why it should not be put back; None if it may.
    """
    taken = explained(wishes, allocation)
    if gave_up is not None:
        assert verdict is not None
        if not gave_up.usage:
            write("run_gave_up", cause=verdict.cause.value, reason=gave_up.reason)
        return Left("gave_up", ExitCode.USAGE if gave_up.usage else ExitCode.GAVE_UP)
    if wishes.wish is Wish.HAND_BACK and hopeless is not None and not allocation.cancelled:
        write("decision", decision="give_up", delay_s=0.0, reason=hopeless)
        write("run_gave_up", cause=(taken.cause if taken is not None else Cause.PREEMPTED).value, reason=hopeless)
        return Left("gave_up", ExitCode.GAVE_UP)
    if wishes.wish is Wish.HAND_BACK:
        write("decision", decision="leave", delay_s=0.0, reason=f"received {wishes.by}")
        queued = allocation.hand_back(wishes.since_s, strikes(run_dir))
        if not allocation.cancelled:
            return Left("requeued" if queued else "interrupted", ExitCode.HANDED_BACK)
        wishes.stop("scancel")
    write("run_stopped", by=wishes.by, step=known(committed))
    forget_stop(run_dir)
    return Left("stopped", ExitCode.STOPPED)


def strikes(run_dir: Path) -> Strikes:
    """What the journal tells against nodes; a disk that cannot be read tells nothing."""
    try:
        records = read_run(run_dir)
    except DiskError:
        return Strikes()
    return strikes_of(({**as_mapping(record), "time": record.time} for record in records), time.time())


def unsaved(step: int | None, board: Path | None, newest: int, lines: int) -> str | None:
    """What is on no disk when this process leaves, for people; None if everything is.

    Args:
        step: that memory holds and the disk does not; None for none.
        board: where it stays, for the next stay on this machine; None if it goes with this process.
        newest: step on disk, -1 for none.
        lines: of the journal that could not be written.

    >>> unsaved(9, None, 4, 0)
    'not on disk: the state of step 9, which is lost; that of step 4 is what is left'
    >>> unsaved(None, None, 12, 0) is None
    True
    """
    missing = []
    if step is not None and board is not None:
        missing.append(f"the state of step {step}, which {board} holds: the same command goes on from it here")
    elif step is not None:
        left = f"that of step {newest} is what is left" if newest >= 0 else "nothing is left of the training"
        missing.append(f"the state of step {step}, which is lost; {left}")
    if lines:
        missing.append(f"the last {lines} lines of the journal, which are lost")
    return f"not on disk: {'; '.join(missing)}" if missing else None
