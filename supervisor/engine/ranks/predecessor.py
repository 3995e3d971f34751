"""What a killed supervisor of the same run left: its workers are ended, its last attempt is written down."""

from __future__ import annotations

import time
from pathlib import Path

from supervisor.board.environment import MARKER
from supervisor.engine.progress import last_step
from supervisor.engine.state.memory import Memory
from supervisor.errors import MachineError
from supervisor.launch.processes import kill, marked
from supervisor.owner import Life, Owner, life

#: What a predecessor left must be dead within this [s].
PATIENCE_S = 30.0
_PAUSE_S = 0.02

EVIDENCE = "its supervisor ended without a word, killed or with the machine"


def end_workers(run_id: str) -> None:
    """Kill every process of a run, before anything is started.

    Raises:
        MachineError: one of them cannot be killed.
    """
    until_s = time.monotonic() + PATIENCE_S
    while left := marked(f"{MARKER}={run_id}/", prefix=True):
        kill(left)
        if time.monotonic() > until_s:
            raise MachineError(f"processes {left} of an earlier attempt cannot be killed", "reboot the machine")
        time.sleep(_PAUSE_S)


def end_supervisor(previous: Owner | None, here: Owner) -> None:
    """Kill a supervisor of this machine whose run is ours now: its scheduler has given it up.

    Raises:
        MachineError: it cannot be killed.
    """
    until_s = time.monotonic() + PATIENCE_S
    while previous is not None and life(previous, here) is Life.ALIVE:
        kill([previous.pid])
        if time.monotonic() > until_s:
            raise MachineError(
                f"process {previous.pid}, which had this run before, cannot be killed", "reboot the machine"
            )
        time.sleep(_PAUSE_S)


def last_settled(memory: Memory, run_dir: Path, attempt: int) -> int | None:
    """The newest step that an attempt settled whose supervisor could not write it down; None while unknown."""
    whole = memory.common()
    step = whole.step if whole is not None else last_step(run_dir, attempt)
    return step or None  # at step 0 nothing has been settled
