"""notified.json: how far each address has been told, so that nobody is told twice, and nothing is lost.

An address stands there by a digest of itself. What was told but could not be written down is told again
by the next process: twice is better than never.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.owner import whole
from supervisor.report.digest import GAP_S, MOST_GAP_S, Pace

NOTIFIED = "notified.json"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Told:
    """One address.

    Attributes:
        records: how many records of the journal have been dealt with.
        pace: how often it was told lately.
    """

    records: int
    pace: Pace


def key(url: str) -> str:
    """The name of an address that gives nothing of it away.

    >>> key("slack://a/b/c")
    'd45e28a4bea9a6af'
    """
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def encode(told: Mapping[str, Told]) -> str:
    """The file's text."""
    return json.dumps({"v": VERSION, "addresses": {name: _encode(one) for name, one in told.items()}})


def parse(data: bytes) -> dict[str, Told]:
    """Read back what `encode` gave; what is none of it is left out.

    >>> parse(encode({"a": Told(7, Pace(told=5.0, heard=4.0, sorts=frozenset({"started"})))}).encode())["a"].records
    7
    >>> parse(b"torn")
    {}
    """
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    addresses = values.get("addresses") if isinstance(values, dict) else None
    if not isinstance(addresses, dict):
        return {}
    return {name: one for name, value in addresses.items() if (one := _parse(value)) is not None}


def read(run_dir: Path) -> dict[str, Told]:
    """What the last process wrote down; nothing if that cannot be read."""
    try:
        return parse((run_dir / NOTIFIED).read_bytes())
    except OSError:
        return {}


def put(path: Path, text: str, mode: int) -> None:
    """Put a small file in place, whole or not at all.

    Raises:
        OSError: the file system refused; what was there is there still.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _encode(told: Told) -> dict[str, Any]:
    pace = told.pace
    return {
        "records": told.records,
        "told": pace.told,
        "heard": pace.heard,
        "gap_s": pace.gap_s,
        "sorts": sorted(pace.sorts),
    }


def _parse(value: Any) -> Told | None:
    records = whole(value.get("records")) if isinstance(value, dict) else None
    if records is None:
        return None
    sorts = value.get("sorts")
    return Told(
        records,
        Pace(
            told=_number(value.get("told")),
            heard=_number(value.get("heard")),
            gap_s=min(MOST_GAP_S, max(GAP_S, _number(value.get("gap_s")) or GAP_S)),
            sorts=frozenset(one for one in sorts if isinstance(one, str)) if isinstance(sorts, list) else frozenset(),
        ),
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and abs(value) < 1e15 else None
