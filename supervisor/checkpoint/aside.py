"""Torn checkpoints are set aside, with the reason: never resumed from, never destroyed.

`torn/checkpoint-20-20260102T030405Z/` is the directory as it was found and
`torn/checkpoint-20-20260102T030405Z.json` says why. The note is written first
and claims the name, so a note without a directory is a crash in between.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from itertools import count
from pathlib import Path

from supervisor.checkpoint.files import (
    OPEN_DIRECTORY,
    create_file,
    identity,
    make_directory,
    move,
    sync_directory,
    sync_directory_fd,
    write_all,
)
from supervisor.checkpoint.refusals import naming

_NOTE = ".json"


def set_aside(directory: Path, torn: Path, reason: str, clock: Callable[[], float]) -> Path | None:
    """Move a torn checkpoint below ``torn``, where nothing is ever replaced.

    Interrupted anywhere and called again, it ends in the same state.

    Args:
        directory: the torn checkpoint.
        torn: the run's `torn` directory, on the same file system; created if only it is missing.
        reason: why, from the verdict.
        clock: wall time [unix seconds].

    Returns:
        Where it is now; None if ``directory`` is not there (any more).

    Raises:
        StorageError: the file system refused; it is still where it was, unless
            only the last sync failed.
    """
    with naming(f"setting {directory} aside"):
        make_directory(torn)
        _remove_lonely_notes(torn, directory.name)
        if identity(directory) is None:
            return None
        now_s = clock()
        target = _claim(torn, directory, reason, now_s)
        move(directory, target)
        sync_directory(torn)
        sync_directory(directory.parent)
        return target


def _claim(torn: Path, directory: Path, reason: str, now_s: float) -> Path:
    """Take a name that nobody has, by writing the note of that name."""
    note = {"checkpoint": str(directory), "reason": reason, "time": now_s}
    data = f"{json.dumps(note, indent=1)}\n".encode()
    torn_fd = os.open(torn, OPEN_DIRECTORY)
    try:
        for name in _names(directory.name, now_s):
            if identity(torn / name) is not None:
                continue
            try:
                fd = create_file(name + _NOTE, torn_fd, len(data))
            except FileExistsError:
                continue
            try:
                write_all(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            sync_directory_fd(torn_fd)
            return torn / name
    finally:
        os.close(torn_fd)
    raise AssertionError("names do not end")


def _names(name: str, now_s: float) -> Iterator[str]:
    utc = datetime.fromtimestamp(now_s, timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    yield f"{name}-{utc}"
    for number in count(2):
        yield f"{name}-{utc}-{number}"


def _remove_lonely_notes(torn: Path, name: str) -> None:
    """Remove the notes of moves that never happened."""
    for path in torn.iterdir():
        stem = path.name.removesuffix(_NOTE)
        if path.name != stem and stem.startswith(f"{name}-") and identity(torn / stem) is None:
            path.unlink()
