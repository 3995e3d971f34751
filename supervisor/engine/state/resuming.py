"""Where an attempt goes on from: what verifies on disk, what is whole in memory, and the note to the workers."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from supervisor.checkpoint.aside import set_aside
from supervisor.checkpoint.files import make_directory
from supervisor.checkpoint.inventory import Found, newest_intact, promising
from supervisor.checkpoint.manifest import Manifest
from supervisor.checkpoint.refusals import StorageError, naming
from supervisor.checkpoint.verify import Foreign, Intact, Torn, Unreadable, read_manifest
from supervisor.engine.attempt import AttemptOrder, Start
from supervisor.engine.state.assembly import Contents, TornSnapshotError, contents, sources_of
from supervisor.engine.state.looking import look_patiently, newest_missing
from supervisor.engine.state.memory import Memory, Whole
from supervisor.engine.state.own import Own
from supervisor.errors import JobError
from supervisor.policy.batch import Batch, accumulation_for, override_for, resized
from supervisor.policy.ledger import Ledger
from supervisor.policy.resume import Candidate, Fresh, FromCandidate, Refuse, choose
from supervisor.whole import write_whole


@dataclass(frozen=True, slots=True)
class OnDisk:
    """What the run directory holds to resume from.

    Attributes:
        newest: the newest checkpoint that verifies.
        rejected: newly found torn ones, set aside now: name, step, reason.
        unreadable: checkpoints that could not be read, with the reason; they stay where they are.
        set_aside: what lies below ``torn/``, with the reason.
        diverged: those that were taken after training had gone wrong, where they are not wanted.
        world_size: of the newest.
        trained: whether the newest is the state at the training's end.
        batch: how a step was made up there; None where it does not tell.
        missing: the newest that the journal knows, if the file system does not show it.
        passing: those newer than the newest that could not be read just now, and perhaps a moment later.
    """

    newest: Candidate | None
    rejected: tuple[tuple[str, int, str], ...]
    unreadable: tuple[str, ...]
    set_aside: tuple[str, ...]
    diverged: tuple[str, ...]
    world_size: int | None
    trained: bool
    batch: Batch | None = None
    missing: tuple[str, ...] = ()
    passing: tuple[str, ...] = ()


def look(
    run_dir: Path, run_id: str, ledger: Ledger, clock: Callable[[], float], *, take_diverged: bool = False
) -> OnDisk:
    """Verify from the newest down to the first intact checkpoint, and set aside what is torn or abandoned.

    A checkpoint counts as torn only when its bytes could be read and are wrong. What now stands under the name
    of one that this run committed, and is none of it, is set aside too: else that step could never be committed again.

    Raises:
        DiskError: the directory could not be listed, or a torn checkpoint not be moved.
    """
    known = [run_dir / path for _, _, path in ledger.committed]
    ours = {path.name for path in known}
    found = newest_intact(run_dir / "checkpoints", run_id, known, wanted_by(ledger, take_diverged=take_diverged))
    rejected, unreadable, passing = _abandon(run_dir, found.unwanted, ledger, clock), [], []
    newest_step = found.intact.step if found.intact is not None else -1
    for one in found.rejected:
        match one.verdict:
            case Foreign() if one.path.name not in ours:
                continue
            case Torn(reason) | Foreign(reason):
                set_aside(one.path, run_dir / "torn", reason, clock)
                rejected.append((one.path.name, one.step, reason))
            case _:
                unreadable.append(f"{one.path.name} could not be read: {_reason(one)}")
                if isinstance(one.verdict, Unreadable) and one.verdict.passing and one.step > newest_step:
                    passing.append(one.path.name)
    newest, world_size, state = None, None, {}
    if found.intact is not None and isinstance(found.intact.verdict, Intact):
        manifest = found.intact.verdict.manifest
        newest = Candidate(manifest.lineage, manifest.step, "checkpoint", str(found.intact.path))
        world_size = manifest.world_size
        state = json.loads((found.intact.path / "state.json").read_text())
    return OnDisk(
        newest,
        tuple(rejected),
        tuple(unreadable),
        torn_ones(run_dir),
        diverged_ones(found.unwanted, ledger),
        world_size,
        trained=bool(state.get("trained")),
        batch=Batch.read(state.get("data")),
        missing=newest_missing(run_dir, ledger, found),
        passing=tuple(passing),
    )


def wanted_by(ledger: Ledger, *, take_diverged: bool) -> Callable[[Manifest], bool]:
    """Whether a run would go on from a checkpoint, as far as its manifest tells."""

    def wanted(manifest: Manifest) -> bool:
        return ledger.counts(manifest.lineage, manifest.step) and (take_diverged or not manifest.health.diverged)

    return wanted


def diverged_ones(unwanted: Iterable[Found], ledger: Ledger) -> tuple[str, ...]:
    """Those that the run has not gone back behind, and would not go on from all the same."""
    return tuple(f"{one.path.name}: training had diverged by then" for one in unwanted if _counts(one, ledger))


def _counts(one: Found, ledger: Ledger) -> bool:
    return isinstance(one.verdict, Intact) and ledger.counts(one.verdict.manifest.lineage, one.step)


def _abandon(
    run_dir: Path, unwanted: Iterable[Found], ledger: Ledger, clock: Callable[[], float]
) -> list[tuple[str, int, str]]:
    """Set aside what the run has gone back behind: a new lineage comes to the same steps, under the same names."""
    gone = []
    for one in unwanted:
        if _counts(one, ledger) or not isinstance(one.verdict, Intact):
            continue
        lineage = one.verdict.manifest.lineage
        before = min(step for began, step in ledger.behind if lineage < began and one.step >= step)
        reason = f"abandoned: the run went back behind step {before}"
        place = run_dir / "abandoned" / f"lineage-{lineage}"
        with naming(f"making {place}"):
            make_directory(place.parent)
        set_aside(one.path, place, reason, clock)
        gone.append((one.path.name, one.step, reason))
    return gone


def _reason(found: Found) -> str:
    return str(getattr(found.verdict, "reason", "unknown"))


def torn_ones(run_dir: Path) -> tuple[str, ...]:
    """What has been set aside, with the reason of each."""
    try:
        names = sorted(p.name for p in (run_dir / "torn").iterdir() if p.is_dir())
    except FileNotFoundError:
        return ()
    listed = []
    for name in names:
        try:
            reason = json.loads((run_dir / "torn" / f"{name}.json").read_text())["reason"]
        except (OSError, ValueError, KeyError):
            reason = "set aside"
        listed.append(f"torn/{name}: {reason}")
    return tuple(listed)


def note_checkpoint(directory: Path, checkpoint: Path, step: int) -> None:
    """Point the workers at a checkpoint on disk: at what its manifest lists, and at nothing else that lies there.

    Raises:
        StorageError: it cannot be read, or is not what it was when it was chosen.
    """
    verdict = read_manifest(checkpoint, None)
    if not isinstance(verdict, Intact):
        raise StorageError(f"{checkpoint}: {verdict.reason}", "another start looks again", errno.ESTALE)
    parts = {
        name: {"path": str(checkpoint / name), "offset": 0, "size": entry.bytes}
        for name, entry in verdict.manifest.files.items()
    }
    _note(directory, "checkpoint", step, parts)


def note_snapshot(directory: Path, made: Contents, step: int) -> None:
    """Point the workers at a held snapshot: tensors where they lie, JSON files written beside the note."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    parts: dict[str, dict[str, object]] = {}
    for name, source in made.images:
        offset, size = source.snapshot.range_of(name)
        parts[name] = {"path": str(source.snapshot.path), "offset": offset, "size": size}
    for text in made.texts:
        path = directory / text.name
        path.touch(mode=0o600, exist_ok=False)
        with path.open("wb") as file:
            for piece in text.pieces():
                file.write(piece)
        parts[text.name] = {"path": str(path), "offset": 0, "size": text.size}
    _note(directory, "snapshot", step, parts)


def _note(directory: Path, source: str, step: int, parts: object) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    write_whole(directory / "resume.json", json.dumps({"source": source, "step": step, "parts": parts}))


def leave_note(memory: Memory, run_id: str, order: AttemptOrder) -> None:
    """Tell the workers of this node what they go on from, by a note on the board.

    Raises:
        TornSnapshotError: the snapshot that was chosen is not there any more, or not whole.
        OSError: the note, or the checkpoint, could not be handled.
    """
    directory = memory.board.directory / f"resume-{order.number}"
    for old in memory.board.directory.glob("resume-*"):
        shutil.rmtree(old, ignore_errors=True)  # of attempts that are over: each is as large as a checkpoint
    start = order.start
    if start.checkpoint is not None and start.source in ("checkpoint", "mirror"):
        note_checkpoint(directory, start.checkpoint, start.step)
    elif start.source == "snapshot":
        whole = next((one for one in memory.wholes() if one.identity == start.identity), None)
        if whole is None:
            raise TornSnapshotError(f"the snapshot of step {start.step} is not whole here", "another is chosen")
        sources = sources_of(memory, whole, order.first_rank)
        made = contents(sources, memory.board.directory, run_id, world_size=order.world_size)
        note_snapshot(directory, made, start.step)


@dataclass(slots=True)
class Resuming:
    """Chooses where attempts go on from.

    Attributes:
        run_dir: of the run.
        run_id: of the run.
        memory: the board.
        take_diverged: whether to go on from a state that was taken after training had gone wrong.
        disk: what was found on disk last.
        own: what its program writes by itself.
    """

    run_dir: Path
    run_id: str
    memory: Memory
    take_diverged: bool = False
    disk: OnDisk = field(init=False)
    own: Own = field(init=False)
    _whole: Whole | None = None
    _world_size: int = 0

    def __post_init__(self) -> None:
        self.own = Own(self.run_dir)

    def look(self, ledger: Ledger, clock: Callable[[], float], *, brought: bool = False) -> OnDisk:
        """Verify what is on disk, and again while it lacks what the journal knows; a ``brought`` one may know more."""
        once = partial(look, self.run_dir, self.run_id, ledger, clock, take_diverged=self.take_diverged)
        self.disk = replace(once(), missing=()) if brought else look_patiently(once)
        if not ledger.committed:
            self.own.look()
        return self.disk

    def on_disk(self, ledger: Ledger) -> list[int]:
        """Steps of the checkpoints that can be gone back to, as far as their manifests tell."""
        known = [self.run_dir / path for _, _, path in ledger.committed]
        wanted = wanted_by(ledger, take_diverged=False)
        return [one.step for one in promising(self.run_dir / "checkpoints", self.run_id, known, wanted)]

    def board_is_behind(self, on_disk: int) -> bool:
        """Whether memory has nothing as new as the disk; then the disk is looked at anew."""
        whole = self.memory.common()
        return whole is None or whole.step < on_disk

    def pass_over(self) -> None:
        """The snapshot chosen last cannot be read: choose among the others."""
        assert self._whole is not None
        self.memory.pass_over(self._whole.key)

    def choose(self, ledger: Ledger, world_size: int) -> FromCandidate | Fresh | Refuse:
        """Choose over board and disk.

        Args:
            ledger: of the run.
            world_size: ranks that are to be launched.

        Raises:
            JobError: the newest state belongs to another number of processes, and does not divide among these.
        """
        self._world_size = world_size
        # What ranks keep for themselves bears their old numbers: then only the disk has all of it.
        same = ledger.world_size in (None, world_size)
        self._whole = self.memory.common() if same else None
        if self._whole is not None and (made := self._batch_of(self._whole)) is not None:
            self._whole = self._whole if made.world_size == world_size else None
        candidates = [] if self.disk.newest is None else [self.disk.newest]
        if self._whole is not None:
            candidates.append(Candidate(self._whole.key[0], self._whole.step, "snapshot", ""))
        chosen = choose(
            candidates,
            ever_committed=sum(ledger.counts(lineage, step) for lineage, step, _ in ledger.committed),
            set_aside=self.disk.set_aside,
            unusable=self.disk.unreadable,
            diverged=self.disk.diverged,
        )
        if not isinstance(chosen, FromCandidate):
            return chosen
        size = self.disk.world_size if chosen.candidate.source == "checkpoint" else ledger.world_size
        if size is None or size == world_size:
            return chosen
        batch = self.batch(chosen.candidate)
        if batch is not None and accumulation_for(batch, world_size) is not None:
            return chosen
        parts = "" if batch is None else f", and its steps of {batch.own_micro_batches} micro-batches do not"
        raise JobError(
            f"step {chosen.candidate.step} was reached with {size} processes, {world_size} are to be launched"
            f"{parts and parts + ' divide among them'}",
            f"launch {size} again (`launch.nodes` times `launch.processes_per_node`), or a number that divides them",
        )

    def resized(self, start: Start) -> str | None:
        """What another number of ranks means for a state that was chosen; None if it is the number that made it."""
        size = self.disk.world_size if start.source == "checkpoint" else None
        if size is None or size == self._world_size or self.disk.batch is None:
            return None
        return resized(size, self._world_size, accumulation_for(self.disk.batch, self._world_size))

    def batch(self, candidate: Candidate) -> Batch | None:
        """How a step was made up in a state; None where it does not tell."""
        if candidate.source == "checkpoint" or self._whole is None:
            return self.disk.batch
        return self._batch_of(self._whole)

    def _batch_of(self, whole: Whole) -> Batch | None:
        part = whole.parts[0]
        text = self.memory.reader(part).text(part)
        return Batch.read(json.loads(text)["shared"].get("data")) if text is not None else None

    def start(self, chosen: FromCandidate | Fresh) -> Start:
        """The choice, as an attempt is told of it."""
        if isinstance(chosen, Fresh):
            return Start(checkpoint=self.own.path())
        candidate, batch = chosen.candidate, self.batch(chosen.candidate)
        accumulation = override_for(batch, self._world_size) if batch is not None else None
        if candidate.source == "checkpoint":
            path = Path(candidate.where)
            return Start(candidate.step, "checkpoint", path, self.disk.trained, accumulation=accumulation)
        whole = self._whole
        assert whole is not None
        return Start(
            candidate.step, "snapshot", trained=whole.trained, identity=whole.identity, accumulation=accumulation
        )
