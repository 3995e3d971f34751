"""Which checkpoints there are, and the newest that can be believed.

What it does not protect against: a stale listing (NFS shows a directory as it
was up to a minute ago) hides a checkpoint whose name nobody knows. So names
that the journal knows are looked up by opening them, which asks the server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from supervisor.checkpoint.files import identity
from supervisor.checkpoint.manifest import Manifest
from supervisor.checkpoint.names import step_of
from supervisor.checkpoint.reading import reading
from supervisor.checkpoint.refusals import naming
from supervisor.checkpoint.verify import Intact, Verdict, read_manifest, verify
from supervisor.errors import DiskError


@dataclass(frozen=True, slots=True)
class Found:
    """A directory with a checkpoint's name.

    Attributes:
        path: where it is.
        step: the step in its name.
        verdict: what it is.
    """

    path: Path
    step: int
    verdict: Verdict

    @property
    def age(self) -> tuple[int, int, int]:
        """Sorts by (lineage, step), whatever is not intact first, by its step."""
        if isinstance(self.verdict, Intact):
            return 1, self.verdict.manifest.lineage, self.step
        return 0, 0, self.step


@dataclass(frozen=True, slots=True)
class Newest:
    """The outcome of a search for a checkpoint to resume from.

    Attributes:
        intact: the newest that verifies; None if none does.
        rejected: those looked at that do not verify, newest first. An
            `Unreadable` among them may be newer than ``intact``.
        unwanted: those whose manifest says that they are not to be resumed from, newest first;
            no more of them was read.
    """

    intact: Found | None
    rejected: tuple[Found, ...]
    unwanted: tuple[Found, ...] = ()


def survey(checkpoints: Path, run_id: str | None, known: Iterable[Path] = ()) -> list[Found]:
    """Verify every checkpoint: the intact ones newest first, then the others by step.

    Args:
        checkpoints: the directory that holds them; no such directory means none.
        run_id: the run that they have to belong to; None for any.
        known: checkpoints committed earlier; only their names count, since a
            run directory may be moved. Those that are gone are passed over.

    Raises:
        StorageError: the directory could not be listed.
    """
    verdicts = ((path, step, _verified(path, run_id)) for path, step in _candidates(checkpoints, known))
    found = [Found(path, step, verdict) for path, step, verdict in verdicts if verdict is not None]
    return sorted(found, key=lambda each: each.age, reverse=True)


def _verified(path: Path, run_id: str | None) -> Verdict | None:
    """What a checkpoint is, which stays until that is known; None for one that has just been deleted."""
    try:
        with reading(path):
            return verify(path, run_id)
    except DiskError:  # it cannot be marked, and why not its verdict tells
        return None if _gone(path) else verify(path, run_id)


def newest_intact(
    checkpoints: Path,
    run_id: str | None,
    known: Iterable[Path] = (),
    wanted: Callable[[Manifest], bool] = lambda _manifest: True,
) -> Newest:
    """Find the highest (lineage, step) that verifies, reading no more than it takes.

    All manifests are read; whole checkpoints only from the newest down to the
    first intact one, so what is older than that is rejected only if its
    manifest shows why. Arguments and errors are those of `survey`; ``wanted`` asks whether
    a checkpoint would be resumed from.
    """
    found = _by_manifest(checkpoints, run_id, known)
    rejected = [each for each in found if not isinstance(each.verdict, Intact)]
    hopeful: list[Found] = []
    unwanted: list[Found] = []
    for each in found:
        if isinstance(each.verdict, Intact):
            (hopeful if wanted(each.verdict.manifest) else unwanted).append(each)
    intact = None
    for each in sorted(hopeful, key=lambda each: each.age, reverse=True):
        read = Found(each.path, each.step, verify(each.path, run_id))
        if isinstance(read.verdict, Intact):
            intact = read
            break
        rejected.append(read)
    rejected.sort(key=lambda each: each.step, reverse=True)
    unwanted.sort(key=lambda each: each.age, reverse=True)
    return Newest(intact, tuple(rejected), tuple(unwanted))


def promising(
    checkpoints: Path, run_id: str | None, known: Iterable[Path], wanted: Callable[[Manifest], bool]
) -> list[Found]:
    """Those that may be resumed from, as far as their manifests tell; arguments and errors of `newest_intact`."""
    found = _by_manifest(checkpoints, run_id, known)
    return [each for each in found if isinstance(each.verdict, Intact) and wanted(each.verdict.manifest)]


def _by_manifest(checkpoints: Path, run_id: str | None, known: Iterable[Path]) -> list[Found]:
    return [Found(path, step, read_manifest(path, run_id)) for path, step in _candidates(checkpoints, known)]


def _candidates(checkpoints: Path, known: Iterable[Path]) -> list[tuple[Path, int]]:
    """Names of checkpoints, listed or known, that are there or may be."""
    with naming(f"listing {checkpoints}"):
        try:
            names = {path.name for path in checkpoints.iterdir()}
        except FileNotFoundError:
            names = set()
    names |= {path.name for path in known}
    steps = {name: step for name in names if (step := step_of(name)) is not None}
    return [(checkpoints / name, steps[name]) for name in sorted(steps) if not _gone(checkpoints / name)]


def _gone(path: Path) -> bool:
    try:
        return identity(path) is None
    except OSError:
        return False  # unknown; the verdict will say so
