"""The adapter as it is when training ends: `final/`, whole at every moment that counts.

An existing `final/` steps aside (`.old-final`), the new one appears, the old
one is removed. Between the two renames a crash leaves no `final/`, so every
call, and `repair_final`, first puts the old one back.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from supervisor.checkpoint.files import identity, move, remove_tree, sync_directory
from supervisor.checkpoint.parts import Part
from supervisor.checkpoint.refusals import StorageError, naming
from supervisor.checkpoint.staging import staging
from supervisor.checkpoint.sweep import sweep_partials

#: Its name in a run directory.
FINAL = "final"


def write_final(final: Path, parts: Sequence[Part]) -> int:
    """Write ``final``, in place of an older one; its parent exists.

    Args:
        final: the directory, `run_dir/final`.
        parts: its files.

    Returns:
        Size of all its files [B].

    Raises:
        PartError: a part is short or long.
        StorageError: the file system refused; the older one is there, or put
            back by the next call.
    """
    repair_final(final)
    sweep_partials(final.parent)
    old = _old(final)
    with naming(f"writing {final}"):
        try:
            with staging(final.parent, final.name) as staged:
                entries = staged.write(parts)
                staged.publish(final, confirm=lambda: _step_aside(final, old))
        except BaseException:
            with suppress(StorageError):
                repair_final(final)
            raise
        remove_tree(old)  # what it leaves, the next repair removes
    return sum(entry.bytes for entry in entries.values())


def repair_final(final: Path) -> None:
    """Finish or undo what a crash within `write_final` left.

    Raises:
        StorageError: the file system refused.
    """
    old = _old(final)
    with naming(f"repairing {final}"):
        if identity(old) is None:
            return
        if identity(final) is None:
            move(old, final)
            sync_directory(final.parent)
        else:
            remove_tree(old)


def _step_aside(final: Path, old: Path) -> None:
    if identity(final) is not None:
        move(final, old)
        sync_directory(final.parent)


def _old(final: Path) -> Path:
    return final.with_name(f".old-{final.name}")
