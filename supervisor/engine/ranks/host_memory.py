"""A warning before a machine's memory ends: who holds it, and when it is full. It is said, and training goes on."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.board.environment import MARKER
from supervisor.board.store import human_bytes
from supervisor.launch.processes import marked
from supervisor.policy.memory import WINDOW_S, Level, Sample, Shortage, is_over, shortage
from supervisor.watch.cgroups import Groups, find, usage
from supervisor.watch.host_memory import Holding, holdings, sample

#: A look costs a third of a millisecond.
EVERY_S = 5.0
#: Who holds most is named; a list of everybody is read by nobody.
_NAMED = 3


@dataclass(slots=True)
class HostMemory:
    """Looks at this machine's memory every few seconds.

    Attributes:
        groups: control groups of this process, for their limits.
        take: takes a sample; what the kernel shows if not given.
    """

    groups: Groups | None = field(default_factory=find)
    take: Callable[[Groups | None, float], Sample] = sample
    _samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=int(WINDOW_S / EVERY_S) + 1))
    _looked_at_s: float = float("-inf")
    _told: Level = Level.FAR

    def is_due(self, now_s: float) -> bool:
        """Whether it is time to look again.

        Args:
            now_s: monotonic time [s].
        """
        return now_s - self._looked_at_s >= EVERY_S

    def needs_bytes(self) -> int | None:
        """What the ranks took at least, or the limit that they reached [bytes]; None where nothing accounts memory."""
        found = usage(self.groups)
        known = [one for one in (found.limit_bytes, found.peak_bytes) if one is not None] if found is not None else []
        return min(known, default=None)

    def look(self, now_s: float, *, training: bool, held: Callable[[], Sequence[Holding]]) -> str | None:
        """A sentence when the end has come nearer than was told; None when there is nothing to tell.

        Args:
            now_s: monotonic time [s].
            training: whether the ranks train; while they load a model, memory grows and that means nothing.
            held: asks who holds how much, the largest first.
        """
        if not self.is_due(now_s):
            return None
        self._looked_at_s = now_s
        if not training:
            self._samples.clear()
        self._samples.append(self.take(self.groups, now_s))
        found = shortage(self._samples)
        assert found is not None
        if is_over(found.sample):
            self._told = Level.FAR
        if found.level <= self._told:
            return None
        self._told = found.level
        return words_of(found, held())


def words_of(found: Shortage, held: Sequence[Holding]) -> str:
    """What a person wants to know.

    >>> from supervisor.policy.memory import Level, Sample, Shortage
    >>> found = Shortage(Level.RISING, Sample("this machine", 0.0, 8 << 30, 10 << 30), 120.0)
    >>> words_of(
    ...     found, [Holding("rank 0", 5 << 30, 1), Holding("data-loader workers and others of rank 0", 1 << 30, 4)]
    ... )
    ... # doctest: +NORMALIZE_WHITESPACE
    'memory of this machine: 8.0 GiB of 10.0 GiB used (80 %), full in about 2 min at this rate; most of it: rank 0
    5.0 GiB, data-loader workers and others of rank 0 1.0 GiB (4 processes)'
    """
    one = found.sample
    told = f"memory of {one.of}: {human_bytes(one.used_bytes)} of {human_bytes(one.limit_bytes)} used"
    told += f" ({one.share * 100:.0f} %)"
    if found.full_in_s is not None:
        minutes = found.full_in_s / 60
        told += f", full in about {minutes:.0f} min at this rate" if minutes >= 1 else ", full in less than a minute"
    most = [
        f"{who.who} {human_bytes(who.held_bytes)}" + (f" ({who.processes} processes)" if who.processes > 1 else "")
        for who in held[:_NAMED]
    ]
    return f"{told}; most of it: {', '.join(most)}" if most else told


def holders_of(run_id: str, board: Path, ranks: Mapping[int, int]) -> list[Holding]:
    """Who holds memory for a run on this machine, the largest first.

    Args:
        run_id: of the run.
        board: its directory.
        ranks: pid of each rank here, and its number.
    """
    found = holdings(marked(f"{MARKER}={run_id}/", prefix=True), ranks, os.getpid())
    found.append(Holding("the board", _stored_bytes(board), 1))
    return sorted(found, key=lambda one: one.held_bytes, reverse=True)


def _stored_bytes(directory: Path) -> int:
    """What is in its files, and behind its links; what was reserved and not written is counted as well."""
    stored = 0
    try:
        for entry in directory.iterdir():
            if entry.exists():  # and no link to memory that is gone
                stored += entry.stat().st_blocks * 512  # stat(2): whatever the file system's block is
    except OSError:
        return stored  # it is being taken away
    return stored
