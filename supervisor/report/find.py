"""Which directories hold a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from supervisor.errors import JobError
from supervisor.journal import JOURNAL
from supervisor.report.queue import RECORD

DEPTH = 5
CROWDED = 2000  # entries; a data set, not a place where people keep runs
_SKIPPED = frozenset({"node_modules", "__pycache__", "site-packages", "checkpoints", "torn", "logs", "proc", "sys"})


def find_runs(root: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Find the runs at and below ``root``.

    Links are not followed; hidden, crowded and unreadable directories are not
    entered, and neither is a run's own.

    Args:
        root: where to look.
        depth: how many levels below it.

    Yields:
        Run directories, in the order of their names.
    """
    try:
        with os.scandir(root) as entries:
            names = {entry.name: entry for _, entry in zip(range(CROWDED + 1), entries, strict=False)}
    except OSError:
        return
    if JOURNAL in names or (RECORD.parts[0] in names and (root / RECORD).exists()):
        yield root
        return
    if depth == 0 or len(names) > CROWDED:
        return
    for name, entry in sorted(names.items()):
        if not name.startswith(".") and name not in _SKIPPED and _is_directory(entry):
            yield from find_runs(root / name, depth - 1)


def check_run(run_dir: Path) -> None:
    """Make sure that ``run_dir`` is the directory of a run, or of one that has been submitted.

    Raises:
        JobError: it is none; runs below it are named.
    """
    if (run_dir / JOURNAL).exists() or (run_dir / RECORD).exists():
        return
    if not run_dir.is_dir():
        raise JobError(f"there is no directory {run_dir}", "give a run's directory: `run_dir` of its job file")
    below = [str(found) for found, _ in zip(find_runs(run_dir, depth=3), range(3), strict=False)]
    hint = f"did you mean {' or '.join(below)}?" if below else "give a run's directory: `run_dir` of its job file"
    raise JobError(f"{run_dir} holds no run (no {JOURNAL})", hint)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False
