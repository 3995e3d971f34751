"""Waiting until a descriptor has something to read."""

from __future__ import annotations

import select
from collections.abc import Iterable


def ready(fds: Iterable[int], timeout_s: float) -> list[int]:
    """Those of ``fds`` that can be read, or whose other end is gone; none after ``timeout_s``.

    By poll(2): select(2) knows no descriptor above 1023, and a leader of many members has more.

    >>> import os
    >>> reader, writer = os.pipe()
    >>> ready([reader], 0.0)
    []
    >>> os.close(writer)
    >>> ready([reader], 0.0) == [reader]
    True
    """
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return [fd for fd, _ in poller.poll(max(0.0, timeout_s) * 1000.0)]
