"""What this machine has for a run: room for a board, memory, ranks."""

from __future__ import annotations

import tempfile
from pathlib import Path

from supervisor.board.room import free_bytes
from supervisor.errors import MachineError
from supervisor.job import Job
from supervisor.watch.cgroups import find
from supervisor.watch.host_memory import available_bytes


def board_roots() -> list[Path]:
    """Where a board may live: memory first, then where temporary files go."""
    return [Path("/dev/shm"), Path(tempfile.gettempdir())]  # noqa: S108 - the board makes its own 0700 directory


def room(root: Path | None) -> int:
    """What a root can still give, or memory itself for None [bytes]."""
    return free_bytes(root, available_bytes=spare_bytes())


def spare_bytes() -> int:
    """Memory that the machine, and the control groups of this process, can still give [bytes]."""
    return available_bytes(find())


def count_processes(job: Job, gpus: list[str] | None) -> int:
    """How many ranks this machine gets.

    Raises:
        MachineError: more processes are asked for than there are GPUs.
    """
    wanted = job.launch.processes_per_node
    if wanted == "auto":
        return len(gpus) if gpus else 1
    if gpus is not None and wanted > len(gpus):
        raise MachineError(
            f"launch.processes_per_node is {wanted}, this machine has {len(gpus)} GPUs",
            f"set it to {len(gpus)} or to auto",
        )
    return wanted
