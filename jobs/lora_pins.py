"""What the model and the data were when the run began, held against every later attempt.

A run lives for days and over many attempts. In that time a branch of the hub
moves on, somebody replaces a file, a directory is written again: training would
go on, on something else, and nothing would tell. So the first attempt writes
down the commit of what comes from the hub and a fingerprint of what is local,
and later ones refuse what differs.

A hub model or data set is loaded by exactly the pinned commit. As long as the
job file asks for the same name and revision, the hub is not asked again, so a
later attempt needs no network if the files are in the local cache.

What it does *not* see: a change in the middle of a large weight file that keeps
its size and its first and last MiB.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import xxhash

from jobs.lora_args import LoraArgs
from jobs.lora_check import local_path
from supervisor.errors import JobError

log = logging.getLogger(__name__)

Kind = Literal["model", "dataset"]

_EDGE_BYTES = 1 << 20
_LARGE_BYTES = 8 << 20  # of a model: beyond this only size and edges are read, a 70B model is 140 GB
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Pin:
    """What a name stood for.

    Attributes:
        name: as the job file says it.
        asked: branch, tag or commit that the job file asks for.
        revision: the commit, of what comes from the hub.
        files: size and digest of each file, of what is local.
    """

    name: str
    asked: str | None = None
    revision: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)


#: Asks the hub: (kind, name, branch or tag or None) to commit.
Resolve = Callable[[Kind, str, str | None], str]


def hold_pins(args: LoraArgs, run_dir: Path, resolve: Resolve, *, accept_changes: bool) -> dict[str, Pin]:
    """Take the pins of a run in its first attempt, hold them in every other.

    To be called by one process of the run.

    Args:
        args: the job section.
        run_dir: holds `pins.json`.
        resolve: asks the hub.
        accept_changes: pin anew what has changed.

    Returns:
        The pins of `model`, `data`, and `eval_data` and `chat_template` where there are any.

    Raises:
        JobError: something changed; or it is neither here nor on the hub.
    """
    path = run_dir / "pins.json"
    held = read_pins(path)
    asked: list[tuple[str, Kind, str | None, str | None]] = [
        ("model", "model", args.model, args.model_revision),
        ("data", "dataset", args.data, args.data_revision),
        ("eval_data", "dataset", args.eval_data, args.eval_revision),
        ("chat_template", "dataset", args.chat_template, None),
    ]
    found = {
        key: take_pin(kind, name, revision, held.get(key), resolve)
        for key, kind, name, revision in asked
        if name is not None
    }
    for key in sorted(held.keys() & found.keys()):
        if change := difference(held[key], found[key]):
            said = f"args.{key}: {change} since the run began"
            if not accept_changes:
                remedy = "put back what it was, or go on with what it is now: supervisor run --accept-changes"
                raise JobError(said, remedy, str(path))
            log.warning("accepted: %s", said)
    if found != held:
        _write(path, found)
    return found


def take_pin(kind: Kind, name: str, asked: str | None, held: Pin | None, resolve: Resolve) -> Pin:
    """Find out what a name stands for now.

    A hub name that was pinned under the same name and revision is not looked up again.

    Raises:
        JobError: it is neither a path nor on the hub.
    """
    path = local_path(name, Path.cwd())
    if path is not None:
        try:
            return Pin(name, asked, None, fingerprint(path, kind))
        except OSError as error:
            raise JobError(f"{name} cannot be read ({error.strerror or error})", "mend the path") from error
    if held is not None and held.revision and (held.name, held.asked) == (name, asked):
        return held
    return Pin(name, asked, resolve(kind, name, asked))


def difference(held: Pin, found: Pin) -> str | None:
    """Say what changed, or None; a moved directory with the same content has not.

    >>> difference(Pin("a", revision="1" * 40), Pin("a", revision="2" * 40))
    'a was commit 1111111111 and is 2222222222'
    >>> difference(Pin("x", files={"a": "1"}), Pin("y", files={"a": "1"})) is None
    True
    """
    if held.revision or found.revision:
        if bool(held.revision) != bool(found.revision) or held.name != found.name:
            return f"{held.name} has become {found.name}"
        return _other_commit(held, found)
    changed = sorted(held.files.items() ^ found.files.items())
    if not changed:
        return None
    file = changed[0][0]
    if file not in found.files:
        return f"{file} of {found.name} is gone"
    return f"{file} of {found.name} has changed" if file in held.files else f"{file} is new in {found.name}"


def fingerprint(path: Path, kind: Kind) -> dict[str, str]:
    """Size and digest of a file, or of each file of a directory.

    Data is read whole. Of a model, small files are read whole (configuration, tokenizer);
    of large ones the size, the first and the last MiB.

    Raises:
        OSError: something cannot be read.
    """
    if path.is_file():
        return {path.name: _digest(path, None)}
    files = sorted(file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path)))
    large_bytes = _LARGE_BYTES if kind == "model" else None
    return {file.relative_to(path).as_posix(): _digest(file, large_bytes) for file in files if file.suffix != ".md"}


def read_pins(path: Path) -> dict[str, Pin]:
    """Read the pins of a run; none if the run has none yet.

    Raises:
        JobError: the file is there and is no pins file.
    """
    try:
        stored: Any = json.loads(path.read_text())
        return {key: Pin(**pin) for key, pin in stored["pins"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = "restore it, or pin anew what is there now by removing it"
        raise JobError("not a pins file of ours", remedy, str(path)) from error


def ask_hub(kind: Kind, name: str, asked: str | None) -> str:
    """Find the commit that a branch or tag of the hub stands for.

    Without the hub, what the local cache took it for.

    Raises:
        JobError: the hub has no such thing, or cannot be reached and the cache has none either.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = f"{kind} {name}"
    try:
        sha = HfApi().repo_info(name, revision=asked, repo_type=kind, timeout=30.0).sha
        if sha:
            return sha
    except GatedRepoError as error:
        raise JobError(f"the {what} is gated", "accept its terms on the hub and set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise JobError(f"the {what} has no revision {asked}", "name a branch, tag or commit that it has") from error
    except RepositoryNotFoundError as error:
        remedy = "check the name, or set HF_TOKEN if it is private"
        raise JobError(f"{name} is neither a path here nor a {kind} of the hub", remedy) from error
    except Exception:  # noqa: S110 - no network, a proxy's page, an outage: the cache may know
        pass
    try:
        return Path(snapshot_download(name, revision=asked, repo_type=kind, local_files_only=True)).name
    except (LocalEntryNotFoundError, ValueError) as error:
        remedy = "connect this machine, fill the cache on one that is connected, or name a local path"
        raise JobError(f"the hub cannot be reached, and the {what} is not in the local cache", remedy) from error


def _other_commit(held: Pin, found: Pin) -> str | None:
    if held.revision == found.revision:
        return None
    return f"{held.name} was commit {str(held.revision)[:10]} and is {str(found.revision)[:10]}"


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _digest(path: Path, large_bytes: int | None) -> str:
    size = path.stat().st_size
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        if large_bytes is not None and size > large_bytes:
            digest.update(file.read(_EDGE_BYTES))
            file.seek(-_EDGE_BYTES, os.SEEK_END)
        while block := file.read(_EDGE_BYTES):
            digest.update(block)
    return f"{size}-{digest.hexdigest()}"


def _write(path: Path, pins: Mapping[str, Pin]) -> None:
    """Replace the file as a whole, forced to disk: a torn one would stop the run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"v": _VERSION, "pins": {key: asdict(pin) for key, pin in pins.items()}}
    partial = path.with_name(f".partial-{socket.gethostname()}-{path.name}")
    with partial.open("w") as file:
        json.dump(document, file, indent=1, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
