"""Four checkpoints, a fifth to be committed, and two that a run can do without."""

import os
from collections.abc import Callable
from pathlib import Path

from checkpoint_samples import RUN, commit_step, parts

from supervisor.checkpoint.commit import Committed
from supervisor.checkpoint.retain import delete
from supervisor.engine.state.full_disk import Done, with_room

PAGE = os.sysconf("SC_PAGE_SIZE")
FILE_BYTES = 2 * PAGE
OLD, STAY = (10, 20), (30, 40)


def four(checkpoints: Path) -> Path:
    for step in (*OLD, *STAY):
        commit_step(checkpoints, step, made_of=parts(step, size=FILE_BYTES))
    return checkpoints


def let_go(checkpoints: Path) -> Callable[[], None]:
    def go() -> None:
        for step in OLD:
            delete(checkpoints / f"checkpoint-{step}")

    return go


def commit_with_room(checkpoints: Path, size: int = FILE_BYTES) -> Done[Committed]:
    def work() -> Committed:
        return commit_step(checkpoints, 50, made_of=parts(50, size=size))

    return with_room(work, checkpoints, RUN, let_go(checkpoints))
