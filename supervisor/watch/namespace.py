"""Whether numbers of processes mean here what they mean to the kernel and its drivers."""

from __future__ import annotations

import os
from pathlib import Path

#: PROC_PID_INIT_INO of include/linux/proc_ns.h: the first namespace of processes has this number on every machine.
_FIRST = "pid:[4026531836]"


def sees_all_pids(proc: Path = Path("/proc")) -> bool:
    """Whether this process is in the machine's first namespace of processes, and not in a container's own.

    Drivers and the kernel's log use the first one's numbers; in another one they are somebody else's, or nobody's.
    """
    try:
        return os.readlink(proc / "self" / "ns" / "pid") == _FIRST  # noqa: PTH115 - it is no path
    except OSError:
        return False
