"""What to do when an attempt has ended.

Every rule about trying again lives in this file.
"""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.policy.causes import CLASSES, Cause, CauseClass, Verdict
from supervisor.policy.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Finish:
    """The run is complete."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Start again in this allocation.

    Attributes:
        delay_s: pause before it [s].
    """

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Stop; a person has to look.

    Attributes:
        reason: for that person.
        usage: whether the job file is to blame and nothing was ever trained.
    """

    reason: str
    usage: bool = False


Decision = Finish | Restart | GiveUp

_BASE_DELAY_S = 5.0
_MAX_DELAY_S = 600.0


def decide(verdict: Verdict, ledger: Ledger, max_barren: int) -> Decision:
    """Choose what follows an attempt that ended by itself.

    What is permanent stops at once. Everything else is tried again while attempts still
    settle newer steps: barren attempts in a row, not attempts in all, measure a hopeless run.

    Args:
        verdict: why it ended.
        ledger: what the attempts so far have shown, this one included.
        max_barren: how many barren attempts in a row are enough.

    Source:
        NVIDIA Resiliency Extension, fault_tolerance, `max_no_progress_cycles`.

    >>> decide(Verdict(Cause.CRASHED, ""), Ledger(barren=0), 3)
    Restart(delay_s=0.0)
    >>> decide(Verdict(Cause.CRASHED, "rank 0"), Ledger(barren=3), 3)
    GiveUp(reason='crashed: 3 attempts in a row settled no newer step; the last one: rank 0', usage=False)
    """
    if verdict.cause is Cause.FINISHED:
        return Finish()
    if CLASSES[verdict.cause] is CauseClass.PERMANENT:
        return GiveUp(f"{verdict.cause.value}: {verdict.evidence}", usage=verdict.usage and ledger.best_step < 0)
    if ledger.barren >= max_barren:
        many = f"{ledger.barren} attempts in a row settled no newer step"
        return GiveUp(f"{verdict.cause.value}: {many}; the last one: {verdict.evidence}")
    return Restart(backoff_s(ledger.barren))


def backoff_s(barren: int) -> float:
    """Seconds to pause before the next attempt: none after progress, then doubling.

    >>> [backoff_s(n) for n in (0, 1, 2, 3, 2000)]
    [0.0, 5.0, 10.0, 20.0, 600.0]
    """
    if barren == 0:
        return 0.0
    doublings = min(barren - 1, 30)  # 2.0 ** 1024 overflows a float
    return min(_MAX_DELAY_S, _BASE_DELAY_S * 2.0**doublings)
