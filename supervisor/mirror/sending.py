"""Files into the store: what is there already is passed over, and the commit object comes last."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from xxhash import xxh3_128

from supervisor.checkpoint.files import OPEN_DIRECTORY, open_file, read_pieces
from supervisor.checkpoint.flaws import FlawError
from supervisor.checkpoint.manifest import MAX_BYTES, Manifest, parse
from supervisor.checkpoint.names import MANIFEST
from supervisor.mirror.layout import PIECE_BYTES, Pieces, commit_path, encode_commit, piece_name, pieces_of
from supervisor.mirror.refusals import ConditionError, NoConditionsError, StoreError
from supervisor.mirror.store import Store

#: So many pieces are on their way at once.
AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Sent:
    """A checkpoint that exists in the store.

    Attributes:
        manifest: of it.
        sent_bytes: what had to be sent of it [B].
    """

    manifest: Manifest
    sent_bytes: int


@dataclass(slots=True)
class Sender:
    """Sends the content of one run.

    Attributes:
        store: where to.
        run_id: of the run.
        doubted: pieces that are there, and are not what their names say.
        moved: called when something has got through.
    """

    store: Store
    run_id: str
    doubted: set[str] = field(default_factory=set)
    moved: Callable[[], None] = lambda: None
    _sent_bytes: int = 0
    _there: set[str] = field(default_factory=set)

    def look(self) -> None:
        """See which pieces are there; to be done after others, or a clean-up, may have changed that.

        Raises:
            StoreError, StoreRefusedError: that cannot be found out.
        """
        place = pieces_of(self.run_id)
        self._there = {path.removeprefix(place) for path in self.store.names(place)} - self.doubted

    def checkpoint(self, directory: Path, before_commit: Callable[[], None]) -> Sent:
        """Send a checkpoint.

        Args:
            directory: where it is. All its files are open at once, so that it may be deleted meanwhile.
            before_commit: called when all but the commit object is there; raises what it likes if that must not be.

        Raises:
            FlawError: it is damaged, or of another run; nothing exists in the store.
            OSError: it could not be read.
            StoreError, StoreRefusedError: the store did not take it.
        """
        self._sent_bytes = 0
        with ExitStack() as opened:
            fd = os.open(directory, OPEN_DIRECTORY)
            opened.callback(os.close, fd)
            sealed, manifest = _manifest(fd)
            if manifest.run_id != self.run_id:
                raise FlawError(f"{directory.name}: of another run")
            fds = {name: open_file(name, fd) for name in manifest.files}
            for one in fds.values():
                opened.callback(os.close, one)
            pool = opened.enter_context(ThreadPoolExecutor(AT_ONCE))
            pieces = {}
            for name, entry in manifest.files.items():
                hasher = xxh3_128()
                pieces[name] = self._send(pool, _hashed(fds[name], entry.bytes, hasher.update))
                if hasher.hexdigest() != entry.xxh3_128:
                    raise FlawError(f"{directory.name}/{name}: content changed")
        self.look()
        lost = {piece for names in pieces.values() for piece in names} - self._there
        if lost:
            raise StoreError(f"{len(lost)} pieces of {directory.name} are gone again", "they are sent anew")
        before_commit()
        self._commit(manifest, encode_commit(sealed, pieces))
        return Sent(manifest, self._sent_bytes)

    def files(self, contents: Mapping[str, bytes | Path]) -> dict[str, Pieces]:
        """Send other files, whose pieces some other object will name. Errors are those of `checkpoint`."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return {name: self._send(pool, _cut(content)) for name, content in contents.items()}

    def _commit(self, manifest: Manifest, data: bytes) -> None:
        try:
            self.store.create(commit_path(self.run_id, manifest.lineage, manifest.step), data)
        except ConditionError:
            pass  # the same step of the same lineage, sent by another stay: what is committed is never rewritten
        except NoConditionsError:
            self.store.put(commit_path(self.run_id, manifest.lineage, manifest.step), data)
        self.moved()

    def _send(self, pool: ThreadPoolExecutor, pieces: Iterable[bytes]) -> Pieces:
        """Names of the pieces of one file, all of which are there."""
        names: list[str] = []
        under_way: deque[Future[None]] = deque()
        try:
            for piece in pieces:
                name = piece_name(piece)
                names.append(name)
                if name in self._there:
                    self.moved()
                    continue
                self._there.add(name)
                if len(under_way) >= AT_ONCE:
                    under_way.popleft().result()
                under_way.append(pool.submit(self._put, name, piece))
            while under_way:
                under_way.popleft().result()
        except BaseException:
            for one in under_way:
                one.cancel()
            raise
        return tuple(names)

    def _put(self, name: str, piece: bytes) -> None:
        self.store.put(pieces_of(self.run_id) + name, piece)
        self.doubted.discard(name)
        self._sent_bytes += len(piece)
        self.moved()


def _manifest(directory_fd: int) -> tuple[bytes, Manifest]:
    fd = open_file(MANIFEST, directory_fd)
    try:
        sealed = b"".join(bytes(piece) for piece in read_pieces(fd, 0, MAX_BYTES + 1))
    finally:
        os.close(fd)
    return sealed, parse(sealed)


def _hashed(fd: int, size: int, update: Callable[[bytes], None]) -> Iterator[bytes]:
    for piece in read_pieces(fd, 0, size, PIECE_BYTES):
        data = bytes(piece)
        update(data)
        yield data


def _cut(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield from (content[at : at + PIECE_BYTES] for at in range(0, len(content), PIECE_BYTES))
        return
    with content.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
