"""How much memory a directory can still give, before anything is asked of it.

What this does not protect against: another process that takes the memory between the
question and the allocation. Where that ends in a full tmpfs, `posix_fallocate` says so;
where it ends at the memory limit of a cgroup, the kernel kills.
"""

from __future__ import annotations

import os
from pathlib import Path

#: Left free for everything else: an allocation that takes the last byte kills its neighbours.
MARGIN_BYTES = 256 << 20
#: Left free beside snapshots for the logs of ranks, where twice as much is free: elsewhere they are not in memory.
LOGS_BYTES = 32 << 20

_TMPFS = ("tmpfs", "ramfs", "devtmpfs")


def free_bytes(directory: Path | None, *, available_bytes: int, mounts: Path = Path("/proc/mounts")) -> int:
    """What can be allocated in a directory: its file system's room, and if that is memory, the memory's.

    Args:
        directory: where the allocation is to be; None for memory that no file system holds.
        available_bytes: memory that the machine can give without swapping, and this process's limits allow.
        mounts: table of mounted file systems.

    Returns:
        Bytes, `MARGIN_BYTES` already taken off; 0 for a directory that cannot be asked.
    """
    bounds = [available_bytes - MARGIN_BYTES]
    if directory is not None:
        try:
            room = os.statvfs(directory)
        except OSError:
            return 0
        free = room.f_bavail * room.f_frsize
        if not in_memory(directory, mounts):
            return max(0, free - MARGIN_BYTES)
        bounds.append(free - LOGS_BYTES if free >= 2 * LOGS_BYTES else free)
    return max(0, min(bounds))


def in_memory(directory: Path, mounts: Path = Path("/proc/mounts")) -> bool:
    """Whether a directory's file system lives in memory."""
    best, kind = "", ""
    path = str(directory.resolve())
    try:
        table = mounts.read_text(errors="replace")
    except OSError:
        return False
    for line in table.splitlines():
        words = line.split()
        if len(words) < 3:
            continue
        point = words[1].replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, words[2]
    return kind in _TMPFS
