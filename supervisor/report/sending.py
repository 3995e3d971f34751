"""One round of telling, in a process of its own (`supervisor.report.send`), which ends within seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from supervisor.report.send import LIMIT_S

#: How much later than its own alarm clock such a process is ended from here [s].
LATE_S = 3.0


def handed(text: str) -> int:
    """A descriptor from which ``text`` can be read: never in an argument list, where `ps` shows it, nor on a disk."""
    fd = os.memfd_create("lora-supervisor", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(text.encode())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


class Sending:
    """A round under way.

    Attributes:
        ids: what was asked for.
        told: what of it has been told so far.
        over: whether there is more to come.
        fd: readable when there is news; for `poll`.
    """

    def __init__(self, asked: Mapping[str, list[dict[str, Any]]]) -> None:
        """Start it.

        Raises:
            OSError: it could not be started.
        """
        self.ids = [one["id"] for part in asked.values() for one in part]
        self.told: set[str] = set()
        self.over = False
        self._line = b""
        self._until_s = time.monotonic() + LIMIT_S + LATE_S
        text = handed(json.dumps(asked))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "supervisor.report.send"],
                stdin=text,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        finally:
            os.close(text)
        assert self._process.stdout is not None
        self.fd = self._process.stdout.fileno()
        os.set_blocking(self.fd, False)

    def look(self) -> None:
        """See what has been told."""
        while not self.over:
            try:
                data = os.read(self.fd, 4096)
            except BlockingIOError:
                if time.monotonic() < self._until_s:
                    return
                data = b""
            if data:
                self._line += data
                continue
            self.end()

    def end(self) -> None:
        """End it: its output has ended, or its time is up."""
        if self.over:
            return
        *lines, _ = self._line.split(b"\n")
        self.told |= {line.decode(errors="replace") for line in lines}
        self.over = True
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
