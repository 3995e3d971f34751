"""Sweeping: boards that nobody can use any more are taken away when the next supervisor starts on the machine.

Whether a board's supervisor lives is asked of the kernel, by the flock that it keeps on the
directory: that holds over containers, where a pid says nothing.

What this does not protect against: a root whose file system has no locks for directories, such
as an NFS below $TMPDIR, is never swept.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from supervisor.board.regions import dangles, is_region
from supervisor.board.store import ANONYMOUS, holds_regions, ours_below


def sweep_boards(roots: Sequence[Path]) -> list[Path]:
    """Take away boards of any run whose supervisor is dead and whose memory went with it.

    A board with a named region stays, since a killed supervisor's successor wants it; so does
    one that a living supervisor occupies, and whatever is not this user's alone.

    Returns:
        What was taken away.
    """
    return [path for root in roots for path in ours_below(root) if _swept(path)]


def _swept(directory: Path) -> bool:
    """Remove a board if nobody can use it; whether it was."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), directory.lstat()):
            return False  # another sweep was faster, and this is somebody's new one
        dead = (directory / ANONYMOUS).exists() or any(dangles(p) for p in directory.iterdir() if is_region(p.name))
        if not dead or holds_regions(directory):
            return False
        shutil.rmtree(directory)
    except OSError:  # occupied, or there are no locks here
        return False
    finally:
        os.close(descriptor)
    return True
