"""Where an attempt goes on from.

Newest is the highest (lineage, step) that verified, over board and disk; a tie goes to the
board, which is nearer. A run that ever committed never starts at step 0 unasked, whatever a
directory listing shows: listings can be stale, and checkpoints can have been set aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Candidate:
    """A state that verified.

    Attributes:
        lineage: of the run when it was taken.
        step: settled steps it holds.
        source: where it lies.
        where: index or path for whoever loads it.
    """

    lineage: int
    step: int
    source: Literal["snapshot", "checkpoint"]
    where: str


@dataclass(frozen=True, slots=True)
class FromCandidate:
    """Go on from this state."""

    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Fresh:
    """Start at step 0: nothing was ever there."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """There was something and none of it verifies.

    Attributes:
        reason: what was lost and why, for a person.
        transient: some of it could not be read just now; another try may find it.
    """

    reason: str
    transient: bool = False


def choose(
    candidates: Sequence[Candidate],
    *,
    ever_committed: int,
    set_aside: Sequence[str],
    unusable: Sequence[str],
    diverged: Sequence[str] = (),
) -> FromCandidate | Fresh | Refuse:
    """Choose where to go on from.

    Args:
        candidates: everything that verified.
        ever_committed: checkpoints of this run that the journal has seen, since its last fresh start, and that
            it has not gone back behind; if it has gone back behind all of them, it begins at step 0.
        set_aside: names below ``torn/``, with the reason of each.
        unusable: checkpoints that could not be read, with the reason of each.
        diverged: those that were taken after training had gone wrong, where they are not wanted.

    >>> choose([], ever_committed=0, set_aside=[], unusable=[])
    Fresh()
    >>> a, b = Candidate(0, 20, "checkpoint", "x"), Candidate(0, 20, "snapshot", "")
    >>> choose([a, b], ever_committed=1, set_aside=[], unusable=[]).candidate.source
    'snapshot'
    """
    if candidates:
        return FromCandidate(max(candidates, key=lambda c: (c.lineage, c.step, c.source == "snapshot")))
    if ever_committed == 0 and not set_aside and not unusable and not diverged:
        return Fresh()
    known = [*unusable, *diverged, *set_aside]
    listed = "; ".join(known) if known else f"the journal names {ever_committed}, none of them is there"
    return Refuse(f"this run has had checkpoints and none of them is intact: {listed}", transient=bool(unusable))
