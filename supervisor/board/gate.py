"""The gate: where workers that stand by wait for their turn.

A named pipe per local rank, ``gate-<attempt>.<rank>``, which the supervisor opens for both ends
before they start. They block in a read and cost nothing; what is said to them waits in the
pipe for one that is not there yet.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Gate:
    """The supervisor's side, for one attempt."""

    def __init__(self, board: Path, attempt: int, ranks: int) -> None:
        """Close it.

        Args:
            board: the board's directory.
            attempt: that is to wait here.
            ranks: of this node.

        Raises:
            OSError: a pipe could not be made.
        """
        self._paths = [_path(board, attempt, rank) for rank in range(ranks)]
        self._pipes: list[int] = []
        for path in self._paths:
            path.unlink(missing_ok=True)  # a killed predecessor's
            os.mkfifo(path, 0o600)
            # O_RDWR: whoever reads finds a writer, and sees no end of file while this process lives.
            self._pipes.append(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))

    def open(self, **told: Any) -> None:
        """Let every rank go, with something to tell it."""
        for pipe in self._pipes:
            os.write(pipe, json.dumps(told).encode() + b"\n")

    def remove(self) -> None:
        """Take it down; who still waits finds the pipe closed."""
        for pipe in self._pipes:
            os.close(pipe)
        self._pipes.clear()
        for path in self._paths:
            path.unlink(missing_ok=True)


class GateClosedError(Exception):
    """The supervisor took the gate down: nobody needs this worker."""


def wait_at_gate(board: Path, attempt: int, rank: int) -> dict[str, Any]:
    """Block until the supervisor lets this rank go.

    Returns:
        What it was told.

    Raises:
        GateClosedError: it is not needed.
    """
    try:
        with _path(board, attempt, rank).open("rb", buffering=0) as pipe:
            line = pipe.readline()
    except FileNotFoundError:
        line = b""
    if not line.endswith(b"\n"):
        raise GateClosedError(f"attempt {attempt} is not needed")
    told: dict[str, Any] = json.loads(line)
    return told


def _path(board: Path, attempt: int, rank: int) -> Path:
    return board / f"gate-{attempt}.{rank}"
