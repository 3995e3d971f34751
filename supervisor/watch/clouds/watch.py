"""A thread for each cloud that this may be, and one descriptor that is readable when there is news.

A metadata service that does not answer, or answers nonsense, is asked less and less often, and told of once.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from supervisor.policy.notices import News, Notice, Unread, Withdrawn
from supervisor.watch.clouds.asking import Unclear
from supervisor.watch.clouds.reading import Reading

#: After so many failures in a row people are told.
TELL_AFTER = 3
#: Whom nobody answers asks no less often than this [s].
RARELY_S = 60.0
#: How long an acknowledgement may take [s].
CLOSE_S = 2.0
#: A deadline that moves by less is the same one [s].
SAME_S = 1.0


class Cloud(Protocol):
    """Whom to ask, and how often.

    Attributes:
        name: for people.
        every_s: from one question to the next [s].
    """

    name: str
    every_s: float

    def poll(self, now_s: float) -> Reading:
        """Every notice that stands now; within a time limit of its own."""


class CloudWatch:
    """Watches for notices.

    Attributes:
        fd: readable when there is news; for `poll`.
    """

    def __init__(
        self,
        clouds: Iterable[Cloud],
        problems: Iterable[Unread] = (),
        *,
        wall: Callable[[], float] = time.time,
        rarely_s: float = RARELY_S,
    ) -> None:
        """Ask nobody yet.

        Args:
            clouds: to ask.
            problems: what is known already to keep others from being asked.
            wall: the clock that deadlines are read by [unix s].
            rarely_s: the longest pause between two questions [s].
        """
        self._clouds, self._wall, self._rarely_s = tuple(clouds), wall, rarely_s
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._over = threading.Event()
        self._acknowledged: Notice | None = None
        self.fd, self._bell = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._bell, False)
        for problem in problems:
            self._tell(problem)

    def start(self) -> None:
        """Begin to ask; nothing is waited for."""
        for cloud in self._clouds:
            threading.Thread(target=self._watch, args=(cloud,), name=f"cloud {cloud.name}", daemon=True).start()

    def events(self) -> list[News]:
        """Take what has come, oldest first."""
        try:
            os.read(self.fd, 4096)
        except BlockingIOError:
            return []
        found = []
        while not self._news.empty():
            found.append(self._news.get())
        return found

    def acknowledge(self, notice: Notice) -> None:
        """Have the cloud told, when this watch is closed, that nothing is left to wait for.

        Args:
            notice: for which this process leaves; everything that it had to save is on disk.
        """
        self._acknowledged = notice

    def close(self, patience_s: float = CLOSE_S) -> bool:
        """Ask nobody any more, and acknowledge what is to be acknowledged; whether a cloud has agreed to it.

        Last of all: the machine may be gone a moment later. A question that is under way ends by its own limit,
        or with the process.

        Args:
            patience_s: to wait at most [s].
        """
        self._over.set()
        notice, agreed = self._acknowledged, list[bool]()
        if notice is None:
            return False

        def tell(cloud: Cloud) -> None:
            say = getattr(cloud, "acknowledge", None)
            if say is not None:
                agreed.append(say(notice.key, patience_s))

        for cloud in self._clouds:
            if cloud.name == notice.cloud:
                thread = threading.Thread(target=tell, args=(cloud,), name="acknowledgement", daemon=True)
                thread.start()
                thread.join(patience_s)
        return any(agreed)

    def _tell(self, news: News) -> None:
        self._news.put(news)
        try:
            os.write(self._bell, b"!")
        except BlockingIOError:
            pass  # 64 KiB of unread bells ring loud enough

    def _watch(self, cloud: Cloud) -> None:
        standing: dict[str, Notice] = {}
        failures, told = 0, False
        while not self._over.is_set():
            reading = self._poll(cloud)
            if isinstance(reading, Unclear):
                failures += 1
                if failures >= TELL_AFTER and not told:
                    told = True
                    self._tell(Unread(cloud.name, reading.reason))
            else:
                failures = 0
                for news in changes(standing, reading):
                    self._tell(news)
                standing = {notice.key: notice for notice in reading}
            pause_s = cloud.every_s * 2.0 ** min(failures, 10)
            self._over.wait(min(pause_s, max(self._rarely_s, cloud.every_s)))

    def _poll(self, cloud: Cloud) -> Reading:
        try:
            return cloud.poll(self._wall())
        except Exception as error:  # a thread that died of an answer nobody thought of would hear no notice
            return Unclear(f"{type(error).__name__}: {error}")


def changes(before: dict[str, Notice], now: Iterable[Notice]) -> list[Notice | Withdrawn]:
    """What is new between two looks.

    >>> freeze = Notice("azure", "Freeze", 90.0, "Freeze at 90", False, "A")
    >>> changes({}, [freeze]) == [freeze], changes({"A": freeze}, [freeze])
    (True, [])
    >>> changes({"A": freeze}, [])
    [Withdrawn(cloud='azure', detail='Freeze at 90', key='A')]
    """
    found: list[Notice | Withdrawn] = []
    shown = {notice.key: notice for notice in now}
    for key, notice in before.items():
        if key not in shown:
            found.append(Withdrawn(notice.cloud, notice.detail, key))
    for key, notice in shown.items():
        known = before.get(key)
        if known is None or known.kind != notice.kind or _moved(known.deadline_s, notice.deadline_s):
            found.append(notice)
    return found


def _moved(before_s: float | None, now_s: float | None) -> bool:
    if before_s is None or now_s is None:
        return before_s != now_s
    return abs(now_s - before_s) > SAME_S
