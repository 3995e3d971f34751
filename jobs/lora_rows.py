"""What a row of training data must look like, and where a file breaks that.

Only the standard library: the supervisor reads the user's file with this
before it starts anything, and the worker reads each row with it again.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

#: Files of one JSON object a line.
JSON_LINES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".json.gz")
PARQUET = (".parquet",)


@dataclass(frozen=True, slots=True)
class Field:
    """The column to train on."""

    kind: Literal["messages", "text"]
    name: str


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line of a file that cannot be trained on; ``number`` counts from 1."""

    number: int
    problem: str


def choose_field(columns: Iterable[str], text_field: str | None, messages_field: str | None) -> Field | None:
    """The column to train on: the one that is named, else `messages`, else `text`, else None.

    >>> choose_field(["text", "messages"], None, None)
    Field(kind='messages', name='messages')
    >>> choose_field(["prompt"], None, None) is None
    True
    """
    if text_field:
        return Field("text", text_field)
    if messages_field:
        return Field("messages", messages_field)
    present = set(columns)
    if "messages" in present:
        return Field("messages", "messages")
    return Field("text", "text") if "text" in present else None


def row_problem(row: Any, field: Field) -> str | None:
    """Say what is wrong with one row, or None.

    >>> row_problem({"text": 3}, Field("text", "text"))
    '`text` is int, not a string'
    """
    if not isinstance(row, Mapping):
        return f"a JSON {_kind(row)}, where a row is an object"
    if field.name not in row:
        return f"no `{field.name}`; it has {_listed(row)}"
    value = row[field.name]
    if field.kind == "text":
        return None if isinstance(value, str) else f"`{field.name}` is {type(value).__name__}, not a string"
    if not isinstance(value, list) or not value:
        return f"`{field.name}` is {'empty' if value == [] else type(value).__name__}, not a list of messages"
    for number, message in enumerate(value, start=1):
        if problem := _message_problem(message):
            return f"message {number} of `{field.name}` {problem}"
    return None


def parse_line(line: str | bytes) -> Any:
    """Read one line of JSON.

    Raises:
        ValueError: it is none; the message says where in the line.
    """
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text at byte {error.start + 1} of the line") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def find_bad_line(
    path: Path, text_field: str | None, messages_field: str | None, max_bytes: int | None = None
) -> BadLine | None:
    """Read a file of JSON lines until the first that cannot be trained on.

    The file is streamed, one line in memory. Empty lines are allowed.

    Args:
        path: the file, gzipped if its name ends in `.gz`.
        text_field: as in the job file.
        messages_field: as in the job file.
        max_bytes: look no further than this (uncompressed); None looks at all of it.

    Returns:
        The first bad line, or None. A file without any row is bad at line 1.

    Raises:
        OSError: the file cannot be read.
    """
    field, rows, seen_bytes = None, 0, 0
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            seen_bytes += len(line)
            if line.strip():
                rows += 1
                try:
                    row = parse_line(line)
                except ValueError as error:
                    return BadLine(number, str(error))
                field = field or choose_field(row if isinstance(row, Mapping) else (), text_field, messages_field)
                if field is None:
                    return BadLine(number, f"neither `messages` nor `text`; it has {_listed(row)}")
                if problem := row_problem(row, field):
                    return BadLine(number, problem)
            if max_bytes is not None and seen_bytes >= max_bytes:
                break
    return None if rows else BadLine(1, "the file holds no row")


def is_json_array(path: Path) -> bool:
    """Whether a `.json` file is one array of rows, not a row a line."""
    if not path.name.endswith((".json", ".json.gz")):
        return False
    with _opened(path) as file:
        return file.read(64).lstrip()[:1] == b"["


def _opened(path: Path) -> IO[bytes]:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")


def _message_problem(message: Any) -> str | None:
    if not isinstance(message, Mapping):
        return f"is {type(message).__name__}, not an object with role and content"
    if "role" not in message and {"from", "value"} <= message.keys():
        return "has from and value (ShareGPT), where role and content are needed"
    if not isinstance(message.get("role"), str):
        return "has no role"
    if message.get("content") is None and not message.get("tool_calls"):
        return "has no content"
    if not isinstance(message.get("content"), str | list | None):
        return f"has {type(message['content']).__name__} as content, not a string"
    return None


def _listed(row: Any) -> str:
    return ", ".join(f"`{key}`" for key in row) if row and isinstance(row, Mapping) else "nothing"


def _kind(value: Any) -> str:
    return {list: "array", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")
