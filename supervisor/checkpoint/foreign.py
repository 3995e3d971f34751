"""Checkpoints that are not ours, judged as far as they can be while nothing of them is loaded.

They have no manifest, so what can be seen is whether each file makes sense: that it is not empty, that a
zip archive (`torch.save`) has its directory and its checksums, that a safetensors header fits its file, that
JSON is JSON, that the shards which an index names are there.

What it does not protect against: other bytes of the same size in a tensor of a safetensors file or of a
plain pickle; a file that was never there and that nothing names.
"""

from __future__ import annotations

import errno
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from supervisor.checkpoint.files import OPEN_DIRECTORY, open_file, read_start
from supervisor.checkpoint.flaws import FlawError, check_json_object, load_json
from supervisor.checkpoint.tensors import LENGTH_BYTES, check_header, header_bytes

#: What torch writes: a zip archive, or a pickle of the time before.
TORCH = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".tar")
SAFETENSORS = ".safetensors"
INDEX = ".index.json"
_NEVER_EMPTY = (*TORCH, SAFETENSORS, ".json", ".npz", ".distcp")
#: What only one writer writes, and what it writes after that; without it the save did not end.
_LAST = {"training_args.bin": "trainer_state.json", "optimizer.bin": "random_states_0.pkl"}
_PIECE_BYTES = 1 << 20
_MOST_FILES = 10_000
_MOST_JSON_BYTES = 64 << 20
_DEPTH = 3
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def files_of(directory: Path) -> dict[str, int]:
    """The files below a directory by their relative names, with their sizes [B]; links are not followed.

    Raises:
        FlawError: there are too many of them for a checkpoint.
        OSError: it could not be read.
    """
    found: dict[str, int] = {}
    for name, size in _walk(directory, "", _DEPTH):
        found[name] = size
        if len(found) > _MOST_FILES:
            raise FlawError(f"more than {_MOST_FILES} files")
    return found


def _walk(directory: Path, prefix: str, depth: int) -> Iterator[tuple[str, int]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                yield prefix + entry.name, status.st_size
            elif stat.S_ISDIR(status.st_mode) and depth:
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", depth - 1)


def check_directory(directory: Path, late: Callable[[], bool] = lambda: False) -> None:
    """Make sure that nothing in a directory is visibly damaged or missing.

    Args:
        directory: the checkpoint.
        late: asked now and then whether time is up: then what is left is not read through any more.

    Raises:
        FlawError: something is, and what.
        OSError: it could not be read.
    """
    files = files_of(directory)
    if not files:
        raise FlawError("empty")
    for mark, last in _LAST.items():
        if mark in files and last not in files:
            raise FlawError(f"{last}: missing; the save did not end")
    for name in files:
        beside = f"{name.rpartition('/')[0]}/.metadata".removeprefix("/")
        if name.endswith(".distcp") and beside not in files:
            raise FlawError(f"{beside}: missing; the save did not end")
    for name in sorted(files, key=lambda one: files[one]):  # what is small is soon read
        _check_named(directory, name, files, late)


def check_file(path: Path, late: Callable[[], bool] = lambda: False) -> None:
    """The same for a checkpoint that is one file."""
    _check_named(path.parent, path.name, {path.name: path.stat(follow_symlinks=False).st_size}, late)


def _check_named(directory: Path, name: str, files: dict[str, int], late: Callable[[], bool]) -> None:
    size = files[name]
    if size == 0:
        if name.endswith(_NEVER_EMPTY):
            raise FlawError(f"{name}: empty")
        return
    if not name.endswith(_NEVER_EMPTY):
        return
    where, _, plain = name.rpartition("/")
    place = os.open(directory / where, OPEN_DIRECTORY | os.O_NOFOLLOW)
    try:
        fd = open_file(plain, place)
    finally:
        os.close(place)
    try:
        _check_content(name, fd, size, late)
        if name.endswith(INDEX) and size <= _MOST_JSON_BYTES:
            _check_shards(load_json(read_start(fd, size)), where, files)
    except FlawError as flaw:
        raise FlawError(f"{name}: {flaw.reason}") from None
    finally:
        os.close(fd)


def _check_content(name: str, fd: int, size: int, late: Callable[[], bool]) -> None:
    if name.endswith(SAFETENSORS):
        length = header_bytes(read_start(fd, LENGTH_BYTES), size)
        check_header(read_start(fd, LENGTH_BYTES + length)[LENGTH_BYTES:], size - LENGTH_BYTES - length)
    elif name.endswith(".json"):
        if size <= _MOST_JSON_BYTES:
            _check_json(read_start(fd, size))
    elif name.endswith((*TORCH, ".npz")):
        start = read_start(fd, 4)
        if start.startswith(b"PK"):
            check_zip(fd, late)
        elif name.endswith(".npz"):
            raise FlawError("not a zip archive")
        elif start == b"\0\0\0\0":
            raise FlawError("zeros")
        elif not start.startswith(b"\x80") and not name.endswith((".bin", ".tar")):
            raise FlawError("neither a zip archive nor a pickle")
        elif name.endswith(".pkl") and os.pread(fd, 1, size - 1) != b".":
            raise FlawError("a pickle that does not end")  # its last opcode is STOP, a full stop


def _check_json(data: bytes) -> None:
    try:
        check_json_object(data)
    except FlawError:
        if isinstance(load_json(data), dict):
            raise


def _check_shards(index: Any, where: str, files: dict[str, int]) -> None:
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict):
        raise FlawError("names no shards")
    for shard in sorted({str(one) for one in shards.values()}):
        if (f"{where}/{shard}" if where else shard) not in files:
            raise FlawError(f"{shard[:80]!r} is missing")


def check_zip(fd: int, late: Callable[[], bool] = lambda: False) -> None:
    """Make sure that an open file is a whole zip archive: its directory, and the checksum of every member.

    Nothing is unpacked to disk, and nothing is loaded.

    Raises:
        FlawError: it is not, and why; whatever the bytes are, nothing else is raised.
        OSError: it could not be read.
    """
    try:
        with os.fdopen(os.dup(fd), "rb") as file, zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if member.compress_type not in _METHODS or member.flag_bits & 1:
                    raise FlawError("packed as torch packs nothing")
                with archive.open(member) as stream:
                    while stream.read(_PIECE_BYTES):
                        if late():
                            return
    except FlawError:
        raise
    except Exception as error:  # zipfile raises what it comes upon: BadZipFile, struct.error, zlib.error, EOFError …
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that is a place before the beginning
            raise
        raise FlawError(f"a damaged zip archive ({str(error)[:80] or type(error).__name__})") from None
