"""The rows of a training's log, written once each, as the supervisor puts them into trainer_state.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class History:
    """The file on the board that this attempt's snapshots refer to by its length.

    Attributes:
        size_bytes: how much of it belongs to the next snapshot.
    """

    def __init__(self, board: Path, attempt: int) -> None:
        self.size_bytes = 0
        self._rows = 0
        self._path = board / f"history-{attempt}"

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write those of all rows that have come since the last time."""
        new = rows[self._rows :]
        if not new:
            return
        text = "".join(json.dumps(row, default=float) + "\n" for row in new).encode()
        self._path.touch(mode=0o600)
        with self._path.open("ab") as file:
            file.write(text)
        self._rows += len(new)
        self.size_bytes += len(text)
