"""From the store to disk: a checkpoint is hashed while it comes, and appears only if every byte is right."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from xxhash import xxh3_128

from supervisor.checkpoint.commit import Committed, commit
from supervisor.checkpoint.flaws import FlawError
from supervisor.checkpoint.manifest import Entry, NewerFormatError
from supervisor.checkpoint.parts import Part
from supervisor.mirror.layout import Commit, Pieces, commit_path, parse_commit, piece_name, pieces_of
from supervisor.mirror.sending import AT_ONCE
from supervisor.mirror.store import Store

#: A piece that is not what its name says is asked for so often: it may have been damaged on the way.
LOOKS = 3


class DamagedError(FlawError):
    """What lies in the store is damaged.

    Attributes:
        pieces: those that are, as far as they are known.
    """

    def __init__(self, reason: str, pieces: frozenset[str] = frozenset()) -> None:
        super().__init__(reason)
        self.pieces = pieces


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Fetches what one run has in the store.

    Attributes:
        store: where from.
        run_id: of the run.
        moved: called when something has come.
    """

    store: Store
    run_id: str
    moved: Callable[[], None] = lambda: None

    def commit_object(self, lineage: int, step: int) -> Commit:
        """What makes a checkpoint exist.

        Raises:
            DamagedError: it is not there, or damaged.
            NewerFormatError: a newer version wrote it.
            StoreError, StoreRefusedError: it could not be asked for.
        """
        got = self.store.get(commit_path(self.run_id, lineage, step))
        if got is None:
            raise DamagedError("its commit object is gone")
        try:
            found = parse_commit(got.data)
        except NewerFormatError:
            raise
        except FlawError as flaw:
            raise DamagedError(f"its commit object: {flaw.reason}") from None
        told = found.manifest
        if (told.run_id, told.lineage, told.step) != (self.run_id, lineage, step):
            raise DamagedError(f"its commit object is that of run {told.run_id}, step {told.step}")
        return found

    def checkpoint(
        self, found: Commit, checkpoints: Path, *, confirm: Callable[[], None], clock: Callable[[], float]
    ) -> Committed:
        """Bring a checkpoint to disk, by the same way as any is committed there.

        Args:
            found: its commit object.
            checkpoints: the directory that holds checkpoints.
            confirm: called right before it appears; raises what it likes if it must not.
            clock: monotonic time [s].

        Raises:
            DamagedError: something of it is missing in the store, or not what was committed; nothing appeared.
            StorageError: the file system refused, or the name is taken.
            StoreError, StoreRefusedError: the store did not give it.
        """
        manifest = found.manifest
        with ThreadPoolExecutor(AT_ONCE) as pool:
            parts = [
                Part(name, entry.bytes, self._content(pool, name, entry, found.pieces[name]))
                for name, entry in manifest.files.items()
            ]
            return commit(
                checkpoints,
                run_id=manifest.run_id,
                lineage=manifest.lineage,
                step=manifest.step,
                world_size=manifest.world_size,
                parts=parts,
                confirm=confirm,
                clock=clock,
                health=manifest.health,
            )

    def file(self, name: str, pieces: Pieces) -> Iterator[bytes]:
        """Another file, piece by piece. Errors are those of `checkpoint`."""
        return (self._piece(name, piece) for piece in pieces)

    def _content(
        self, pool: ThreadPoolExecutor, name: str, entry: Entry, pieces: Pieces
    ) -> Callable[[], Iterator[bytes]]:
        def content() -> Iterator[bytes]:
            hasher = xxh3_128()
            for data in self._ahead(pool, name, pieces):
                hasher.update(data)
                yield data
            if hasher.hexdigest() != entry.xxh3_128:
                raise DamagedError(f"{name}: content changed")

        return content

    def _ahead(self, pool: ThreadPoolExecutor, name: str, pieces: Sequence[str]) -> Iterator[bytes]:
        """The pieces in order, while the next ones are on their way."""
        coming: deque[Future[bytes]] = deque()
        try:
            for piece in pieces:
                coming.append(pool.submit(self._piece, name, piece))
                if len(coming) >= AT_ONCE:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for one in coming:
                one.cancel()

    def _piece(self, name: str, piece: str) -> bytes:
        for _ in range(LOOKS):
            data = self.store.fetch(pieces_of(self.run_id) + piece)
            if data is None:
                raise DamagedError(f"{name}: missing", frozenset((piece,)))
            if piece_name(data) == piece:
                self.moved()
                return data
        raise DamagedError(f"{name}: content changed", frozenset((piece,)))
