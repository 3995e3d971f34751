"""How a process ended that is not our child: its parent is a launcher, which is killed before it can tell.

What this does not protect against: a kernel before 6.15 on which the parent was quicker. Then the end stays unknown.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

#: `PIDFD_GET_INFO`, and the bit of `mask` that asks for the end: linux/pidfd.h, since 6.15.
_GET_INFO, _EXIT, _SIZE = 0xC040FF0B, 1 << 3, 64
_MASK_AT, _CODE_AT = 0, 60
#: `exit_code`, field 52 of /proc/PID/stat, counted from the one after the name: proc(5).
_STAT_FIELD = 49


def exit_of(pid: int, pidfd: int) -> int | None:
    """Exit code of a process that has ended, or its signal's number, negative; None where nobody can tell.

    Args:
        pid: its number, while that is still its own.
        pidfd: opened while it lived.
    """
    status = _told_by_pidfd(pidfd)
    if status is None:
        status = _told_by_zombie(pid)
    return None if status is None else os.waitstatus_to_exitcode(status)


def _told_by_pidfd(pidfd: int) -> int | None:
    buffer = bytearray(_SIZE)
    struct.pack_into("Q", buffer, _MASK_AT, _EXIT)
    try:
        fcntl.ioctl(pidfd, _GET_INFO, buffer)
    except OSError:
        return None  # an older kernel
    (told,) = struct.unpack_from("Q", buffer, _MASK_AT)
    return int(struct.unpack_from("i", buffer, _CODE_AT)[0]) if told & _EXIT else None


def _told_by_zombie(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None  # reaped
    return int(fields[_STAT_FIELD]) if len(fields) > _STAT_FIELD and fields[0] == "Z" else None
