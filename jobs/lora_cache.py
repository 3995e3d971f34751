"""Tokenised data on disk, whole or not at all, so that the next attempt does not tokenise again.

One Arrow file per key. It is written beside its final name, forced to disk and
renamed; a process killed in the middle leaves only a partial file, which the
next one on the same node removes. Nodes that share the file system may write
the same key at the same time: each has its own partial name, and whoever comes
last replaces equal bytes by equal bytes.

What it does *not* protect against: a disk that returns other bytes than were
written. A file that cannot be opened is written again; a flipped token is not
noticed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import xxhash

from jobs.lora_chat import Example

PARTIAL = ".partial-"
_ROWS_A_BATCH = 512
_SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])


def key_of(facts: Mapping[str, Any]) -> str:
    """A name for what the tokens are made from; equal facts give equal names in every process.

    >>> key_of({"max_length": 8, "data": "x"}) == key_of({"data": "x", "max_length": 8})
    True
    """
    canonical = json.dumps(facts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return str(xxhash.xxh3_128_hexdigest(canonical.encode()))


def tokens_path(cache_dir: Path, key: str) -> Path:
    """Where the tokens of ``key`` are, once they are committed."""
    return cache_dir / f"tokens-{key}.arrow"


def is_whole(path: Path) -> bool:
    """Whether committed tokens are there and every batch of them can be mapped; reads headers only."""
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            rows = sum(batch.num_rows for batch in stream)
            return bool(rows and stream.schema == _SCHEMA)
    except (OSError, pa.ArrowInvalid):
        return False


def write_tokens(path: Path, examples: Iterable[Example]) -> None:
    """Commit tokens under ``path``; if ``examples`` raises, nothing appears there.

    Raises:
        OSError: the disk refused.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        with partial.open("wb") as file:
            with pa.ipc.new_stream(file, _SCHEMA) as stream:
                for batch in _batches(examples):
                    stream.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    _sync_directory(path.parent)


def scratch_dir(cache_dir: Path, key: str) -> Path:
    """Where this node may put what it needs only while it tokenises; the caller removes it."""
    return _partial(tokens_path(cache_dir, key)).with_suffix(".scratch")


def sweep(cache_dir: Path) -> None:
    """Remove what a killed process of this node has left; its successor is the only one here."""
    for left in cache_dir.glob(f"{PARTIAL}{_node()}-*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    return path.with_name(f"{PARTIAL}{_node()}-{path.name}")


def _node() -> str:
    """A name of this node within the run; containers may share a host's name, so torch's node rank is in it."""
    return f"{socket.gethostname()}-{os.environ.get('GROUP_RANK', '0')}"


def _batches(examples: Iterable[Example]) -> Iterator[Any]:
    rows: list[Example] = []
    for example in examples:
        rows.append(example)
        if len(rows) == _ROWS_A_BATCH:
            yield _batch(rows)
            rows = []
    if rows:
        yield _batch(rows)


def _batch(rows: list[Example]) -> Any:
    columns = [[row.input_ids for row in rows], [row.labels for row in rows]]
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    return pa.record_batch(arrays, schema=_SCHEMA)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
