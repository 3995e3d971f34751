"""Which objects a mirror is made of, and what is in them.

    <prefix>/<name>/lease.json                        who owns it
    <prefix>/<name>/head.json                         which run this is, and its journal
    <prefix>/<name>/<run id>/commits/<lineage>-<step>.json
    <prefix>/<name>/<run id>/pieces/<xxh3-128>-<bytes>
    <prefix>/<name>/<run id>/torn/…                   commit objects that turned out to be damaged

A file is cut into pieces, and a piece is one request: so none is ever half there, what was sent before a
crash is not sent again, and what checkpoints have in common lies there once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xxhash import xxh3_128_hexdigest

from supervisor.checkpoint.flaws import FlawError
from supervisor.checkpoint.manifest import Manifest, NewerFormatError, parse, seal, unseal
from supervisor.checkpoint.names import is_plain

FORMAT = 1
#: Four are on their way at once, and each is in memory [B].
PIECE_BYTES = 16 * 2**20

LEASE = "lease.json"
HEAD = "head.json"

_PIECE = re.compile(r"[0-9a-f]{32}-(0|[1-9][0-9]{0,11})")
_COMMIT = re.compile(r"(0|[1-9][0-9]{0,17})-(0|[1-9][0-9]{0,17})\.json")
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

#: Names of pieces, in order.
Pieces = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Commit:
    """What makes a checkpoint exist.

    Attributes:
        manifest: of the checkpoint, as it was sealed on disk.
        pieces: of each file.
    """

    manifest: Manifest
    pieces: Mapping[str, Pieces]

    @property
    def all_pieces(self) -> frozenset[str]:
        """Every piece that it needs."""
        return frozenset(name for names in self.pieces.values() for name in names)


@dataclass(frozen=True, slots=True)
class Head:
    """Which run this is.

    Attributes:
        run_id: of the run.
        committed: whether there has ever been a checkpoint of it here.
        files: pieces of what else a new machine needs, by path in the run directory.
        kept: checkpoints that stay although newer ones came, as (lineage, step).
    """

    run_id: str
    committed: bool
    files: Mapping[str, Pieces] = field(default_factory=dict)
    kept: frozenset[tuple[int, int]] = frozenset()

    @property
    def all_pieces(self) -> frozenset[str]:
        """Every piece that it needs."""
        return frozenset(name for names in self.files.values() for name in names)


def piece_name(data: bytes | memoryview) -> str:
    """Under which name a piece lies.

    >>> piece_name(b"")
    '99aa06d3014798d86001c324468d497f-0'
    """
    return f"{xxh3_128_hexdigest(data)}-{memoryview(data).nbytes}"


def piece_bytes(name: str) -> int:
    """Size of a piece, by its name [B]."""
    return int(name.partition("-")[2])


def commits_of(run_id: str) -> str:
    """Where a run's commit objects are."""
    return f"{run_id}/commits/"


def pieces_of(run_id: str) -> str:
    """Where a run's pieces are."""
    return f"{run_id}/pieces/"


def commit_path(run_id: str, lineage: int, step: int) -> str:
    """Where a commit object is.

    >>> commit_path("r1", 0, 20)
    'r1/commits/0-20.json'
    """
    return f"{commits_of(run_id)}{lineage}-{step}.json"


def torn_path(run_id: str, lineage: int, step: int) -> str:
    """Where a commit object is whose pieces turned out to be damaged."""
    return f"{run_id}/torn/{lineage}-{step}.json"


def commit_at(path: str) -> tuple[int, int] | None:
    """Lineage and step of a commit object; None for a name that is none.

    >>> commit_at("r1/commits/0-20.json"), commit_at("r1/commits/0-020.json")
    ((0, 20), None)
    """
    match = _COMMIT.fullmatch(path.rpartition("/")[2])
    return (int(match[1]), int(match[2])) if match else None


def encode_commit(manifest: bytes, pieces: Mapping[str, Pieces]) -> bytes:
    """A commit object.

    Args:
        manifest: as it stands on disk.
        pieces: of each file.
    """
    listed = {name: list(names) for name, names in sorted(pieces.items())}
    return seal({"format": FORMAT, "manifest": manifest.decode(), "pieces": listed})


def parse_commit(data: bytes) -> Commit:
    """Read what `encode_commit` gave.

    Raises:
        FlawError: it is damaged or none, and why; nothing else is ever raised.
        NewerFormatError: one of them, of what a newer version wrote.
    """
    document = _document(data)
    text = document.get("manifest")
    if not isinstance(text, str):
        raise FlawError("manifest: not text")
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise FlawError("manifest: not text") from None
    manifest = parse(raw)
    pieces = _pieces(document.get("pieces"))
    if pieces.keys() != manifest.files.keys():
        raise FlawError("pieces: not of the files of the manifest")
    for name, entry in manifest.files.items():
        if sum(map(piece_bytes, pieces[name])) != entry.bytes:
            raise FlawError(f"{name}: its pieces are not as long as it is")
    return Commit(manifest, pieces)


def encode_head(head: Head) -> bytes:
    """A head object.

    >>> head = Head("r1", True, {"journal.jsonl": (piece_name(b"{}"),)})
    >>> parse_head(encode_head(head)) == head
    True
    """
    listed = {name: list(names) for name, names in sorted(head.files.items())}
    kept = [list(one) for one in sorted(head.kept)]
    return seal({"format": FORMAT, "run_id": head.run_id, "committed": head.committed, "kept": kept, "files": listed})


def parse_head(data: bytes) -> Head:
    """Read what `encode_head` gave.

    Raises:
        FlawError: it is damaged or none, and why; nothing else is ever raised.
        NewerFormatError: one of them, of what a newer version wrote.
    """
    document = _document(data)
    run_id, committed = document.get("run_id"), document.get("committed")
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
        raise FlawError("run_id: not a name")
    if not isinstance(committed, bool):
        raise FlawError("committed: neither true nor false")
    files = _pieces(document.get("files"))
    if not all(is_plain(part) for name in files for part in name.split("/")):
        raise FlawError("files: a path that leaves the run directory")
    kept = document.get("kept")
    if not isinstance(kept, list) or not all(_is_pair(one) for one in kept):
        raise FlawError("kept: not pairs of whole numbers")
    return Head(run_id, committed, files, frozenset((one[0], one[1]) for one in kept))


def _document(data: bytes) -> dict[str, Any]:
    document = unseal(data)
    version = document.get("format")
    if type(version) is not int or version < 1:
        raise FlawError("format: not a whole number")
    if version > FORMAT:
        raise NewerFormatError(f"format {version}, written by a newer version; this one knows {FORMAT}")
    return document


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(n) is int and n >= 0 for n in value)


def _pieces(listed: Any) -> dict[str, Pieces]:
    if not isinstance(listed, dict):
        raise FlawError("files or pieces: not an object")
    return {name: _names(name, names) for name, names in listed.items()}


def _names(file: str, names: Any) -> Pieces:
    if not isinstance(names, list) or not all(isinstance(n, str) and _PIECE.fullmatch(n) for n in names):
        raise FlawError(f"{file[:80]}: no pieces")
    return tuple(names)
