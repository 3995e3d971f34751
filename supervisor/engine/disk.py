"""One thread for the loop's small reads and writes in the run directory: a file system that hangs cannot hang the loop.

On a healthy disk whoever writes waits until it is written, as before. A server that fails over lets every call block
for half a minute: then the loop goes on, members go on hearing from it, and what was to be written is written in order
when the disk is back. What counts (a commit's rename) asks anew on its own thread.

Source: measured on a frozen ext4: opening for writing, writing, renaming, removing and mkdir block
uninterruptibly; so no time-out within the call can help.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

#: How long a write may take before the loop goes on without it [s].
PATIENCE_S = 1.0


class Pending(Generic[T]):
    """Something that was asked of the disk."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._over = threading.Event()
        self._result: T | None = None
        self._error: BaseException | None = None

    @property
    def over(self) -> bool:
        """Whether it has been done, or has failed."""
        return self._over.is_set()

    def result(self) -> T:
        """What came of it; asked once it is over.

        Raises:
            BaseException: whatever the work raised.
        """
        assert self.over
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # set, since it is over and raised nothing

    def wait(self, patience_s: float) -> bool:
        """Whether it is over within this time [s]."""
        return self._over.wait(patience_s)

    def _do(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # it is the asker's
            self._error = error
        self._over.set()


class Disk:
    """Does things in order, on a thread of its own."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Pending[object] | None] = queue.SimpleQueue()
        self._last: Pending[object] | None = None
        self._hangs = False
        self._began_s: float | None = None  # of what is being done
        self._thread = threading.Thread(target=self._serve, name="disk", daemon=True)
        self._thread.start()

    def ask(self, work: Callable[[], T]) -> Pending[T]:
        """Have it done, and do not wait."""
        pending = Pending(work)
        self._last = pending  # type: ignore[assignment]
        self._queue.put(pending)  # type: ignore[arg-type]
        return pending

    def do(self, work: Callable[[], T]) -> Pending[T]:
        """Have it done, and wait for a moment; not at all while something before it is stuck."""
        if self._hangs and self._last is not None:
            self._hangs = not self._last.over
        pending = self.ask(work)
        if not self._hangs:
            self._hangs = not pending.wait(PATIENCE_S)
        return pending

    @property
    def stuck(self) -> bool:
        """Whether something has been under way for longer than it should."""
        began_s = self._began_s
        return began_s is not None and time.monotonic() - began_s > PATIENCE_S

    def close(self, patience_s: float) -> None:
        """Wait until all is done, or the patience is over; what is stuck ends with the process."""
        until_s = time.monotonic() + patience_s
        self._queue.put(None)
        self._thread.join(max(0.0, until_s - time.monotonic()))

    def _serve(self) -> None:
        while (pending := self._queue.get()) is not None:
            self._began_s = time.monotonic()
            pending._do()
            self._began_s = None


def attended(work: Callable[[], T], meanwhile: Callable[[], object], every_s: float) -> T:
    """Have something done on a thread of its own, and do something else now and then until it is.

    Args:
        work: takes long.
        meanwhile: must not wait for long.
        every_s: how often that is done [s].

    >>> attended(lambda: 6 * 7, lambda: None, 0.1)
    42
    """
    disk = Disk()
    pending = disk.ask(work)
    while not pending.wait(every_s):
        meanwhile()
    disk.close(0.0)
    return pending.result()


def within(patience_s: float, work: Callable[[], object]) -> bool:
    """Have something done on a thread of its own, and wait no longer than that.

    Args:
        patience_s: then it is left behind, and ends with the process [s].
        work: what is to be done.

    Returns:
        Whether it was done.

    Raises:
        BaseException: whatever the work raised by then.

    >>> within(1.0, lambda: None)
    True
    """
    disk = Disk()
    pending = disk.ask(work)
    over = pending.wait(patience_s)
    disk.close(0.0)
    if over:
        pending.result()
    return over
