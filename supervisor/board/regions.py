"""Regions: the memory of one rank's slots, as a file that outlives its supervisor or as memory that does not.

A *named* region is a file in the board's directory, where a killed supervisor's successor finds
it. An *anonymous* one is a memfd that the supervisor holds; the directory has a link to
``/proc/<its pid>/fd/<number>``, through which it is opened like a file. When everything that has
it open or mapped is killed, the kernel takes its memory back, and a link that leads nowhere is left.

A link is followed only if it leads to a memfd of this very name: the pid may be another's by
now. Source: memfd_create(2); proc_pid_fd(5), the access check of ptrace(2) included.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

_REGION = re.compile(r"rank-(\d+)\.(\d+)")
_HELD = re.compile(r"/proc/\d+/fd/\d+")
#: MFD_NOEXEC_SEAL: without it a machine with vm.memfd_noexec=2 refuses; kernels before 6.3 do not know it.
_NOEXEC_SEAL = 0x8


def region_name(rank: int, generation: int) -> str:
    """What a region is called in its directory.

    >>> region_name(3, 1)
    'rank-3.1'
    """
    return f"rank-{rank}.{generation}"


def is_region(name: str) -> bool:
    """Whether something in a board's directory is called as regions are.

    >>> is_region("rank-3.1"), is_region("rank-3.1.partial")
    (True, False)
    """
    return _REGION.fullmatch(name) is not None


def regions_in(directory: Path, rank: int) -> list[tuple[int, Path]]:
    """Generation and path of each region of a local rank that can be opened, newest generation first."""
    found = []
    for entry in directory.iterdir():
        match = _REGION.fullmatch(entry.name)
        if match and int(match[1]) == rank and not dangles(entry):
            found.append((int(match[2]), entry))
    return sorted(found, reverse=True)


def dangles(path: Path) -> bool:
    """Whether this is a link whose memory is gone, or that never led to any."""
    return path.is_symlink() and not _leads_to_memory(path)


def open_region(path: Path, flags: int) -> int:
    """Open a region, named or anonymous.

    Raises:
        FileNotFoundError: the supervisor that held it is gone.
        OSError: it is a link to something else, or cannot be opened.
    """
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ELOOP or not _HELD.fullmatch(str(path.readlink())):
            raise
    if _leads_to_memory(path):
        descriptor = os.open(path, flags | os.O_CLOEXEC)
        if _link(f"/proc/self/fd/{descriptor}") == _shown(path):
            return descriptor
        os.close(descriptor)
    raise FileNotFoundError(errno.ENOENT, "the supervisor that held it is gone", str(path))


def reserve_file(path: Path, size: int) -> None:
    """Make a file, exclusively, 0600, its memory reserved: a full file system is an error here, not SIGBUS later.

    Raises:
        OSError: there is no room; nothing is left.
    """
    path.unlink(missing_ok=True)  # a half-made one of a killed predecessor
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(descriptor)


def reserve_memory(path: Path, size: int) -> int:
    """Take memory for a region that is to be called so; it lasts as long as the descriptor returned is held.

    Raises:
        OSError: there is none left; nothing is taken.
    """
    name = f"{path.parent.name}/{path.name}"
    try:
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC | _NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o600)
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def show_memory(path: Path, descriptor: int) -> None:
    """Make memory that this process holds openable under a path, in the place of what was there."""
    partial = path.with_name(f".{path.name}")
    partial.unlink(missing_ok=True)
    partial.symlink_to(f"/proc/{os.getpid()}/fd/{descriptor}")
    partial.rename(path)


def _leads_to_memory(path: Path) -> bool:
    target = _link(str(path))
    # Read before it is opened: under a pid used again it may be a pipe, and opening that could block.
    return target is not None and bool(_HELD.fullmatch(target)) and _link(target) == _shown(path)


def _shown(path: Path) -> str:
    """How the kernel shows a memfd of this name."""
    return f"/memfd:{path.parent.name}/{path.name} (deleted)"


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)  # noqa: PTH115 - a Path would take the blank and the slashes apart
    except OSError:
        return None
