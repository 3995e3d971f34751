"""Directories that appear whole or not at all.

A directory is filled beside its final name, synced, and renamed. Whoever dies
on the way leaves a hidden directory that `sweep` removes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from xxhash import xxh3_128

from supervisor.checkpoint.files import (
    OPEN_DIRECTORY,
    WRITEBACK_BYTES,
    MoveUnknownError,
    create_file,
    move,
    remove_tree,
    start_writeback,
    sync_directory,
    sync_directory_fd,
    write_all,
)
from supervisor.checkpoint.manifest import Entry
from supervisor.checkpoint.parts import Part
from supervisor.checkpoint.refusals import PartError
from supervisor.checkpoint.writers import PARTIAL, unfinished_name


@dataclass(slots=True)
class Staging:
    """A directory being filled.

    Attributes:
        path: where it is until it appears.
        fd: the directory, open.
        ours: whether nothing but this staging can stand under ``path``. After a
            rename with an unknown outcome it may be the published directory.
    """

    path: Path
    fd: int
    ours: bool = field(default=True, init=False)

    def write(self, parts: Sequence[Part]) -> dict[str, Entry]:
        """Write the parts as files and sync them; room for all is taken before the first byte.

        Raises:
            PartError: a part yielded fewer or more bytes than it had promised.
            OSError: the file system refused, or a name came twice.

        Source:
            fsync(2): an error may be reported once only, and the pages count as
            clean afterwards. So a failed sync is never repeated: all is given up.
        """
        with ExitStack() as opened:
            fds: list[int] = []
            for part in parts:
                fds.append(create_file(part.name, self.fd, part.size))
                opened.callback(os.close, fds[-1])
            entries = {part.name: _copy(part, fd) for part, fd in zip(parts, fds, strict=True)}
            for fd in fds:
                os.fsync(fd)
        return entries

    def publish(self, target: Path, confirm: Callable[[], None]) -> None:
        """Let the directory appear as ``target``, if ``confirm`` does not object by raising.

        Raises:
            OSError: it did not appear, ``target`` being taken for example; or the
                name may not last, or nobody can tell (`MoveUnknownError`).
        """
        sync_directory_fd(self.fd)
        confirm()
        try:
            move(self.path, target)
        except MoveUnknownError:
            self.ours = False
            raise
        self.ours = False
        sync_directory(target.parent)


@contextmanager
def staging(parent: Path, what: str) -> Iterator[Staging]:
    """A fresh directory in ``parent``; removed at the end unless it was published.

    Args:
        parent: where the directory is to appear later.
        what: the name that it is to have then.
    """
    path = parent / unfinished_name(PARTIAL, what)
    os.mkdir(path, 0o700)  # noqa: PTH102
    fd = -1
    filled = None
    try:
        fd = os.open(path, OPEN_DIRECTORY | os.O_NOFOLLOW)
        filled = Staging(path, fd)
        yield filled
    finally:
        if fd >= 0:
            os.close(fd)
        if filled is None or filled.ours:
            remove_tree(path)


def _copy(part: Part, fd: int) -> Entry:
    """Write one part and hash it in the same pass."""
    hasher = xxh3_128()
    written = started = 0
    for piece in part.pieces():
        written += memoryview(piece).nbytes
        if written > part.size:
            break
        hasher.update(piece)
        write_all(fd, piece)
        if written - started >= WRITEBACK_BYTES:
            start_writeback(fd, started, written - started)
            started = written
    if written != part.size:
        more = " or more" if written > part.size else ""
        raise PartError(
            f"{part.name}: {written} bytes{more} came, {part.size} were promised",
            "nothing was committed; the next commit starts anew",
        )
    return Entry(bytes=written, xxh3_128=hasher.hexdigest())
