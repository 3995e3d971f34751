"""The process that tells people: `python -m supervisor.report.notify BELL`, its settings on standard input.

It follows the journal, and a dead man's switch, and writes metrics; the supervisor never waits for it. The
bell is the reading end of a pipe whose other end only the supervisor has: it rings when that leaves, or is
gone. Then how the run ended is told, and this process ends within seconds, by the kernel's alarm clock if need be.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from supervisor.errors import DiskError
from supervisor.journal import JOURNAL, read_from
from supervisor.report.alarms import Alarms
from supervisor.report.fold import ENDED
from supervisor.report.live import look
from supervisor.report.metering import Meter
from supervisor.report.notified import NOTIFIED, encode, put, read
from supervisor.report.sending import Sending
from supervisor.report.settings import Settings
from supervisor.report.status import step_of
from supervisor.report.teller import Teller
from supervisor.report.words import clock

#: How often it looks [s]: at sizes, since a shared file system has no other way to tell.
LOOK_S = 1.0
#: The same once the bell has rung [s].
END_LOOK_S = 0.1
#: How often it looks at what the supervisor says of itself, where that is asked for [s].
WATCH_S = 5.0
#: How long it lives on after the bell [s]: a message that hangs may have to end before the last one can be sent.
LINGER_S = 22.0
#: How long after the bell the journal's end, or a successor, is waited for [s].
GRACE_S = 3.0


class _Log:
    """Writes down what does not work, and when it works again; never an address."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._broken: set[str] = set()

    def see(self, label: str, works: bool) -> None:
        """Whether something works now."""
        if works != (label in self._broken):
            return
        self._broken ^= {label}
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            with self._path.open("a") as file:
                file.write(f"{clock(time.time())} {label} {'works again' if works else 'does not work'}\n")


class Notify:
    """One stay's telling.

    Attributes:
        ending_s: monotonic time at which the bell rang [s]; None while the supervisor lives.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._run_dir = settings.run_dir
        self._journal = self._run_dir / JOURNAL
        self._lock = _only_one(self._run_dir)
        records, self._offset = read_from(self._journal, 0)
        self._teller = Teller(settings, records, read(self._run_dir))
        self._log = _Log(self._run_dir / "logs" / "notify.log")
        self._alarms = Alarms(settings)
        self._meter = Meter(settings, self._log.see)
        self._sendings: list[Sending] = []
        self._next_s = 0.0
        self._ended: str | None = None
        self._stays = self._teller.history.stays
        self.ending_s: float | None = None

    @property
    def fds(self) -> list[int]:
        """Readable when there is news; for `poll`."""
        return [one.fd for one in self._sendings]

    def ring(self) -> None:
        """The supervisor leaves, or is gone."""
        self.ending_s = time.monotonic()
        signal.alarm(int(LINGER_S) + 3)  # also for one that hangs on a dead file system

    def close(self) -> None:
        """Leave no process behind."""
        for sending in self._sendings:
            sending.end()
        self._hear(time.time())

    def look(self) -> bool:
        """See what there is, and tell what is due; whether there is more to do."""
        now, now_s = time.time(), time.monotonic()
        self._follow()
        self._hear(now)
        if self._teller.history.stays > self._stays:
            return False  # a successor has begun, and tells what has not been told
        if self.ending_s is None:
            self._watch(now, now_s)
        elif not self._is_over(now, now_s - self.ending_s):
            return True
        else:
            self._end(now, now_s)
        messages = self._teller.ask(now, self._step, ending=self.ending_s is not None)
        self._send(messages, self._alarms.ask(now_s, self._ended))
        if self.ending_s is None:
            return True
        return bool(self._sendings or self._teller.waits) and now_s - self.ending_s < LINGER_S

    def _watch(self, now: float, now_s: float) -> None:
        """What is to be known of a living supervisor."""
        if now_s < self._next_s or not (self._alarms or self._meter.due(now_s)):
            return
        self._next_s = now_s + WATCH_S
        live = look(self._run_dir)
        self._alarms.see(live.progress.time if live.progress is not None else None, now_s)
        if self._meter.due(now_s):
            self._meter.write(self._teller.history, live, now, now_s, up=True, state=None)

    def _end(self, now: float, now_s: float) -> None:
        """All that this stay brought is known."""
        if self._ended is not None:
            return
        state = self._teller.history.state
        self._ended = state if state in ENDED else "interrupted"
        if self._meter.asked:
            live = look(self._run_dir)
            self._meter.write(self._teller.history, live, now, now_s, up=False, state=self._ended)

    def _step(self) -> int | None:
        return step_of(self._teller.history, look(self._run_dir))

    def _follow(self) -> None:
        with suppress(OSError, DiskError):  # a file system that is gone for a while comes back
            if self._journal.stat().st_size > self._offset:
                records, self._offset = read_from(self._journal, self._offset)
                self._teller.take(records)

    def _is_over(self, now: float, since_s: float) -> bool:
        """Whether all that this stay will bring is known."""
        state = self._teller.history.state
        if state in ENDED - {"interrupted"}:
            return True
        # What is gone without a word may be followed at once by a successor, which has better news.
        if state not in ENDED and since_s < GRACE_S:
            return False
        self._teller.end(now)
        return True

    def _send(self, messages: list[dict[str, Any]], pings: list[dict[str, Any]]) -> None:
        # Apart: what asks for an address only is spared the import of Apprise.
        for asked in ({"messages": messages}, {"pings": pings}):
            if not any(asked.values()):
                continue
            try:
                self._sendings.append(Sending(asked))
            except OSError:
                for one in next(iter(asked.values())):
                    self._answer(one["id"], time.time(), told=False)

    def _hear(self, now: float) -> None:
        for sending in self._sendings:
            sending.look()
            if sending.over:
                for one in sending.ids:
                    self._answer(one, now, told=one in sending.told)
        ended = [one for one in self._sendings if one.over]
        self._sendings = [one for one in self._sendings if not one.over]
        if any(one.startswith("u") for sending in ended for one in sending.ids):
            with suppress(OSError):  # then a later process may tell again what has been told
                put(self._run_dir / NOTIFIED, encode(self._teller.told()), 0o600)

    def _answer(self, name: str, now: float, *, told: bool) -> None:
        number = int(name[1:])
        if name.startswith("u"):
            self._teller.answer(number, now, told=told)
            self._log.see(self._settings.urls[number][0], told)
        else:
            self._alarms.answer(number)
            self._log.see(self._settings.alarms[number][0], told)


def main() -> None:
    """Tell people until the supervisor is gone, and then how it ended."""
    _be_modest()
    bell = int(sys.argv[2])
    notify = Notify(Settings.parse(sys.stdin.read()))
    poll = select.poll()
    poll.register(bell, select.POLLIN)
    while notify.look():
        known = set(notify.fds)
        for fd in known:
            poll.register(fd, select.POLLIN)
        rung = poll.poll(1000 * (LOOK_S if notify.ending_s is None else END_LOOK_S))
        for fd in known:
            poll.unregister(fd)
        if notify.ending_s is None and any(fd == bell for fd, _ in rung):
            poll.unregister(bell)
            notify.ring()
    notify.close()


def _be_modest() -> None:
    """Let training go first: on a busy machine, and when memory ends, where the kernel is to take this process."""
    os.nice(5)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _only_one(run_dir: Path) -> int | None:
    """Wait for the process of an earlier stay, which ends within seconds; None where files cannot be locked."""
    until_s = time.monotonic() + LINGER_S
    try:
        fd = os.open(run_dir / "notified.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None
    while time.monotonic() < until_s:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(END_LOOK_S)
        except OSError:
            break
        else:
            return fd
    os.close(fd)
    return None


if __name__ == "__main__":
    main()
