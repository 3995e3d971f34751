"""The manifest: what a checkpoint consists of, written last and believed only when sealed.

It is JSON for people and tools, and its first key is the seal, the xxh3-128 of
every byte after it: a flipped bit in the lineage would else pass as another
lineage. Every later format keeps this first key, so that "damaged" and
"newer than we are" can be told apart.

The seal shows damage, not forgery: whoever can write the directory can seal.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xxhash import xxh3_128_hexdigest

from supervisor.checkpoint.flaws import FlawError, load_json
from supervisor.checkpoint.names import MANIFEST, is_plain

FORMAT = 1

#: 100,000 files take about 10 MiB; what is larger is not a manifest.
MAX_BYTES = 16 * 2**20

_SEAL_OPENS = b'{"seal": "'
_BODY_AT = len(_SEAL_OPENS) + 32
_DIGEST = re.compile(r"[0-9a-f]{32}")
_MAX_INT = 2**63 - 1
_MAX_FLOAT = sys.float_info.max


class ManifestError(FlawError):
    """These bytes are not a manifest."""


class NewerFormatError(ManifestError):
    """A whole manifest in a format that this version does not know: not ours to judge."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: its size and the hexadecimal xxh3-128 of its content."""

    bytes: int
    xxh3_128: str


@dataclass(frozen=True, slots=True)
class Health:
    """How training was when the state was taken.

    Attributes:
        loss: of the last step; None where it is not known, or was no finite number.
        grad_norm: of the last step, likewise.
        diverged: whether training had gone wrong by then; such a state is not resumed from, unless that is wanted.
    """

    loss: float | None = None
    grad_norm: float | None = None
    diverged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What was committed.

    Attributes:
        run_id: the run that it belongs to.
        lineage: grows when the run goes back behind a checkpoint.
        step: optimizer steps done.
        world_size: ranks that took part.
        files: each file by its name, without the manifest itself.
        health: how training was.
    """

    run_id: str
    lineage: int
    step: int
    world_size: int
    files: Mapping[str, Entry]
    health: Health = field(default_factory=Health)

    @property
    def total_bytes(self) -> int:
        """Size of all files [B], without the manifest itself."""
        return sum(entry.bytes for entry in self.files.values())


def encode(manifest: Manifest) -> bytes:
    """The manifest as it stands on disk, sealed.

    >>> empty = Manifest(run_id="r", lineage=0, step=20, world_size=1, files={})
    >>> parse(encode(empty)) == empty
    True
    """
    document = {
        "format": FORMAT,
        "run_id": manifest.run_id,
        "lineage": manifest.lineage,
        "step": manifest.step,
        "world_size": manifest.world_size,
        "loss": manifest.health.loss,
        "grad_norm": manifest.health.grad_norm,
        "diverged": manifest.health.diverged,
        "files": {
            name: {"bytes": entry.bytes, "xxh3_128": entry.xxh3_128} for name, entry in sorted(manifest.files.items())
        },
    }
    return seal(document)


def seal(document: Mapping[str, Any]) -> bytes:
    """Any JSON object, with the seal as its first key."""
    body = f'",{json.dumps(document, indent=1)[1:]}\n'.encode()
    return _SEAL_OPENS + xxh3_128_hexdigest(body).encode() + body


def unseal(data: bytes) -> dict[str, Any]:
    """The JSON object that `seal` was given.

    Raises:
        ManifestError: it is damaged or none, and why; nothing else is ever raised.

    >>> unseal(seal({"step": 20}))["step"]
    20
    """
    if len(data) > MAX_BYTES:
        raise ManifestError(f"larger than {MAX_BYTES} bytes")
    try:
        document = load_json(data)
    except FlawError as flaw:
        raise ManifestError(flaw.reason) from None
    if not isinstance(document, dict):
        raise ManifestError("not a JSON object")
    if not data.startswith(_SEAL_OPENS):
        raise ManifestError("no seal")
    if data[len(_SEAL_OPENS) : _BODY_AT] != xxh3_128_hexdigest(data[_BODY_AT:]).encode():
        raise ManifestError("content changed")
    return document


def parse(data: bytes) -> Manifest:
    """Read what `encode` wrote; keys that this version does not know are passed over.

    Raises:
        ManifestError: it is damaged or none, and why; nothing else is ever raised.
        NewerFormatError: it is whole, and newer than this version.
    """
    document = unseal(data)
    version = _integer(document, "format", least=1)
    if version > FORMAT:
        raise NewerFormatError(f"format {version}, written by a newer version; this one knows {FORMAT}")
    return Manifest(
        run_id=_run_id(document),
        lineage=_integer(document, "lineage", least=0),
        step=_integer(document, "step", least=0),
        world_size=_integer(document, "world_size", least=1),
        files=_files(document),
        health=_health(document),
    )


def _health(document: dict[str, Any]) -> Health:
    diverged = document.get("diverged", False)  # releases before this key knew nothing of it
    if not isinstance(diverged, bool):
        raise ManifestError("diverged: neither true nor false")
    return Health(_number(document, "loss"), _number(document, "grad_norm"), diverged)


def _number(holder: dict[str, Any], key: str) -> float | None:
    value = holder.get(key)
    if value is None:
        return None
    if type(value) not in (int, float) or not abs(value) <= _MAX_FLOAT:
        raise ManifestError(f"{key}: not a finite number")
    return float(value)


def _integer(holder: dict[str, Any], key: str, *, least: int) -> int:
    value = holder.get(key)
    if type(value) is not int or not least <= value <= _MAX_INT:  # a bool is an int, and not meant
        raise ManifestError(f"{key}: not a whole number of at least {least}")
    return value


def _run_id(document: dict[str, Any]) -> str:
    value = document.get("run_id")
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ManifestError("run_id: not a name")
    return value


def _files(document: dict[str, Any]) -> dict[str, Entry]:
    listed = document.get("files")
    if not isinstance(listed, dict):
        raise ManifestError("files: not an object")
    return {name: _entry(name, entry) for name, entry in listed.items()}


def _entry(name: str, entry: Any) -> Entry:
    if not is_plain(name) or name == MANIFEST:
        raise ManifestError(f"files: {name[:80]!r} is no file name of ours")
    if not isinstance(entry, dict):
        raise ManifestError(f"files: {name}: not an object")
    digest = entry.get("xxh3_128")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ManifestError(f"files: {name}: no xxh3-128")
    try:
        return Entry(bytes=_integer(entry, "bytes", least=0), xxh3_128=digest)
    except ManifestError as flaw:
        raise ManifestError(f"files: {name}: {flaw.reason}") from None
