"""A reader's mark: what is being read is not deleted under its reader.

The mark is a shared lock (flock) on the checkpoint's manifest. It needs no name and no clean-up: the kernel takes
it back when its holder ends, however that happens. Whoever deletes asks for the lock alone, and keeps it until the
name is gone.

What it does not protect against: a file system without locks (Lustre mounted with `noflock`, some FUSE ones); and on
such as Lustre with `localflock`, a reader on another machine. There the rule that the newest ones stay has to do.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from supervisor.checkpoint.files import OPEN_DIRECTORY
from supervisor.checkpoint.names import MANIFEST
from supervisor.checkpoint.refusals import naming
from supervisor.errors import DiskError

#: What flock says when another has the lock; over NFS it is made of fcntl's, which says EACCES, too.
_TAKEN = frozenset({errno.EWOULDBLOCK, errno.EACCES})


@contextmanager
def reading(checkpoint: Path) -> Iterator[Path]:
    """Have a checkpoint stay while it is read; also by processes that the reader waits for.

    A directory without a manifest is nobody's to delete, so it needs no mark.

    Raises:
        DiskError: it is not there, was deleted at this very moment, or cannot be read.
    """
    with naming(f"reading {checkpoint}"):
        fd = _open(checkpoint, os.O_RDONLY)
    try:
        if fd is not None:
            _share(fd)
            if not _stands(checkpoint / MANIFEST, fd):
                raise DiskError(f"{checkpoint} has just been deleted", "take another of the run's checkpoints")
        yield checkpoint
    finally:
        if fd is not None:
            os.close(fd)


@contextmanager
def unread(checkpoint: Path) -> Iterator[bool]:
    """Ask whether nobody reads a checkpoint; whoever comes meanwhile finds it gone, or waits.

    Never raises: what cannot be asked counts as unread, and whoever deletes will be told why it cannot.
    """
    try:
        fd = _open(checkpoint, os.O_RDWR)  # NFS locks for one alone only what is open for writing
    except OSError:
        fd = None
    try:
        yield fd is None or _alone(fd)
    finally:
        if fd is not None:
            os.close(fd)


def _open(checkpoint: Path, how: int) -> int | None:
    directory_fd = os.open(checkpoint, OPEN_DIRECTORY | os.O_NOFOLLOW)
    try:
        return os.open(MANIFEST, how | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory_fd)
    except FileNotFoundError:
        return None
    finally:
        os.close(directory_fd)


def _share(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)  # who deletes holds it for a rename
    except OSError:
        pass  # no locks here; see above


def _alone(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _TAKEN
    return True


def _stands(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(fd))
    except OSError:
        return False
