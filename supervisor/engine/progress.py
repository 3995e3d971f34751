"""progress.json: what `status` and `watch` read from any machine while a run is alive."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.board.pages import Beat
from supervisor.board.store import Board
from supervisor.engine.disk import Pending
from supervisor.whole import write_whole

EVERY_S = 2.0


def progress(beats: Sequence[Beat], state: str, attempt: int) -> dict[str, Any]:
    """What the ranks have published, as `progress.json` holds it; unknown is None."""
    trained = [b for b in beats if b.resumed >= 0]
    paces = [b.step_s for b in trained if not math.isnan(b.step_s)]
    losses = [b.loss for b in trained if math.isfinite(b.loss)]
    return {
        "time": time.time(),
        "state": state,
        "attempt": attempt or None,
        "step": known(min((b.step for b in trained), default=-1)),
        "max_steps": known(max((b.max_steps for b in trained), default=-1)),
        "loss": losses[0] if losses else None,
        "steps_per_s": 1.0 / max(paces) if paces and max(paces) > 0 else None,
    }


@dataclass(slots=True)
class Progress:
    """Rewrites progress.json now and then, and at every change of state.

    Attributes:
        run_dir: of the run.
        board: for its place and size.
        show: for people.
        ask: has something done on the disk, see `engine.disk`.
    """

    run_dir: Path
    board: Board
    show: Callable[[str, Mapping[str, Any]], None]
    ask: Callable[[Callable[[], None]], Pending[None]]
    _writing: Pending[None] | None = None
    _beats: Sequence[Beat] = ()
    _state: str = ""
    _told_at_s: float = 0.0

    def tell(
        self, beats: Sequence[Beat] | None, state: str, attempt: int, *, now_s: float, force: bool = False
    ) -> None:
        """Tell if it is time.

        Args:
            beats: of all ranks; None while there are none, then the last ones count.
            state: of the run.
            attempt: number of the last one.
            now_s: monotonic time [s].
            force: whether it is time or not.
        """
        if not force and now_s - self._told_at_s < EVERY_S and state == self._state:
            return
        self._told_at_s, self._state = now_s, state
        self._beats = self._beats if beats is None else beats
        told = progress(self._beats, state, attempt)
        told |= {"pid": os.getpid(), "host": socket.gethostname()}
        told |= {"board": str(self.board.directory), "board_bytes": self.board.size_bytes()}
        self.show("progress", told)
        if self._writing is None or self._writing.over or force:
            # What becomes of it is not asked for: a disk that refuses must not stop training.
            self._writing = self.ask(lambda: write_whole(self.run_dir / "progress.json", json.dumps(told)))


def last_step(run_dir: Path, attempt: int) -> int | None:
    """The newest settled step that a dead supervisor wrote down for an attempt; None while unknown."""
    try:
        told = json.loads((run_dir / "progress.json").read_text())
    except (OSError, ValueError):
        return None
    step = told.get("step") if isinstance(told, dict) and told.get("attempt") == attempt else None
    return step if isinstance(step, int) else None


def known(number: int) -> int | None:
    """A count, or None where a negative one stands for ignorance.

    >>> known(0), known(-1)
    (0, None)
    """
    return number if number >= 0 else None
