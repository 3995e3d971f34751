"""Ends of a link as processes, whose events are read as they come."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from harness import until

PROGRAM = Path(__file__).parent / "link_end.py"


class Process:
    """An end of a link; killed when the block ends."""

    def __init__(self, *arguments: str, through: Sequence[str] = ()) -> None:
        command = [*through, sys.executable, str(PROGRAM), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._said = b""

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def told(self, what: str, node: int | None = None) -> list[list[str]]:
        """Every line that begins so, in words."""
        assert self.process.stdout is not None
        while piece := self.process.stdout.read(1 << 16):
            self._said += piece
        lines = [line.decode().split() for line in self._said.splitlines(keepends=True) if line.endswith(b"\n")]
        return [line for line in lines if line[0] == what and (node is None or line[1] == str(node))]

    def tells(self, what: str, node: int | None = None, count: int = 1) -> list[str]:
        """Wait for a line; the words of it."""

        def found() -> list[list[str]] | None:
            lines = self.told(what, node)
            return lines if len(lines) >= count else None

        return until(found, f"{what} {node}")[count - 1]
