"""Signals, turned into something a loop can wait for.

A handler runs between any two bytecodes of any code. So it does one thing: it notes the
signal and wakes the loop. Saving, logging and requeueing happen in the loop, where locks can
be taken.
"""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Iterable
from types import FrameType


class Inbox:
    """Signals that have come and have not been read.

    Attributes:
        fd: readable while the inbox is not empty; for `select`.
    """

    def __init__(self) -> None:
        self.fd, self._write = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write, False)

    def read(self) -> list[signal.Signals]:
        """Take every signal that has come, oldest first."""
        try:
            return [signal.Signals(n) for n in os.read(self.fd, 4096)]
        except BlockingIOError:
            return []

    def note(self, signum: int, frame: FrameType | None = None) -> None:
        """The handler."""
        try:
            os.write(self._write, bytes([signum]))
        except BlockingIOError:
            pass  # 64 KiB of unread signals: the loop has news enough


def listen(signals: Iterable[signal.Signals]) -> Inbox:
    """Catch ``signals`` from now to the end of the process.

    While it shuts down, Python gives handlers up but leaves alone what is ignored. So they are
    ignored from then on: a second SIGTERM in the last milliseconds must not turn the exit code
    into a death by signal.

    Args:
        signals: what to catch.

    Raises:
        ValueError: this is not the main thread; Python delivers signals only there.

    Source:
        signal(7), "async-signal-safe"; Python's signal documentation, "Execution of Python
        signal handlers"; `_PySignal_Fini` in its Modules/signalmodule.c.
    """
    inbox = Inbox()
    for signum in signals:
        if signum is signal.SIGHUP and signal.getsignal(signum) is signal.SIG_IGN:
            continue  # nohup: whoever started us wants it ignored
        signal.signal(signum, inbox.note)
        atexit.register(signal.signal, signum, signal.SIG_IGN)
    return inbox
