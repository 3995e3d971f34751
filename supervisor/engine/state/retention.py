"""What stays on disk after a commit, and what goes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from supervisor.checkpoint.evaluations import Evaluation, evaluations, measured
from supervisor.checkpoint.manifest import Manifest
from supervisor.checkpoint.names import MANIFEST
from supervisor.checkpoint.retain import (
    LEAST_KEPT,
    Best,
    Deleted,
    InUse,
    Keep,
    NotDeleted,
    Standing,
    best_of,
    delete,
    to_delete,
)
from supervisor.checkpoint.verify import Intact, read_manifest
from supervisor.errors import DiskError
from supervisor.job import Job
from supervisor.journal import read_run
from supervisor.policy.mirror import At


def keep_of(job: Job) -> Keep:
    """What a job keeps, as the rule wants it said."""
    asked = job.checkpoint
    best = asked.keep_best
    return Keep(
        last=asked.keep_last,
        every=asked.keep_every,
        best=Best(best.metric, best.mode, best.count) if best is not None else None,
    )


def times_of(run_dir: Path) -> dict[tuple[int, int], float]:
    """When each checkpoint of a run was committed, by lineage and step [unix s]; also of those that are gone.

    Raises:
        DiskError: the journal cannot be read.
    """
    records = (record for record in read_run(run_dir) if record.event == "checkpoint_committed")
    return {(record.count("lineage") or 0, record.count("step") or 0): record.time for record in records}


@dataclass(slots=True)
class Stock:
    """The intact checkpoints of a run, as far as their manifests tell.

    Attributes:
        run_dir: of the run.
        run_id: of the run.
        times: when which was committed [unix s]; also of those that are gone, since they part what was measured.
        metric: the one that matters; None for none.
    """

    run_dir: Path
    run_id: str | None
    times: dict[tuple[int, int], float]
    metric: str | None = None
    _told: dict[Path, tuple[tuple[int, int], list[Evaluation]]] = field(default_factory=dict)

    def look(self) -> list[Standing]:
        """All of them, in no order."""
        found = []
        for path in (self.run_dir / "checkpoints").glob("checkpoint-*"):
            verdict = read_manifest(path, self.run_id)
            if isinstance(verdict, Intact):
                found.append((path, verdict.manifest))
        self._told = {path: self._told[path] for path, _ in found if path in self._told}
        return [self._standing(path, manifest) for path, manifest in found]

    def told_of(self, path: Path) -> list[Evaluation]:
        """What the program measured until a checkpoint; nothing where its log history cannot be read."""
        try:
            return evaluations(path, self.metric)
        except OSError:
            return []

    def before(self, lineage: int, step: int) -> int:
        """Step of the checkpoint before this one, among all that ever were; -1 without one."""
        return max((s for of, s in self.times if of <= lineage and s < step), default=-1)

    def _standing(self, path: Path, manifest: Manifest) -> Standing:
        lineage, step = manifest.lineage, manifest.step
        if (lineage, step) not in self.times:
            self.times[lineage, step] = _written_s(path)
        value = None
        if self.metric is not None:
            if self._told.get(path, (None, []))[0] != (lineage, step):
                self._told[path] = (lineage, step), self.told_of(path)
            value = measured(self._told[path][1], self.metric, step=step, after=self.before(lineage, step))
        return Standing(lineage, step, path, self.times[lineage, step], manifest.health.diverged, value)


def _written_s(path: Path) -> float:
    """When a checkpoint of which the journal knows nothing was written [unix s], as far as the file system tells."""
    try:
        return (path / MANIFEST).stat().st_mtime
    except OSError:
        return time.time()


@dataclass(slots=True)
class Retention:
    """Deletes what a run does not need any more; used by the thread that commits.

    Attributes:
        run_dir: of the run.
        run_id: of the run.
        keep: what it keeps.
        worst_of_best: the value that an evaluation has to beat to be among the best that are kept; None while any is.
    """

    run_dir: Path
    run_id: str
    keep: Keep
    worst_of_best: float | None = None
    _stock: Stock | None = None

    def open(self) -> None:
        """See what there is, so that a first evaluation has something to be compared with. Never raises."""
        try:
            self._note_best(self._look())
        except Exception:  # noqa: S110 - what is wrong will be told after the next commit, and nothing is lost
            pass

    def apply(self) -> str | None:
        """Delete what is no longer needed.

        Returns:
            What could not be removed; None if all went well.

        Raises:
            OSError: the directory could not be listed.
            DiskError: the journal could not be read.
        """
        outcomes = self._delete(self.keep)
        problems = [f"{o.path.name} could not be removed: {o.reason}" for o in outcomes if isinstance(o, NotDeleted)]
        return "; ".join(problems) or None

    def make_room(self) -> bool:
        """Delete what a run can do without when its disk is full: of the newest only two stay.

        Returns:
            Whether that made any room.

        Raises:
            OSError: the directory could not be listed.
            DiskError: the journal could not be read.
        """
        return any(isinstance(o, Deleted) for o in self._delete(replace(self.keep, last=LEAST_KEPT)))

    def best_among(self, there: Iterable[At]) -> list[At]:
        """Of checkpoints that are elsewhere, those that would be kept here for what was measured of them.

        The newest one here tells of all of them: its log history is that of the whole run. Never raises.
        """
        best = self.keep.best
        if best is None:
            return []
        try:
            here = self._look()
        except (OSError, DiskError):
            return []  # what cannot be read now is no reason to wait for more
        if self._stock is None or not here:
            return []
        at_home = {(one.lineage, one.step) for one in here}
        told = self._stock.told_of(max(here, key=lambda one: one.age).path)
        others = [
            Standing(*at, Path(), measured=measured(told, best.metric, step=at[1], after=self._stock.before(*at)))
            for at in there
            if at not in at_home
        ]
        kept = [(one.lineage, one.step) for one in best_of([*here, *others], best)]
        return [at for at in kept if at not in at_home]

    def _delete(self, keep: Keep) -> list[Deleted | InUse | NotDeleted]:
        standing = self._look()
        self._note_best(standing)
        return [delete(path) for path in to_delete(standing, keep)]

    def _look(self) -> list[Standing]:
        if self._stock is None:
            metric = self.keep.best.metric if self.keep.best is not None else None
            self._stock = Stock(self.run_dir, self.run_id, times_of(self.run_dir), metric)
        return self._stock.look()

    def _note_best(self, standing: list[Standing]) -> None:
        best = self.keep.best
        if best is None:
            return
        kept = best_of(standing, best)
        last = kept[-1].measured if len(kept) == best.count else None
        self.worst_of_best = last.value if last is not None else None
