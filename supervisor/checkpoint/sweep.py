"""Removal of what dead writers left: unfinished checkpoints, and deleted ones not yet gone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from supervisor.checkpoint.files import remove_tree
from supervisor.checkpoint.writers import TRASH, is_alive, this_writer, writer_of


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did.

    Attributes:
        removed: names that are gone.
        problems: what could not be removed or looked at, and why.
    """

    removed: tuple[str, ...]
    problems: tuple[str, ...]


def sweep_partials(directory: Path, *, sole_owner: bool = False) -> Swept:
    """Remove the unfinished directories of writers that are dead.

    What was already deleted (trash) goes whoever deleted it.

    Args:
        directory: the directory of checkpoints, or the run directory for `final`.
        sole_owner: this process holds the run's lease, so writers of another
            machine, or of an earlier boot, are dead too. A living process of
            this machine is never swept, whoever asks.
    """
    here = this_writer()
    removed: list[str] = []
    problems: list[str] = []
    try:
        names = sorted(path.name for path in directory.iterdir())
    except FileNotFoundError:
        return Swept((), ())
    except OSError as error:
        return Swept((), (str(error),))
    for name in names:
        writer = writer_of(name)
        if writer is None:
            continue
        alive = is_alive(writer, here)
        if name.startswith(TRASH) or alive is False or (alive is None and sole_owner):
            problem = remove_tree(directory / name)
            if problem is None:
                removed.append(name)
            else:
                problems.append(str(problem))
    return Swept(tuple(removed), tuple(problems))
