"""The memory control group of this process: what it may use, what it uses, and whom the kernel killed in it.

Both versions are read, also a machine that mounts both and keeps memory in the first. Unknown is None: a kernel that
does not count, a controller that is not switched on, a file that may not be read.

The kernel counts a kill in the group in which the killed process *was*, whoever's limit it met; in the second version
the groups above count it as well, in the first they do not (tried: a limit on the parent, the process in a child,
`oom_kill` rose in the child alone). So the innermost group that counts is the one to ask, also where a scheduler's
limit is that of the step or the job.

What this cannot tell: which process was killed. A group may be shared with other tasks of a job, with a login session,
or with a whole container, and a neighbour's kill counts there like our own; without any group (the root of the second
version) the whole machine is counted. Only together with a rank that died of SIGKILL is a kill evidence. See
`kernel_log` for the one that names the process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: The first version writes 2^63 less a page for no limit.
_NO_LIMIT = 1 << 60
_CGROUP = Path("/proc/self/cgroup")
_MOUNTINFO = Path("/proc/self/mountinfo")
_VMSTAT = Path("/proc/vmstat")


@dataclass(frozen=True, slots=True)
class Names:
    """What a version calls its files, and what it calls reclaimable file pages in ``memory.stat``."""

    limit: str
    usage: str
    peak: str
    counters: tuple[str, ...]
    cached: str


_FIRST = Names(
    limit="memory.limit_in_bytes",
    usage="memory.usage_in_bytes",
    peak="memory.max_usage_in_bytes",
    counters=("memory.oom_control",),
    cached="total_inactive_file",
)
#: `memory.events` counts what lies below, too, unless the file system is mounted with `memory_localevents`.
_SECOND = Names(
    limit="memory.max",
    usage="memory.current",
    peak="memory.peak",
    counters=("memory.events", "memory.events.local"),
    cached="inactive_file",
)


@dataclass(frozen=True, slots=True)
class Groups:
    """A process's memory control groups.

    Attributes:
        names: of the files in them.
        chain: their directories, the innermost first, up to where they are mounted.
    """

    names: Names
    chain: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """How much memory a group uses of what it may.

    Attributes:
        group: its directory.
        used_bytes: without file pages that the kernel drops before it refuses.
        limit_bytes: None for no limit.
        peak_bytes: the most it ever used, file pages included; None where the kernel does not say.
    """

    group: Path
    used_bytes: int
    limit_bytes: int | None
    peak_bytes: int | None


def find(cgroup: Path = _CGROUP, mountinfo: Path = _MOUNTINFO) -> Groups | None:
    """The memory control groups of this process; None where there are none to be seen.

    Args:
        cgroup: a process's membership.
        mountinfo: where its groups are mounted.

    Source: cgroups(7), proc_pid_mountinfo(5). A container may see only its own part of the tree: a mount's root is
    taken off the group's path, and a group that lies outside is looked for at the mount point itself.
    """
    try:
        memberships = [line.split(":", 2) for line in cgroup.read_text().splitlines()]
        mounts = mountinfo.read_text(errors="replace").splitlines()
    except OSError:
        return None
    paths = {controllers: path for _, controllers, path in (m for m in memberships if len(m) == 3)}
    first = next((path for controllers, path in paths.items() if "memory" in controllers.split(",")), None)
    names, path = (_FIRST, first) if first is not None else (_SECOND, paths.get(""))
    mount = _mount(mounts, names)
    if path is None or mount is None:
        return None
    root, point = mount
    inside = path.removeprefix(root.rstrip("/")) if (path + "/").startswith(root.rstrip("/") + "/") else ""
    group = point / inside.lstrip("/")
    above = [one for one in group.parents if one.is_relative_to(point)]
    return Groups(names, (group, *above))


def _mount(table: list[str], names: Names) -> tuple[str, Path] | None:
    """Root and mount point of the hierarchy that accounts memory."""
    for line in table:
        before, _, after = line.partition(" - ")
        words, rest = before.split(), after.split()
        if len(words) < 5 or len(rest) < 3:
            continue
        wanted = rest[0] == "cgroup2" if names is _SECOND else rest[0] == "cgroup" and "memory" in rest[2].split(",")
        if wanted:
            return _unescaped(words[3]), Path(_unescaped(words[4]))
    return None


def _unescaped(word: str) -> str:
    r"""A path as it is.

    >>> _unescaped(r"/my\040groups")
    '/my groups'
    """
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), word)


def oom_kills() -> int | None:
    """How many processes the kernel has killed for want of memory where this process lives, so far.

    To be read when an attempt begins and when it has ended, see `kills_since`.
    """
    return kills_in(find())


def kills_in(groups: Groups | None, vmstat: Path = _VMSTAT) -> int | None:
    """The same of other groups.

    Args:
        groups: where to look.
        vmstat: counts for the whole machine, where no group counts.

    Source: ``oom_kill`` of ``memory.events``, ``memory.oom_control`` or ``/proc/vmstat``; old kernels lack it.
    """
    if groups is not None:
        for group in groups.chain:
            for name in groups.names.counters:
                if (group / name).exists():
                    return _counts(group / name).get("oom_kill")
    return _counts(vmstat).get("oom_kill")


def kills_since(before: int | None, after: int | None) -> int | None:
    """How many were killed between two readings; None if that cannot be told.

    >>> kills_since(2, 3), kills_since(None, 3), kills_since(5, 0)
    (1, None, None)
    """
    if before is None or after is None or after < before:
        return None  # a counter that fell is another group's
    return after - before


def usage(groups: Groups | None) -> Usage | None:
    """Of all groups above this process the one that comes to its limit first; without limits its own.

    None where nothing accounts memory.
    """
    found = list(_usages(groups)) if groups is not None else []
    limited = [(one.limit_bytes - one.used_bytes, one) for one in found if one.limit_bytes is not None]
    if limited:
        return min(limited, key=lambda pair: pair[0])[1]
    return found[0] if found else None


def _usages(groups: Groups) -> Iterator[Usage]:
    names = groups.names
    for group in groups.chain:
        used = _number(group / names.usage)
        if used is None:
            continue
        limit = _number(group / names.limit)
        cached = _counts(group / "memory.stat").get(names.cached, 0)
        yield Usage(
            group,
            used_bytes=max(0, used - cached),
            limit_bytes=limit if limit is not None and limit < _NO_LIMIT else None,
            peak_bytes=_number(group / names.peak),
        )


def _counts(path: Path) -> dict[str, int]:
    """Lines of a name and a number; what is neither is passed over."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max"
        return None
