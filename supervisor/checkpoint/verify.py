"""Whether a checkpoint can be believed.

Rule 1: torn means that bytes were read and are wrong, or that a name is not
there. What could not be read (EIO, ESTALE, EACCES …) is unknown, not torn.
Rule 2: nothing is parsed before its digest matches, so damage cannot reach a parser.

What it does not protect against: somebody who rewrites a file and the manifest
to match. A digest shows damage, not intent.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from xxhash import xxh3_128

from supervisor.checkpoint.contents import OPTIMIZER, STATE, TRAINER_STATE, check_file, missing_part
from supervisor.checkpoint.files import OPEN_DIRECTORY, open_file, read_pieces, read_start
from supervisor.checkpoint.flaws import FlawError
from supervisor.checkpoint.manifest import MAX_BYTES, Entry, Manifest, NewerFormatError, parse
from supervisor.checkpoint.names import MANIFEST, step_of
from supervisor.policy.storage import GONE

#: What the stock Trainer writes and we never do.
_STOCK = ("optimizer.pt", "optimizer.bin", "scheduler.pt", "training_args.bin", "rng_state.pth", "rng_state_0.pth")


@dataclass(frozen=True, slots=True)
class Intact:
    """Every file is there, as it was committed, and nothing that a resume needs is missing.

    Attributes:
        manifest: what was committed.
        bytes: size of all files [B].
    """

    manifest: Manifest
    bytes: int


@dataclass(frozen=True, slots=True)
class Torn:
    """A checkpoint of ours whose bytes are wrong; ``reason`` names the first such thing."""

    reason: str


@dataclass(frozen=True, slots=True)
class Foreign:
    """No checkpoint of this run: a stock Trainer's, another run's, or something else."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Nobody knows: it could not be read, or a newer version wrote it. Never move or delete it.

    Attributes:
        reason: why.
        passing: whether another look may tell, a moment later.
    """

    reason: str
    passing: bool = field(default=False, repr=False, compare=False)


Verdict = Intact | Torn | Foreign | Unreadable


def verify(directory: Path, run_id: str | None) -> Verdict:
    """Judge a checkpoint by reading all of it.

    Args:
        directory: the checkpoint. Where it is named `checkpoint-<step>`, the step
            has to be the committed one.
        run_id: the run that it has to belong to; None for any.
    """
    return _judge(directory, run_id, read_all=True)


def read_manifest(directory: Path, run_id: str | None) -> Verdict:
    """Judge a checkpoint by its manifest alone; `Intact` means no more than "not refuted"."""
    return _judge(directory, run_id, read_all=False)


def _judge(directory: Path, run_id: str | None, *, read_all: bool) -> Verdict:
    try:
        fd = os.open(directory, OPEN_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        return _unopened(error)
    try:
        verdict = _judge_open(directory.name, fd, run_id, read_all)
        if isinstance(verdict, Torn) and not _stands(directory, fd):
            return Unreadable("moved or deleted while it was being read", passing=True)
        return verdict
    finally:
        os.close(fd)


def _judge_open(name: str, fd: int, run_id: str | None, read_all: bool) -> Verdict:
    try:
        manifest = _manifest(fd)
        if manifest is None:
            return _without_manifest(set(os.listdir(fd)))
        if run_id is not None and manifest.run_id != run_id:
            return Foreign(f"of another run ({manifest.run_id[:80]})")
        _check_listing(name, manifest)
        if read_all:
            _check_files(fd, manifest)
    except NewerFormatError as newer:
        return Unreadable(f"{MANIFEST}: {newer.reason}")
    except FlawError as flaw:
        return Torn(flaw.reason)
    except OSError as error:
        return Unreadable(_said(error), passing=error.errno in GONE)
    return Intact(manifest, manifest.total_bytes)


def _manifest(fd: int) -> Manifest | None:
    """The manifest; None if there is no such name."""
    try:
        size = _regular_size(MANIFEST, fd)
    except FileNotFoundError:
        return None
    with _Opened(MANIFEST, fd) as file:
        data = read_start(file, min(size, MAX_BYTES + 1))
    try:
        return parse(data)
    except NewerFormatError:
        raise
    except FlawError as flaw:
        raise FlawError(f"{MANIFEST}: {flaw.reason}") from None


def _check_listing(name: str, manifest: Manifest) -> None:
    step = step_of(name)
    if step is not None and step != manifest.step:
        raise FlawError(f"named {name}, but committed as step {manifest.step}")
    missing = missing_part(manifest.files)
    if missing is not None:
        raise FlawError(f"{missing}: not listed; a resume needs it")


def _check_files(fd: int, manifest: Manifest) -> None:
    """Sizes of all first, since they cost nothing; then what is in them."""
    for name, entry in manifest.files.items():
        try:
            size = _regular_size(name, fd)
        except FileNotFoundError:
            raise FlawError(f"{name}: missing") from None
        if size != entry.bytes:
            raise FlawError(f"{name}: {size} bytes, {entry.bytes} committed")
    for name, entry in manifest.files.items():
        _check_content(name, fd, entry, manifest)


def _check_content(name: str, directory_fd: int, entry: Entry, manifest: Manifest) -> None:
    with _Opened(name, directory_fd) as fd:
        hasher = xxh3_128()
        for piece in read_pieces(fd, 0, entry.bytes):
            hasher.update(piece)
        if hasher.hexdigest() != entry.xxh3_128:
            raise FlawError(f"{name}: content changed")
        try:
            check_file(name, fd, entry.bytes, step=manifest.step, world_size=manifest.world_size)
        except FlawError as flaw:
            raise FlawError(f"{name}: {flaw.reason}") from None


class _Opened:
    """A file of the directory, open; errors carry its name."""

    def __init__(self, name: str, directory_fd: int) -> None:
        self._name, self._directory_fd = name, directory_fd

    def __enter__(self) -> int:
        self._fd = open_file(self._name, self._directory_fd)
        return self._fd

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        os.close(self._fd)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = self._name  # read(2) does not know which file it was


def _regular_size(name: str, directory_fd: int) -> int:
    status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    if stat.S_ISREG(status.st_mode):
        return status.st_size
    kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a directory"}
    raise FlawError(f"{name}: {kinds.get(stat.S_IFMT(status.st_mode), 'a special file')}, not a file")


def _unopened(error: OSError) -> Verdict:
    if isinstance(error, FileNotFoundError):
        return Torn("missing")
    if error.errno in {errno.ELOOP, errno.ENOTDIR}:
        return Foreign("not a directory of its own")
    return Unreadable(_said(error), passing=error.errno in GONE)


def _without_manifest(names: set[str]) -> Verdict:
    if names & {STATE, OPTIMIZER}:  # nobody else writes these
        return Torn("no manifest")
    if not names:
        return Foreign("empty")
    if TRAINER_STATE in names or names & set(_STOCK):
        return Foreign("a checkpoint of the stock Trainer")
    return Foreign("no checkpoint")


def _stands(directory: Path, fd: int) -> bool:
    """Whether the name still stands for the directory that was opened."""
    try:
        return os.path.samestat(directory.lstat(), os.fstat(fd))
    except OSError:
        return False


def _said(error: OSError) -> str:
    said = os.strerror(error.errno).lower() if error.errno is not None else str(error)
    return f"{error.filename}: {said}" if isinstance(error.filename, str) else said
