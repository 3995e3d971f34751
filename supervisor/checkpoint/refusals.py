"""What this room raises when something outside refuses: a `DiskError` each time."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from supervisor.errors import DiskError

#: There is no room: on the disk, or under a quota.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

_REMEDIES = {
    errno.ENOSPC: "free room on that file system",
    errno.EDQUOT: "free room under your quota there",
    errno.EROFS: "have the file system mounted writable again",
    errno.EACCES: "give this user the right to read and write there",
    errno.EPERM: "give this user the right to read and write there",
    errno.EFBIG: "raise the file size limit (ulimit -f)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EXDEV: "keep the run directory on one file system",
    errno.ENOENT: "see what has removed it",
}


class StorageError(DiskError):
    """The file system refused.

    Attributes:
        errno: the system's error number; None where the system said nothing.
    """

    def __init__(self, problem: str, remedy: str, errno: int | None = None) -> None:
        super().__init__(problem, remedy)
        self.args = (problem, remedy, errno)
        self.errno = errno


class StepTakenError(StorageError):
    """The checkpoint's name is taken by something else, which is left alone."""


class PartError(StorageError):
    """A part did not yield what it had promised; nothing was committed."""


@contextmanager
def naming(doing: str) -> Iterator[None]:
    """Turn any `OSError` of the block into a `StorageError` that says what was being done.

    Args:
        doing: what the block does, as in "committing /runs/a/checkpoint-20".
    """
    try:
        yield
    except OSError as error:
        number = error.errno
        said = os.strerror(number) if number is not None else str(error)
        remedy = _REMEDIES.get(number or 0, "see what the system log says about that file system")
        raise StorageError(f"{doing}: {said.lower()}", remedy, number) from error
