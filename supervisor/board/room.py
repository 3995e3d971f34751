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

_TMPFS = ("tmpfs", "ramfs", "devtmpfs")


def free_bytes(
    directory: Path | None,
    *,
    available_bytes: int,
    mounts: Path = Path("/proc/mounts"),
    cgroup: Path = Path("/proc/self/cgroup"),
    cgroup_root: Path = Path("/sys/fs/cgroup"),
) -> int:
    """What can be allocated in a directory: its file system's room, and if that is memory, the memory's.

    Args:
        directory: where the allocation is to be; None for memory that no file system holds.
        available_bytes: memory that the machine can give without swapping.
        mounts: table of mounted file systems.
        cgroup: the control groups of this process.
        cgroup_root: where control groups are mounted.

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
        bounds.append(free)
    limit = cgroup_headroom_bytes(cgroup, cgroup_root)
    if limit is not None:
        bounds.append(limit - MARGIN_BYTES)
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


def cgroup_headroom_bytes(cgroup: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What this process's memory control group still allows; None where there is no limit.

    Cached pages of files count as usage, but the kernel gives them back before it refuses; after
    reading a data set they fill the limit. So they are taken off, as the kubelet does it.

    Source: cgroups(7); v2 ``memory.max``/``memory.current``, v1 ``memory.limit_in_bytes``/
    ``memory.usage_in_bytes``, ``inactive_file`` of ``memory.stat``. Every ancestor's limit counts too.
    """
    try:
        lines = cgroup.read_text().splitlines()
    except OSError:
        return None
    headrooms = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit_name, usage_name = root, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit_name, usage_name = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = base / path.lstrip("/")
        for one in (group, *group.parents):
            limit, usage = _number(one / limit_name), _number(one / usage_name)
            if limit is not None and usage is not None and limit < 1 << 60:  # v1 writes 2^63 for none
                headrooms.append(limit - max(0, usage - _cached_bytes(one / "memory.stat")))
            if one == base:
                break
    return min(headrooms, default=None)


def _cached_bytes(stat: Path) -> int:
    """File pages that a control group can drop; v1 says ``total_`` where it counts descendants."""
    try:
        told = dict(line.split() for line in stat.read_text().splitlines())
        return int(told.get("total_inactive_file", told.get("inactive_file", 0)))
    except (OSError, ValueError):
        return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max"
        return None
