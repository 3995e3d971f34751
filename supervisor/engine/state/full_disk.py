"""Room on a full disk: what a run can do without goes, once, and what was refused is tried once more.

Rule 1: nothing goes before the two newest checkpoints were read and verify: what a manifest promises is not enough
where the older ones are about to be deleted.
Rule 2: what goes is chosen by the rule that retention goes by, with the fewest that may stay; what is kept for ever,
or is being read, stays here too.

What it does not help against: a disk that others fill, and a limit on the size of one file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from supervisor.checkpoint.inventory import promising
from supervisor.checkpoint.refusals import FULL
from supervisor.checkpoint.retain import LEAST_KEPT
from supervisor.checkpoint.sweep import sweep_partials
from supervisor.checkpoint.verify import Intact, verify
from supervisor.errors import DiskError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """What was done, and what had to go for it.

    Attributes:
        result: of the work.
        gave: names of what was deleted to make room, oldest first.
    """

    result: T
    gave: tuple[str, ...] = ()


class StillFullError(DiskError):
    """The disk is full, also after room was made.

    Attributes:
        errno: the system's error number.
    """

    def __init__(self, problem: str, remedy: str, errno: int | None = None) -> None:
        super().__init__(problem, remedy)
        self.args = (problem, remedy, errno)
        self.errno = errno


def is_full(error: BaseException) -> bool:
    """Whether something failed for lack of room, or of quota.

    >>> import errno
    >>> is_full(OSError(errno.EDQUOT, "")), is_full(OSError(errno.EIO, "")), is_full(ValueError())
    (True, False, False)
    """
    return getattr(error, "errno", None) in FULL


def with_room(work: Callable[[], T], checkpoints: Path, run_id: str, let_go: Callable[[], object]) -> Done[T]:
    """Do something, and once more where the disk was full and room could be made.

    Args:
        work: leaves nothing behind where it fails.
        checkpoints: the directory that holds them.
        run_id: of the run.
        let_go: deletes the checkpoints that a run can do without.

    Raises:
        StillFullError: it was tried again, and there is still no room.
        Exception: whatever the work raised the first time, where no room could be made or none was missing.
    """
    try:
        return Done(work())
    except Exception as error:
        if not is_full(error):
            raise
        gave = make_room(checkpoints, run_id, let_go)
        if not gave:
            raise
    try:
        return Done(work(), gave)
    except Exception as error:
        if not is_full(error):
            raise
        remedy = getattr(error, "remedy", "free room on that file system")
        problem = f"{getattr(error, 'problem', error)}, although {', '.join(gave)} went to make room"
        raise StillFullError(problem, remedy, getattr(error, "errno", None)) from error


def make_room(checkpoints: Path, run_id: str, let_go: Callable[[], object]) -> tuple[str, ...]:
    """Delete what dead writers left, and the checkpoints that a run can do without.

    Returns:
        Names of all that is gone; none where nothing could go. Never raises for what the disk says.
    """
    try:
        swept = sweep_partials(checkpoints).removed
        before = _there(checkpoints)
        if _fall_back_verifies(checkpoints, run_id):
            let_go()
        gone = [name for name in before if name not in set(_there(checkpoints))]
    except (OSError, DiskError):
        return ()
    return (*swept, *gone)


def _there(checkpoints: Path) -> list[str]:
    """Checkpoints by name, the lowest step first."""
    names = [path.name for path in checkpoints.glob("checkpoint-*")]
    return sorted(names, key=lambda name: (len(name), name))


def _fall_back_verifies(checkpoints: Path, run_id: str) -> bool:
    """Whether the newest checkpoints that are to stay hold what their manifests promise."""
    found = promising(checkpoints, run_id, (), lambda manifest: not manifest.health.diverged)
    newest = sorted(found, key=lambda one: one.age)[-LEAST_KEPT:]
    return len(newest) == LEAST_KEPT and all(isinstance(verify(one.path, run_id), Intact) for one in newest)
