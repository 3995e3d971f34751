"""The copy of one run: what of it is in the store, what a new machine needs first, what is to be sent and deleted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.checkpoint.commit import Committed
from supervisor.checkpoint.final import FINAL
from supervisor.checkpoint.flaws import FlawError
from supervisor.checkpoint.manifest import Manifest
from supervisor.checkpoint.verify import Intact, read_manifest
from supervisor.lease import still_held_by
from supervisor.mirror.cleaning import At, Cleaner
from supervisor.mirror.fetching import DamagedError, Fetcher
from supervisor.mirror.holding import Held, Wait, hold
from supervisor.mirror.layout import HEAD, LEASE, Commit, Head, encode_head, parse_head, pieces_of
from supervisor.mirror.messages import Settings
from supervisor.mirror.refusals import ConditionError, NoConditionsError, StoreOwnedError, StoreRefusedError
from supervisor.mirror.sending import Sender, Sent
from supervisor.mirror.store import Store
from supervisor.mirror.unfinished import sweep
from supervisor.policy.lineage import counts

JOURNAL = "journal.jsonl"
#: What a new machine needs before anything else; pins are what the first start found under the names of its inputs.
ESSENCE = (JOURNAL, "job.yaml", "pins.json")


@dataclass(slots=True)
class Copy:
    """What is done with a store, one thing after the other.

    Attributes:
        settings: of the stay.
        wait: how to let seconds pass.
        moved: called when something has got through.
        held: the lease; None before `open`.
        run_id: of the run that is mirrored there; None for none.
        committed: whether there has ever been a checkpoint of it.
        restored: what was brought into the run directory.
        behind: each time the run went back, the lineage that began then and the step, as in the ledger.
        adopted: whether the run has begun, so that it may be sent.
    """

    settings: Settings
    wait: Wait
    moved: Callable[[], None]
    held: Held | None = None
    run_id: str | None = None
    committed: bool = False
    restored: tuple[str, ...] = ()
    behind: tuple[At, ...] = ()
    adopted: bool = False
    _store: Store = field(init=False)
    _head: Head | None = None
    _head_tag: str | None = None
    _saved: dict[str, tuple[int, int]] | None = None  # what of the run directory the head in the store has
    _inherited: frozenset[At] = frozenset()
    _commits: dict[At, Commit] = field(default_factory=dict)
    _sender: Sender = field(init=False)
    _cleaner: Cleaner = field(init=False)

    def __post_init__(self) -> None:
        self._store = Store(self.settings.url)

    @property
    def _run_dir(self) -> Path:
        return Path(self.settings.run_dir)

    # -- at the start

    def reach(self) -> None:
        """Make sure that the store answers, and lets us read.

        Raises:
            StoreError, StoreRefusedError: it does not.
        """
        self._store.names(LEASE)

    def open(self) -> None:
        """Take hold of it, see what is there, and bring the journal to a machine that has none.

        Raises:
            OwnedError: a living owner has it.
            StoreRefusedError: it holds another run.
            FlawError: its head is damaged.
            StoreError, DiskError: it cannot be done now.
        """
        settings = self.settings
        self.held = hold(self._store, settings.owner, wait=self.wait, over=settings.over)
        got = self._store.get(HEAD)
        if got is None:
            return
        self._head_tag = got.tag
        try:
            self._head = parse_head(got.data)
        except FlawError:
            if settings.fresh:
                return  # it is written anew
            raise
        self._begin(self._head.run_id)
        self._commits = self._cleaner.commits()
        self.committed = self._head.committed or bool(self._commits)
        if not self.committed or (settings.fresh and settings.run_id != self._head.run_id):
            return
        self.run_id = self._head.run_id
        if settings.run_id not in (None, self.run_id):
            raise StoreRefusedError(
                f"{settings.url} holds run {self.run_id}, and {settings.run_dir} holds run {settings.run_id}",
                "give the job another `name` or another `checkpoint.mirror`, or begin anew with --fresh",
            )
        self._restore(self._head)
        self._inherited = self._head.kept - self._on_disk().keys()

    def told(self) -> list[tuple[int, int, bool]]:
        """Every checkpoint that is there: lineage, step, and whether training had gone wrong by then."""
        if self.run_id is None:
            return []
        return [(*at, one.manifest.health.diverged) for at, one in sorted(self._commits.items())]

    def adopt(self, run_id: str) -> None:
        """The run has begun here, under this name."""
        if self._head is None or self._head.run_id != run_id:
            self._head, self._inherited, self.committed = Head(run_id, committed=False), frozenset(), False
        if not self.adopted or self.run_id != run_id:
            self._begin(run_id)
        self.run_id, self.adopted = run_id, True

    def _begin(self, run_id: str) -> None:
        self._sender = Sender(self._store, run_id, moved=self.moved)
        self._cleaner = Cleaner(self._store, run_id, self._counts)

    def _counts(self, lineage: int, step: int) -> bool:
        return counts(self.behind, lineage, step)

    def _restore(self, head: Head) -> None:
        """Bring what a new machine needs; a journal that the mirror's goes beyond is set aside."""
        fetcher = Fetcher(self._store, head.run_id, self.moved)
        journal = b"".join(fetcher.file(JOURNAL, head.files.get(JOURNAL, ())))
        ours = self._read(JOURNAL)
        if ours is not None and self.settings.run_id is not None and ours.startswith(journal):
            return  # nothing happened to the run elsewhere
        if self.settings.late:
            raise StoreOwnedError(f"the run mirrored at {self.settings.url} has gone on elsewhere", "start it again")
        still_held_by(self._run_dir, self.settings.epoch, self.settings.owner.token)
        if ours:
            (self._run_dir / JOURNAL).replace(self._run_dir / f"{JOURNAL}.before-{time.time_ns()}")
        wanted = [name for name in head.files if name in ESSENCE[1:] or name.startswith(f"{FINAL}/")]
        for name in (*wanted, JOURNAL):  # it comes last: with it, all is there
            _put(self._run_dir / name, [journal] if name == JOURNAL else fetcher.file(name, head.files[name]))
        self.restored = (*wanted, JOURNAL)

    def fetch(self, lineage: int, step: int) -> Committed:
        """Bring a checkpoint to disk; one that is damaged exists no more afterwards.

        Raises:
            FlawError: it is damaged, and set aside.
            SupervisorError, OSError: it could not be brought.
        """
        assert self.run_id is not None
        fetcher = Fetcher(self._store, self.run_id, self.moved)
        epoch, token = self.settings.epoch, self.settings.owner.token
        try:
            return fetcher.checkpoint(
                fetcher.commit_object(lineage, step),
                self._run_dir / "checkpoints",
                confirm=lambda: still_held_by(self._run_dir, epoch, token),
                clock=time.monotonic,
            )
        except DamagedError as flaw:
            self._sender.doubted |= flaw.pieces
            self._cleaner.set_aside(lineage, step)
            # Else a checkpoint with the same content, once it is made again, would be thought to be there.
            self._store.delete(pieces_of(self.run_id) + piece for piece in flaw.pieces)
            raise

    # -- while it goes on

    def missing(self, given_up: set[str]) -> list[Path]:
        """Checkpoints that are on disk and not in the store, newest first.

        Raises:
            StoreError, StoreRefusedError: what is in the store cannot be found out.
        """
        self._commits = self._cleaner.commits()
        on_disk = self._on_disk()
        gone = {at for at in on_disk if at in self._commits or not self._counts(*at)}
        left = sorted(on_disk.keys() - gone, reverse=True)
        return [on_disk[at] for at in left if on_disk[at].name not in given_up]

    def is_newest(self, directory: Path) -> bool:
        """Whether nothing on disk or in the store is newer."""
        on_disk = self._on_disk()
        newest = max((at for at in {*on_disk, *self._commits} if self._counts(*at)), default=None)
        return newest is not None and on_disk.get(newest) == directory

    def send(self, directory: Path) -> Sent:
        """Send a checkpoint. Errors are those of `Sender.checkpoint`, and of the lease."""
        self._sender.look()
        sent = self._sender.checkpoint(directory, self._before_commit)
        self._commits[sent.manifest.lineage, sent.manifest.step] = Commit(sent.manifest, {})
        if self._head is not None and not self._head.committed:
            self.committed = True
            self.save(force=True)
        return sent

    def _before_commit(self) -> None:
        self.save(force=True)
        assert self.held is not None
        self.held.still_held()

    @property
    def unsaved(self) -> bool:
        """Whether the store does not even know which run this is."""
        return self.adopted and self._saved is None

    def save(self, *, force: bool = False) -> None:
        """Save the journal, and what else a new machine needs, if it has changed since.

        Raises:
            OwnedError: the mirror is somebody else's by now.
            StoreError, StoreRefusedError: the store did not take it.
        """
        head = self._head
        if head is None or not (force or self.committed):
            return
        paths = {name: self._run_dir / name for name in (*ESSENCE, *self._final())}
        stamps = {name: stamp for name, path in paths.items() if (stamp := _stamp(path)) is not None}
        kept = self._inherited | frozenset(sorted(self._on_disk())[: -self.settings.keep_last])
        if stamps == self._saved and (head.committed, head.kept) == (self.committed, kept):
            return
        contents: dict[str, bytes | Path] = {name: paths[name] for name in stamps if name != JOURNAL}
        if (journal := self._read(JOURNAL)) is not None:
            contents[JOURNAL] = journal[: journal.rfind(b"\n") + 1]  # a line may be on its way
        self._sender.look()
        new = Head(head.run_id, self.committed, self._sender.files(contents), kept)
        data = encode_head(new)
        try:
            tag = self._head_tag
            self._head_tag = self._store.create(HEAD, data) if tag is None else self._store.replace(HEAD, data, tag)
        except ConditionError as error:
            raise StoreOwnedError(f"{self.settings.url} was written by somebody else", "let one of them go") from error
        except NoConditionsError:
            assert self.held is not None
            self.held.still_held()
            self._store.put(HEAD, data)
        self._head, self._saved = new, stamps

    def clean(self) -> None:
        """Delete what is not needed any more. Errors are those of `Cleaner.clean`."""
        if self._head is None or self.held is None:
            return
        self.held.still_held()
        sweep(self.settings.url)
        self._cleaner.clean(self._head, last=self.settings.keep_last, on_disk=self._on_disk().keys())

    def _on_disk(self) -> dict[At, Path]:
        """Checkpoints of this run in the run directory."""
        found: dict[At, Path] = {}
        for path in (self._run_dir / "checkpoints").glob("checkpoint-*"):
            verdict = read_manifest(path, self.run_id)
            if isinstance(verdict, Intact):
                manifest: Manifest = verdict.manifest
                found[manifest.lineage, manifest.step] = path
        return found

    def _final(self) -> list[str]:
        return sorted(f"{FINAL}/{path.name}" for path in (self._run_dir / FINAL).glob("[!.]*") if path.is_file())

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._run_dir / name).read_bytes()
        except FileNotFoundError:
            return None


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        seen = path.stat()
    except FileNotFoundError:
        return None
    return seen.st_size, seen.st_mtime_ns


def _put(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
