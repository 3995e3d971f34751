"""What the supervisor of a run says about itself right now.

It rewrites `progress.json` every 2 s, and the lease names it; whether it lives
is asked of the kernel. From another machine that cannot be asked: there its
word stands, with its age.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.errors import DiskError
from supervisor.lease import read_lease
from supervisor.owner import Life, Owner, life, this_process, whole

PROGRESS = "progress.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The last word of a supervisor; what it did not know is None.

    Attributes:
        time: when it was said [unix s].
        state: one of the contract's words.
        attempt: the one under way.
        step: newest settled step.
        max_steps: at which training ends.
        loss: the last one published; may be NaN.
        steps_per_s: how fast training goes.
        pid: of the supervisor.
        host: where it runs.
        board: the board's path on that host.
        board_bytes: its size.
    """

    time: float | None = None
    state: str | None = None
    attempt: int | None = None
    step: int | None = None
    max_steps: int | None = None
    loss: float | None = None
    steps_per_s: float | None = None
    pid: int | None = None
    host: str | None = None
    board: str | None = None
    board_bytes: int | None = None

    @staticmethod
    def parse(data: bytes) -> Progress | None:
        """Read what a supervisor wrote; None for what is torn or something else.

        >>> Progress.parse(b'{"step": 4, "loss": "high"}')
        ... # doctest: +ELLIPSIS
        Progress(time=None, state=None, attempt=None, step=4, max_steps=None, loss=None, ...)
        """
        try:
            values = json.loads(data)
        except (ValueError, RecursionError):
            return None
        if not isinstance(values, dict):
            return None
        return Progress(
            time=_number(values.get("time")),
            state=_text(values.get("state")),
            attempt=whole(values.get("attempt")),
            step=whole(values.get("step")),
            max_steps=whole(values.get("max_steps")),
            loss=_number(values.get("loss"), finite=False),
            steps_per_s=_number(values.get("steps_per_s")),
            pid=whole(values.get("pid")),
            host=_text(values.get("host")),
            board=_text(values.get("board")),
            board_bytes=whole(values.get("board_bytes")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A run's supervisor, as it can be seen from here.

    Attributes:
        progress: its last word; None if there is none.
        owner: whom the lease names; None if the run is free.
        life: whether that owner lives; DEAD for a free run.
        board: a board in this machine's memory that nobody owns any more.
    """

    progress: Progress | None = None
    owner: Owner | None = None
    life: Life = Life.DEAD
    board: str | None = None

    @property
    def speaking(self) -> Progress | None:
        """The last word of the present owner, unless it is known to be dead."""
        word, owner = self.progress, self.owner
        if word is None or owner is None or self.life is Life.DEAD or word.pid != owner.pid:
            return None
        return word


def look(run_dir: Path) -> Live:
    """See who owns a run, whether it lives, and what it said last; never fails over content."""
    progress = None
    with suppress(OSError):
        progress = Progress.parse((run_dir / PROGRESS).read_bytes())
    try:
        record = read_lease(run_dir)
    except DiskError:
        return Live(progress=progress, life=Life.UNKNOWN)
    owner = record.owner if record is not None else None
    here = this_process()
    lives = life(owner, here) if owner is not None else Life.DEAD
    board = progress.board if progress is not None and lives is Life.DEAD and progress.host == here.host else None
    return Live(progress=progress, owner=owner, life=lives, board=board if _exists(board) else None)


def _exists(path: str | None) -> bool:
    try:
        return path is not None and Path(path).exists()
    except (OSError, ValueError):
        return False


def _number(value: Any, *, finite: bool = True) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) or not finite else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
