"""What may go from the store: old checkpoints, commit object first, and whatever no commit object needs.

It is done by the lease's owner, by the thread that sends: so what nobody needs is never on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from supervisor.checkpoint.manifest import NewerFormatError
from supervisor.checkpoint.retain import LEAST_KEPT
from supervisor.mirror.fetching import DamagedError, Fetcher
from supervisor.mirror.layout import Commit, Head, commit_at, commit_path, commits_of, pieces_of, torn_path
from supervisor.mirror.store import Store

#: Lineage and step.
At = tuple[int, int]


def to_keep(
    there: Collection[tuple[At, bool]], *, last: int, on_disk: Collection[At], kept: Collection[At]
) -> frozenset[At]:
    """Which checkpoints stay in the store.

    Args:
        there: those that count, and whether training had gone wrong by then.
        last: how many of the newest.
        on_disk: those that the run directory still keeps, for whatever reason.
        kept: those that an earlier run directory kept although newer ones had come.

    >>> there = [((0, step), False) for step in (10, 20, 30, 40)]
    >>> sorted(to_keep(there, last=2, on_disk=[(0, 40)], kept=[(0, 10)]))
    [(0, 10), (0, 30), (0, 40)]
    """
    newest_last = sorted(there)
    good = [at for at, diverged in newest_last if not diverged]
    stay = {*[at for at, _ in newest_last[-last:]], *good[-LEAST_KEPT:], *on_disk, *kept}
    return frozenset(at for at, _ in there if at in stay)


@dataclass(slots=True)
class Cleaner:
    """Keeps count of one run's objects.

    Attributes:
        store: where they are.
        run_id: of the run.
        counts: whether a checkpoint of this lineage and step still counts.
    """

    store: Store
    run_id: str
    counts: Callable[[int, int], bool] = lambda _lineage, _step: True
    _known: dict[At, Commit] = field(default_factory=dict)

    def commits(self) -> dict[At, Commit]:
        """Every checkpoint there is; one whose commit object is damaged is set aside.

        Raises:
            NewerFormatError: one was written by a newer version, so nothing here is ours to judge.
            StoreError, StoreRefusedError: that cannot be found out.
        """
        listed = {at for path in self.store.names(commits_of(self.run_id)) if (at := commit_at(path)) is not None}
        self._known = {at: one for at, one in self._known.items() if at in listed}
        fetcher = Fetcher(self.store, self.run_id)
        for at in sorted(listed - self._known.keys()):
            try:
                self._known[at] = fetcher.commit_object(*at)
            except DamagedError:
                self.set_aside(*at)
        return dict(self._known)

    def set_aside(self, lineage: int, step: int) -> None:
        """A checkpoint is damaged: it exists no more, and its commit object is kept for people to see."""
        path = commit_path(self.run_id, lineage, step)
        got = self.store.get(path)
        if got is not None:
            self.store.put(torn_path(self.run_id, lineage, step), got.data)
            self.store.delete([path])
        self._known.pop((lineage, step), None)

    def clean(self, head: Head, *, last: int, on_disk: Collection[At]) -> int:
        """Delete what is not needed any more.

        Args:
            head: as it stands in the store.
            last: how many of the newest checkpoints stay.
            on_disk: those that the run directory still keeps.

        Returns:
            How many objects are gone.

        Raises:
            FlawError, StoreError, StoreRefusedError: it could not be found out what that is.
        """
        try:
            there = self.commits()
        except NewerFormatError:
            return 0
        counting = [(at, one.manifest.health.diverged) for at, one in there.items() if self.counts(*at)]
        stay = to_keep(counting, last=last, on_disk=on_disk, kept=head.kept)
        if len(counting) < LEAST_KEPT:
            stay |= there.keys() - {at for at, _ in counting}  # better than nothing
        gone = there.keys() - stay
        self.store.delete(commit_path(self.run_id, *at) for at in gone)
        needed = head.all_pieces.union(*(there[at].all_pieces for at in stay))
        place = pieces_of(self.run_id)
        idle = {path for path in self.store.names(place) if path.removeprefix(place) not in needed}
        self.store.delete(idle)
        for at in gone:
            self._known.pop(at, None)
        return len(gone) + len(idle)
