"""Which checkpoints may go, and how they go.

Rule 1: the newest intact checkpoint never goes.
Rule 2: only intact checkpoints are counted and only they are deleted; what is
torn is evidence, what is foreign is not ours, what is unreadable is unknown.
Rule 3: however many were taken after training went wrong, the newest from before stay.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from supervisor.checkpoint.files import identity, move, remove_tree, sync_directory
from supervisor.checkpoint.writers import TRASH, unfinished_name

#: With one, a checkpoint that is torn after its commit leaves nothing to fall back to.
LEAST_KEPT = 2


def to_delete(
    intact: Sequence[tuple[int, int, Path]],
    keep_last: int,
    keep_every: int | None = None,
    protected: Collection[Path] = frozenset(),
    diverged: Collection[Path] = frozenset(),
) -> list[Path]:
    """Choose the checkpoints that are no longer needed, oldest first.

    Args:
        intact: lineage, step and path of every intact checkpoint, in any order.
        keep_last: how many of the newest stay; at least two.
        keep_every: of every so many steps, the first checkpoint in them stays
            for ever: with 1000, one at step 2000, or else the first after it.
        protected: checkpoints that stay whatever their age (being read, the best).
        diverged: those that were taken after training had gone wrong.

    >>> paths = [(0, step, Path(str(step))) for step in (10, 20, 30, 40)]
    >>> to_delete(paths, keep_last=2)
    [PosixPath('10'), PosixPath('20')]
    >>> to_delete(paths, keep_last=2, keep_every=20)
    [PosixPath('10')]
    """
    if keep_last < LEAST_KEPT:
        raise ValueError(f"keep_last is {keep_last}, at least {LEAST_KEPT} have to stay")
    oldest_first = sorted(intact)
    good = [path for _, _, path in oldest_first if path not in diverged]
    stay = {*protected, *good[-LEAST_KEPT:], *(path for _, _, path in oldest_first[-keep_last:])}
    if keep_every is not None:
        stay |= _milestones(oldest_first, keep_every)
    return [path for _, _, path in oldest_first if path not in stay]


def _milestones(oldest_first: Sequence[tuple[int, int, Path]], keep_every: int) -> set[Path]:
    first: dict[tuple[int, int], Path] = {}
    for lineage, step, path in oldest_first:
        if step >= keep_every:
            first.setdefault((lineage, step // keep_every), path)
    return set(first.values())


@dataclass(frozen=True, slots=True)
class Deleted:
    """The checkpoint is gone."""

    path: Path


@dataclass(frozen=True, slots=True)
class NotDeleted:
    """It could not be removed, or not all of it; training goes on, a sweep tries again."""

    path: Path
    reason: str


def delete(path: Path) -> Deleted | NotDeleted:
    """Remove a checkpoint: first its name in one move, then its files.

    So nobody ever sees half of one. Never raises for what the disk says.
    """
    trash = path.with_name(unfinished_name(TRASH, path.name))
    try:
        if identity(path) is None:
            return Deleted(path)
        move(path, trash)
        sync_directory(path.parent)  # else a crash may bring the name back, and not the files
    except OSError as error:
        return NotDeleted(path, str(error))
    problem = remove_tree(trash)
    return Deleted(path) if problem is None else NotDeleted(path, str(problem))
