"""What is wrong with bytes that were read, and the strict reading of JSON.

A flaw is about content that could be read. What could not be read is an
`OSError`, and says nothing about the content.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


class FlawError(ValueError):
    """The bytes were read and are wrong.

    Attributes:
        reason: what is wrong with them, in a few lower-case words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def load_json(data: bytes) -> Any:
    """The value that ``data`` holds, read strictly: UTF-8, and no key twice.

    Raises:
        FlawError: it holds none; whatever the bytes are, nothing else is raised.

    >>> load_json(b'{"step": 20}')
    {'step': 20}
    """
    return _load(data, _unique)


def check_json_object(data: bytes) -> None:
    """Make sure that ``data`` is one JSON object, without keeping what is in it.

    A trainer's state with 100,000 rows of history takes ten times its size as
    Python objects; rows are dropped here as soon as they are read.

    Raises:
        FlawError: it is not.
    """
    if not isinstance(_load(data, lambda pairs: {}), dict):
        raise FlawError("not a JSON object")


def _load(data: bytes, pairs_hook: Any) -> Any:
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=pairs_hook)
    except FlawError:
        raise
    except RecursionError:
        raise FlawError("nested too deeply") from None
    except ValueError:  # bad UTF-8, bad JSON, or a number of more digits than Python converts
        raise FlawError("not JSON") from None


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise FlawError("a key is there twice")
    return found
