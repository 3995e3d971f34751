"""A moment alone: what reads a file and writes it back does so under this lock.

flock where the file system has it, over NFS too; else a file that is created
exclusively, which a killed holder leaves behind, so it is broken when its
holder is dead on this machine or has kept it far longer than the moment takes.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from supervisor.errors import DiskError
from supervisor.owner import Life, Owner, life

PATIENCE_S = 10.0  # the moment takes milliseconds; a slow NFS server, a second
_POLL_S = 0.02


@contextmanager
def locked(
    path: Path,
    here: Owner,
    *,
    wait: Callable[[float], None] = time.sleep,
    patience_s: float = PATIENCE_S,
    flock: Callable[[int, int], None] = fcntl.flock,
) -> Iterator[None]:
    """Be the only one inside, among all processes that lock ``path``.

    Args:
        path: the lock's file; its directory exists. It stays.
        here: this process, by which others can tell that it died inside.
        wait: how to let seconds pass.
        patience_s: how long to wait for others [s].
        flock: flock(2).

    Raises:
        DiskError: the file system refused, or others kept the lock for all that time.
    """
    looks = max(1, round(patience_s / _POLL_S))
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}", "the run directory must be writable") from error
    try:
        if _flocked(fd, path, flock, wait, looks):
            yield
            return
    finally:
        os.close(fd)
    exclusive = path.with_name(f"{path.name}.exclusive")
    _create(exclusive, here, wait, looks)
    try:
        yield
    finally:
        if _holder(exclusive) == here:
            with suppress(OSError):
                exclusive.unlink()


def _flocked(fd: int, path: Path, flock: Callable[[int, int], None], wait: Callable[[float], None], looks: int) -> bool:
    """Lock by flock; False where this file system has none."""
    for _ in range(looks):
        try:
            flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wait(_POLL_S)
        except OSError:  # ENOLCK, EOPNOTSUPP, ENOSYS, EINVAL: they say it in many ways
            return False
        else:
            return True
    raise _busy(path)


def _create(path: Path, here: Owner, wait: Callable[[float], None], looks: int) -> None:
    """Lock by being the one who creates ``path``."""
    before, unchanged = _holder(path), 0
    for _ in range(3 * looks):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            pass
        except OSError as error:
            raise DiskError(f"{path}: {error.strerror}", "the run directory must be writable") from error
        else:
            with os.fdopen(fd, "w") as file:
                json.dump(here.encode(), file)
            return
        holder = _holder(path)
        unchanged = unchanged + 1 if holder == before else 0
        before = holder
        if (holder is not None and life(holder, here) is Life.DEAD) or unchanged >= looks:
            _break(path, holder, here)
            unchanged = 0
        else:
            wait(_POLL_S)
    raise _busy(path)


def _break(path: Path, holder: Owner | None, here: Owner) -> None:
    """Remove the lock that ``holder`` left; if it is somebody else's by now, put it back."""
    aside = path.with_name(f"{path.name}.{here.token}")
    with suppress(OSError):  # somebody was faster
        path.rename(aside)
        if _holder(aside) != holder:
            os.link(aside, path)
    with suppress(OSError):
        aside.unlink()


def _holder(path: Path) -> Owner | None:
    try:
        return Owner.parse(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return None


def _busy(path: Path) -> DiskError:
    return DiskError(f"{path} is kept locked by another process", "is another supervisor stuck in this run? try again")
