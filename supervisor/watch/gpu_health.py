"""Asks how the GPUs are, and never waits for a driver that does not answer.

The asking is done by a process of its own (`gpu_sentinel`). It also tells of errors as they happen, which is the only
time that a driver does: what came before it listened stands in the kernel's log, or nowhere.

What this does not protect against: without NVIDIA's driver nothing is known; AMD's and others are not asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from supervisor.policy.gpu_health import Health, Holder, Reading, judge
from supervisor.watch.namespace import sees_all_pids
from supervisor.watch.ready import ready

#: How long a driver may take to answer [s].
LIMIT_S = 3.0
#: How long a process may take to start on a busy machine before it is taken to hang [s].
START_S = 15.0
_SILENT = "the driver did not answer"


@dataclass(frozen=True, slots=True)
class Look:
    """What was found when the driver was asked.

    Attributes:
        healths: of each GPU that was asked about, in that order.
        holders: processes that hold memory of them.
    """

    healths: tuple[Health, ...]
    holders: tuple[Holder, ...] = ()


@dataclass(slots=True)
class GpuWatch:
    """Asks about some GPUs; `ask`, then `answer` until it is there. Nothing here blocks.

    Attributes:
        gpus: as `visible_gpus` names them.
        limit_s: how long the driver may take [s].
        environment: of the process that asks; this one's if not given.
    """

    gpus: Sequence[str]
    limit_s: float = LIMIT_S
    environment: Mapping[str, str] | None = None
    _process: subprocess.Popen[bytes] | None = None
    _buffer: bytes = b""
    _asked: int = 0  # questions so far
    _answered: int = 0  # questions that were answered, or given up
    _until_s: float = 0.0
    _readings: dict[str, Reading] = field(default_factory=dict)
    _known: dict[str, Reading] = field(default_factory=dict)  # by what a GPU is known that answers no more
    _holders: dict[str, list[Holder]] = field(default_factory=dict)
    _events: dict[str, Reading] = field(default_factory=dict)  # what was heard since `forget`
    _refused: str | None = None
    _hello: bool = False

    @property
    def fd(self) -> int | None:
        """Readable when there is something to `hear`; for `select`. None while nobody asks."""
        if self._process is None or self._process.stdout is None:
            return None
        return self._process.stdout.fileno()

    @property
    def asking(self) -> bool:
        """Whether a question has been asked that `answer` has not answered yet."""
        return self._asked > self._answered

    def ask(self, now_s: float) -> None:
        """Begin to ask; what is being asked already is not asked twice.

        Args:
            now_s: monotonic time [s].
        """
        if self.asking:
            return
        self._asked += 1
        self._readings, self._holders, self._refused = {}, {}, None
        self._until_s = now_s + self.limit_s
        self.hear(now_s)
        if self._process is None:
            try:
                self._start()
            except OSError as error:
                self._refused, self._answered = f"nobody can ask: {error.strerror}", self._asked
                return
            self._until_s = now_s + START_S
        self._send()

    def answer(self, now_s: float) -> Look | None:
        """What was found; None while it is not there yet. The limit being over is an answer: unknown.

        Args:
            now_s: monotonic time [s].
        """
        self.hear(now_s)
        if self._asked == 0:
            return None
        if self.asking:
            gone = self._process is None
            if now_s < self._until_s and not gone:
                return None
            self._answered = self._asked
            self._refused = self._refused or ("the process that asks has ended" if gone else _SILENT)
            if not gone and self._process is not None:
                self._process.kill()  # it dies when the driver lets it; only then is there another one
        healths = tuple(judge(self._with_events(name, self._reading(name))) for name in self.gpus)
        return Look(healths, tuple(one for name in self.gpus for one in self._holders.get(name, ())))

    def _reading(self, name: str) -> Reading:
        reading = self._readings.get(name) or Reading(name=name, error=self._refused or _SILENT)
        if reading.uuid is not None:
            return reading
        number = int(name) if name.isdigit() else None
        known = self._known.get(name, Reading(number))
        return replace(reading, index=known.index, uuid=known.uuid, bus=known.bus)

    def _with_events(self, name: str, reading: Reading) -> Reading:
        heard = self._events.get(name)
        return reading if heard is None else replace(reading, xids=heard.xids, lost=reading.lost or heard.lost)

    @property
    def heard(self) -> tuple[Health, ...]:
        """How the GPUs are that reported an error since `forget`, by nothing but that."""
        return tuple(judge(one) for one in self._events.values())

    def forget(self) -> None:
        """What has been heard belongs to an attempt that is over."""
        self._events.clear()

    def note(self, said: Sequence[tuple[str, int, str]]) -> None:
        """Add what the kernel's log says, see `kernel_log.xids`; of GPUs that have answered once.

        The log is the only witness of what happened before anybody listened, and of a GPU that can tell no more.
        """
        places = {_place(one.bus): name for name, one in self._known.items() if one.bus is not None}
        for bus, code, _ in said:
            if (name := places.get(_place(bus))) is not None:
                self._add(name, {"xid": code})

    def _add(self, name: str, event: Mapping[str, Any]) -> None:
        heard = self._events.get(name) or replace(self._reading(name), recovery=0, error=None)
        xids = (*heard.xids, int(event["xid"])) if "xid" in event else heard.xids
        self._events[name] = replace(heard, xids=xids, lost=heard.lost or "lost" in event)

    def hear(self, now_s: float) -> None:
        """Take in what was said.

        Args:
            now_s: monotonic time [s].
        """
        fd = self.fd
        while fd is not None and ready([fd], 0.0):
            part = os.read(fd, 65536)
            if not part:
                self._end()  # it has ended: a descriptor that is readable for ever would keep the loop awake
                return
            *lines, self._buffer = (self._buffer + part).split(b"\n")
            for line in lines:
                self._take(json.loads(line), now_s)

    def _take(self, told: dict[str, Any], now_s: float) -> None:
        name = str(told.get("name"))
        match told:
            case {"hello": _}:
                self._until_s = now_s + self.limit_s  # its start is not the driver's time
            case {"reading": dict(reading)}:
                self._readings[name] = found = Reading(**{**reading, "xids": ()})
                if found.uuid is not None:
                    self._known[name] = found
            case {"holders": list(holders)}:
                self._holders[name] = [Holder(**one) for one in holders]
            case {"event": dict(event)}:
                self._add(name, event)
            case {"refused": str(words)}:
                self._refused = words
            case {"over": _}:
                self._answered = self._asked

    def _start(self) -> None:
        self._buffer = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.watch.gpu_sentinel", *self.gpus],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=None if self.environment is None else dict(self.environment),
            start_new_session=True,
        )

    def _send(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), b"look\n")
        except OSError:
            pass  # it has ended, or still hangs: `answer` sees that

    def _end(self) -> None:
        """Let go of a process that has ended, or is ending."""
        if self._process is not None:
            self._process.poll()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
        self._process = None

    def close(self) -> None:
        """End the process that asks, if it lets itself be ended."""
        if self._process is not None:
            self._process.kill()
        self._end()


def look(gpus: Sequence[str], limit_s: float = LIMIT_S, environment: Mapping[str, str] | None = None) -> Look:
    """Ask once, and wait for it: `limit_s` at most once the process that asks has been started.

    Args:
        gpus: as `visible_gpus` names them.
        limit_s: how long the driver may take [s].
        environment: of the process that asks; this one's if not given.
    """
    watch = GpuWatch(gpus, limit_s, environment)
    try:
        watch.ask(time.monotonic())
        while (found := watch.answer(time.monotonic())) is None:
            ready([fd for fd in (watch.fd,) if fd is not None], 0.1)
        return found
    finally:
        watch.close()


def _place(bus: str) -> tuple[int, ...]:
    """An address of the PCI bus, however many digits its domain has been given.

    >>> _place("00000000:cb:00.0") == _place("0000:CB:00")
    True
    """
    return tuple(int(part, 16) for part in bus.partition(".")[0].split(":"))


def neighbours(
    holders: Collection[Holder], own_pids: Collection[int], proc: Path = Path("/proc")
) -> tuple[Holder, ...] | None:
    """Those that are not ours; None in a container, where the driver's numbers of processes are not ours.

    Args:
        holders: from a `Look`.
        own_pids: of the attempt's processes, ended ones included.
        proc: where this process's namespaces stand.
    """
    if not sees_all_pids(proc):
        return None
    return tuple(one for one in holders if one.pid not in own_pids)
