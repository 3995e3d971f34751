"""Which checkpoints may go, and how they go.

Rule 1: the newest intact checkpoint never goes.
Rule 2: only intact checkpoints are counted and only they are deleted; what is
torn is evidence, what is foreign is not ours, what is unreadable is unknown.
Rule 3: however many were taken after training went wrong, the newest from before stay.
Rule 4: what somebody reads stays until it has been read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from supervisor.checkpoint.evaluations import Measured
from supervisor.checkpoint.files import identity, move, remove_tree, sync_directory
from supervisor.checkpoint.names import MANIFEST
from supervisor.checkpoint.reading import unread
from supervisor.checkpoint.refusals import FULL
from supervisor.checkpoint.writers import TRASH, unfinished_name
from supervisor.policy.schedule import Period, Steps

#: With one, a checkpoint that is torn after its commit leaves nothing to fall back to.
LEAST_KEPT = 2


@dataclass(frozen=True, slots=True)
class Best:
    """Which checkpoints are kept for what the program measured of them.

    Attributes:
        metric: as the evaluations name it.
        mode: ``min`` or ``max``: which values are better.
        count: how many are kept.
    """

    metric: str
    mode: str = "min"
    count: int = 1

    def key(self, value: float) -> float:
        """The value, so that smaller is better."""
        return value if self.mode == "min" else -value


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """What a run keeps.

    Attributes:
        last: how many of the newest; at least two.
        every: of every so many steps, or so much time by the clock, the first stays for ever: with 1000 steps,
            one of step 2000, or else the first after it.
        best: those that were measured best; None for none.
    """

    last: int
    every: Period | None = None
    best: Best | None = None

    @property
    def count(self) -> int:
        """How many stay at most, besides those that `every` keeps."""
        return self.last + (self.best.count if self.best is not None else 0)


@dataclass(frozen=True, slots=True)
class Standing:
    """An intact checkpoint, as far as it matters here.

    Attributes:
        lineage: of the run when it was taken.
        step: steps done.
        path: where it is.
        time_s: when it was committed [unix s].
        diverged: whether training had gone wrong by then.
        measured: of the metric that matters; None where nothing is known.
    """

    lineage: int
    step: int
    path: Path
    time_s: float = 0.0
    diverged: bool = False
    measured: Measured | None = None

    @property
    def age(self) -> tuple[int, int, str]:
        """Orders them, oldest first."""
        return self.lineage, self.step, str(self.path)


def why_kept(standing: Sequence[Standing], keep: Keep) -> dict[Path, tuple[str, ...]]:
    """Why each checkpoint stays, oldest first; none at all means that it may go.

    Args:
        standing: every intact checkpoint, in any order.
        keep: what the run keeps.

    >>> ten_to_forty = [Standing(0, step, Path(str(step))) for step in (10, 20, 30, 40)]
    >>> for path, reasons in why_kept(ten_to_forty, Keep(last=2, every=Steps(20))).items():
    ...     print(path, *reasons, sep=", ")
    10
    20, the first of 20 steps
    30, one of the last 2
    40, the newest, the first of 20 steps
    """
    if keep.last < LEAST_KEPT:
        raise ValueError(f"keep_last is {keep.last}, at least {LEAST_KEPT} have to stay")
    oldest_first = sorted(standing, key=lambda one: one.age)
    reasons: dict[Path, list[str]] = {one.path: [] for one in oldest_first}
    for one in oldest_first[-1:]:
        reasons[one.path].append("the newest")
    for one in oldest_first[-keep.last : -1]:
        reasons[one.path].append(f"one of the last {keep.last}")
    for one in [one for one in oldest_first if not one.diverged][-LEAST_KEPT:]:
        if not reasons[one.path]:
            reasons[one.path].append("from before training went wrong")
    if keep.every is not None:
        for one in _milestones(oldest_first, keep.every):
            reasons[one.path].append(f"the first of {keep.every}")
    if keep.best is not None:
        for place, one in enumerate(best_of(oldest_first, keep.best)):
            reasons[one.path].append(f"{'the best' if place == 0 else f'number {place + 1}'} by {keep.best.metric}")
    return {path: tuple(said) for path, said in reasons.items()}


def to_delete(standing: Sequence[Standing], keep: Keep) -> list[Path]:
    """Choose the checkpoints that are no longer needed, oldest first; arguments of `why_kept`.

    >>> to_delete([Standing(0, step, Path(str(step))) for step in (10, 20, 30, 40)], Keep(last=2))
    [PosixPath('10'), PosixPath('20')]
    """
    return [path for path, reasons in why_kept(standing, keep).items() if not reasons]


def best_of(standing: Sequence[Standing], best: Best) -> list[Standing]:
    """Those that were measured best, the best first.

    Of two alike the one that was measured itself comes first, then the older: what came later won nothing.
    Training that had gone wrong by then has no best.
    """
    known = [(best.key(one.measured.value), one) for one in standing if one.measured is not None and not one.diverged]
    ranked = sorted(known, key=lambda pair: (pair[0], _since(pair[1]), pair[1].age))
    return [one for _, one in ranked[: best.count]]


def _since(one: Standing) -> int:
    return one.step - one.measured.step if one.measured is not None else 0


def _milestones(oldest_first: Sequence[Standing], every: Period) -> list[Standing]:
    first: dict[tuple[int, int], Standing] = {}
    for one in oldest_first:
        # By the clock itself, so that a restart does not count anew.
        number = one.step // every.n if isinstance(every, Steps) else int(one.time_s // every.s)
        if number > 0:
            first.setdefault((one.lineage, number), one)
    return list(first.values())


@dataclass(frozen=True, slots=True)
class Deleted:
    """The checkpoint is gone."""

    path: Path


@dataclass(frozen=True, slots=True)
class InUse:
    """Somebody reads it; it goes after the next commit."""

    path: Path


@dataclass(frozen=True, slots=True)
class NotDeleted:
    """It could not be removed, or not all of it; training goes on, a sweep tries again."""

    path: Path
    reason: str


def delete(path: Path) -> Deleted | InUse | NotDeleted:
    """Remove a checkpoint: first its name in one move, then its files.

    So nobody ever sees half of one. Where even a move has no room its manifest goes first, and what is left is no
    checkpoint any more. Never raises for what the disk says.
    """
    trash = path.with_name(unfinished_name(TRASH, path.name))
    try:
        with unread(path) as free:
            if not free:
                return InUse(path)
            if identity(path) is None:
                return Deleted(path)
            trash = _let_go(path, trash)
        sync_directory(path.parent)  # else a crash may bring the name back, and not the files
    except OSError as error:
        return NotDeleted(path, str(error))
    problem = remove_tree(trash)
    return Deleted(path) if problem is None else NotDeleted(path, str(problem))


def _let_go(path: Path, trash: Path) -> Path:
    """Make it no checkpoint any more; where its files are then.

    Source:
        measured on a btrfs at its quota (Linux 6.18): rename(2) is refused with EDQUOT, unlink(2) is not.
    """
    try:
        move(path, trash)
    except OSError as error:
        if error.errno not in FULL:
            raise
        (path / MANIFEST).unlink()
        return path
    return trash
