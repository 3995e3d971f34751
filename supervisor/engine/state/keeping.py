"""The keeper's process, and the two pipes to it; none of it ever waits for the keeper, except a moment for its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from supervisor.launch.processes import signals_blocked
from supervisor.mirror.messages import Lines, line
from supervisor.watch.ready import ready

KEEPER = "supervisor.mirror.keeper"
#: Pauses before it is started again when it has ended [s].
PAUSES_S = (1.0, 10.0, 60.0, 600.0)
#: It is gone as soon as its pipe closes; if not within this, it is killed [s].
END_S = 0.5


@dataclass(slots=True)
class Keeping:
    """One keeper after the other.

    Attributes:
        pauses_s: before each new start [s].
        heard_s: monotonic time at which it was started, or said something last [s].
        again_s: monotonic time from which it may be started again [s].
        ends: how often in a row it has ended.
    """

    pauses_s: tuple[float, ...] = PAUSES_S
    heard_s: float = 0.0
    again_s: float = 0.0
    ends: int = 0
    _lines: Lines = field(default_factory=Lines)
    _pidfd: int | None = None
    _to: int = -1
    _from: int = -1

    @property
    def there(self) -> bool:
        """Whether it runs, as far as is known."""
        return self._pidfd is not None

    def start(self, environment: Mapping[str, str]) -> None:
        """Start it, in this environment; if that cannot be, it counts as ended."""
        ours_from, theirs_out = os.pipe()
        theirs_in, ours_to = os.pipe()
        try:
            with signals_blocked():  # a scheduler's are for us
                process = subprocess.Popen(
                    [sys.executable, "-m", KEEPER],
                    stdin=theirs_in,
                    stdout=theirs_out,
                    stderr=subprocess.DEVNULL,
                    env=dict(environment),
                    start_new_session=True,
                )
            process.returncode = 0  # whoever looks first reaps it, as all children of this process
            self._pidfd = os.pidfd_open(process.pid)
        except OSError:
            os.close(ours_from)
            os.close(ours_to)
            self._ended()
            return
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        os.set_blocking(ours_to, False)
        os.set_blocking(ours_from, False)
        self._to, self._from, self._lines = ours_to, ours_from, Lines()
        self.heard_s = time.monotonic()

    def say(self, what: str, /, **fields: Any) -> None:
        """Tell it something; one that is gone, or does not even read, is not told."""
        if self.there:
            with suppress(OSError):
                os.write(self._to, line(what, **fields))

    def hear(self) -> list[dict[str, Any]]:
        """What it has said since."""
        told: list[dict[str, Any]] = []
        while self.there:
            try:
                data = os.read(self._from, 1 << 16)
            except BlockingIOError:
                break
            if not data:
                self.end()
                break
            self.heard_s = time.monotonic()
            told += self._lines.take(data)
        return told

    def wait(self, seconds: float) -> None:
        """Wait until it says something, but not for longer."""
        ready([self._from], seconds)

    def end(self) -> None:
        """End it, if it has not ended."""
        if self._pidfd is None:
            return
        os.close(self._to)
        os.close(self._from)
        if not ready([self._pidfd], END_S):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            ready([self._pidfd], END_S)
        with suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        os.close(self._pidfd)
        self._ended()

    def _ended(self) -> None:
        self._pidfd = None
        self.again_s = time.monotonic() + self.pauses_s[min(self.ends, len(self.pauses_s) - 1)]
        self.ends += 1
