"""How much memory this machine has left, and who holds it. The door to psutil.

What this does not protect against: memory that belongs to nobody's account (a driver's pinned pages).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psutil

from supervisor.policy.memory import Sample
from supervisor.watch.cgroups import Groups, usage


def available_bytes(groups: Groups | None) -> int:
    """Memory that the machine can give without swapping, and the control groups of this process allow [bytes].

    Args:
        groups: of this process, see `cgroups.find`.
    """
    machine, group = int(psutil.virtual_memory().available), usage(groups)
    if group is None or group.limit_bytes is None:
        return machine
    return min(machine, group.limit_bytes - group.used_bytes)


def sample(groups: Groups | None, now_s: float) -> Sample:
    """What is used of what limits this process first: the machine's memory, or its control group's.

    Args:
        groups: of this process, see `cgroups.find`.
        now_s: monotonic time [s].
    """
    told = psutil.virtual_memory()
    machine = Sample("this machine", now_s, int(told.total - told.available), int(told.total))
    group = usage(groups)
    if group is None or group.limit_bytes is None:
        return machine
    limited = Sample(f"control group {group.group}", now_s, group.used_bytes, group.limit_bytes)
    return max(machine, limited, key=lambda one: one.share)


@dataclass(frozen=True, slots=True)
class Holding:
    """Memory that some processes hold alone.

    Attributes:
        who: in words.
        held_bytes: without what they share with others; what a forked process has not written yet counts for each.
        processes: how many.
    """

    who: str
    held_bytes: int
    processes: int


def holdings(pids: Iterable[int], ranks: Mapping[int, int], supervisor: int) -> list[Holding]:
    """Who holds how much, the largest first: each rank, what each rank started (its data-loader workers), and the rest.

    Args:
        pids: of all processes of the run's attempts.
        ranks: pid of each rank, and its number.
        supervisor: what does not descend from it is another node's, on a machine that plays several.
    """
    held: dict[str, list[int]] = {}
    found = {pid: told for pid in pids if (told := _told(pid)) is not None}
    parents = {pid: parent for pid, (parent, _) in found.items()}
    for pid, (_, own_bytes) in found.items():
        if (who := _who(pid, parents, ranks, supervisor)) is not None:
            held.setdefault(who, []).append(own_bytes)
    made = [Holding(who, sum(each), len(each)) for who, each in held.items()]
    return sorted(made, key=lambda one: one.held_bytes, reverse=True)


def _told(pid: int) -> tuple[int, int] | None:
    """Its parent, and what it holds alone."""
    try:
        process = psutil.Process(pid)
        memory = process.memory_info()
        return process.ppid(), max(0, int(memory.rss) - int(memory.shared))
    except psutil.Error:
        return None  # gone, or another user's


def _who(pid: int, parents: Mapping[int, int], ranks: Mapping[int, int], supervisor: int) -> str | None:
    if pid in ranks:
        return f"rank {ranks[pid]}"
    above = pid
    while (above := parents.get(above, 0)) != 0:
        if above in ranks:
            return f"data-loader workers and others of rank {ranks[above]}"
        if above == supervisor:
            return "launchers and ranks that stand by"
    return None
