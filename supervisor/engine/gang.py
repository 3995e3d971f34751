"""The workers of one attempt: started, watched, and ended to the last process."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.board.environment import MARKER
from supervisor.board.pages import Beat, Phase
from supervisor.launch.command import Launch
from supervisor.launch.processes import Children, kill, marked, spawn
from supervisor.policy.causes import RankEnd
from supervisor.policy.lifecycle import Gang
from supervisor.watch.ready import ready

#: How long processes may take to leave after their program returned: trackers upload in that time.
LINGER_S = 60.0
#: How long the other ranks may take to record how they ended, once one is gone. A root cause on
#: one rank and its echo on another are milliseconds apart.
TESTIMONY_S = 0.3
#: A GPU's driver may take this long to give a killed process's memory back [s].
RESOURCE_S = 30.0


@dataclass(slots=True)
class Workers:
    """One attempt's launcher and ranks.

    Attributes:
        launch: how they are started.
        marker: that all their processes carry.
        logs: directory of this attempt's logs.
        beat: asks for the newest beat of a local rank.
        ranks: how many.
        first_rank: global rank of the lowest of them.
        resource_held: asked with the pids of killed ranks; true while a device still counts
            their memory.
        children: tells how the launcher ended; shared with other workers of this process.
    """

    launch: Launch
    marker: str
    logs: Path
    beat: Callable[[int], Beat]
    ranks: int
    resource_held: Callable[[set[int]], bool]
    children: Children
    first_rank: int = 0
    _launcher: int = 0
    _watched: dict[int, int] = field(default_factory=dict)  # rank -> pidfd
    _pids: set[int] = field(default_factory=set)
    _ended: dict[int, float] = field(default_factory=dict)  # rank -> when its process was seen to be gone
    _launcher_status: int | None = None
    _killing: bool = False
    _done_since_s: float | None = None
    _gone: bool = False
    _dead_since_s: float = 0.0

    def start(self, environment: Mapping[str, str]) -> None:
        """Start the launcher.

        Raises:
            OSError: it could not be started.
        """
        if self.launch.config is not None:
            self.launch.config_path.touch(mode=0o600)
            self.launch.config_path.write_text(self.launch.config)
        made = {**environment, **self.launch.environment}
        process = spawn(self.launch.command, made, self._launcher_log)
        self._launcher = process.pid
        self.children.expect(process.pid)
        process.returncode = 0  # it is reaped here, with everything else; Popen must not wait for it too

    @property
    def _launcher_log(self) -> Path:
        """One of each node, in a directory that they may share."""
        return self.logs / ("launcher.log" if self.first_rank == 0 else f"launcher-{self.first_rank}.log")

    @property
    def fds(self) -> list[int]:
        """Readable when a rank has ended; for `select`."""
        return [fd for rank, fd in self._watched.items() if rank not in self._ended]

    def look(self, now_s: float) -> Gang:
        """See who is there.

        Args:
            now_s: monotonic time [s].
        """
        if self._gone:
            return Gang.GONE
        self._launcher_status = self.children.status(self._launcher)
        beats = [self.beat(rank) for rank in range(self.ranks)]
        self._watch(beats, now_s)
        if self._killing:
            return self._sweep()
        if all(beat.phase == Phase.FINISHED for beat in beats):
            return self._leaving(now_s)
        broken = any(
            beat.phase == Phase.FAILED or (rank in self._ended and beat.phase != Phase.FINISHED)
            for rank, beat in enumerate(beats)
        )
        return Gang.BROKEN if broken or self._launcher_status is not None else Gang.ALIVE

    def _watch(self, beats: list[Beat], now_s: float) -> None:
        for rank, beat in enumerate(beats):
            if beat.pid and rank not in self._watched:
                self._pids.add(beat.pid)
                try:
                    descriptor = os.pidfd_open(beat.pid)
                except ProcessLookupError:
                    self._ended.setdefault(rank, now_s)
                    continue
                self._watched[rank] = descriptor
        for rank, descriptor in self._watched.items():
            if rank not in self._ended and ready([descriptor], 0.0):
                self._ended[rank] = now_s

    def _leaving(self, now_s: float) -> Gang:
        """Every program returned; the processes may take a while to leave."""
        if self._done_since_s is None:
            self._done_since_s = now_s
        if self._launcher_status is not None and not marked(f"{MARKER}={self.marker}"):
            self._gone = True
            return Gang.GONE
        return Gang.DONE

    def lingers(self, now_s: float) -> bool:
        """Whether a finished gang's processes stay longer than they should."""
        return self._done_since_s is not None and now_s - self._done_since_s > LINGER_S

    @property
    def left(self) -> bool:
        """Whether the launcher has ended; asked of workers that stand by, which have no beats yet."""
        return self.children.status(self._launcher) is not None

    @property
    def gone(self) -> bool:
        """Whether a kill has left no process."""
        return self._gone

    @property
    def finished(self) -> bool:
        """Whether every rank recorded that its program returned."""
        return self._done_since_s is not None

    def kill(self) -> None:
        """End every process of the attempt; `look` tells when none is left."""
        if not self._killing:
            self._wait_for_testimony()
        self._killing = True
        self._sweep()

    def _wait_for_testimony(self) -> None:
        """Give ranks that are failing right now the moment it takes to write down why."""
        if not self._ended or len(self._ended) == self.ranks:
            return
        until_s = time.monotonic() + TESTIMONY_S
        while time.monotonic() < until_s:
            phases = [self.beat(rank).phase for rank in range(self.ranks) if rank not in self._ended]
            if all(phase in (Phase.FAILED, Phase.PAUSED) for phase in phases):
                return
            time.sleep(0.01)

    def _sweep(self) -> Gang:
        left = marked(f"{MARKER}={self.marker}")
        kill(left)
        self._launcher_status = self.children.status(self._launcher)
        if left:
            return Gang.BROKEN
        self._dead_since_s = self._dead_since_s or time.monotonic()
        if time.monotonic() - self._dead_since_s < RESOURCE_S and self.resource_held(self._pids):
            return Gang.BROKEN
        self._gone = True
        return Gang.GONE

    def close(self) -> None:
        """Close the descriptors."""
        self.children.forget(self._launcher)
        for descriptor in self._watched.values():
            os.close(descriptor)
        self._watched.clear()

    # -- testimony

    def ends(self) -> list[RankEnd]:
        """How the ranks ended that ended badly before they were killed, as far as it was recorded."""
        found = []
        for rank in range(self.ranks):
            recorded = self._recorded(rank)
            if recorded is not None:
                found.append(recorded)
            elif rank in self._ended and self.beat(rank).phase != Phase.FINISHED:
                ended_s = self._ended[rank] + time.time() - time.monotonic()
                found.append(RankEnd(self.first_rank + rank, ended_s))
        return found

    def _recorded(self, rank: int) -> RankEnd | None:
        try:
            told = json.loads((self.logs / f"rank-{self.first_rank + rank}.error.json").read_text())
        except (OSError, ValueError):
            return None
        code = told.get("exit_code")
        return RankEnd(
            rank=self.first_rank + rank,
            time_s=float(told.get("time", 0.0)),
            error_type=str(told.get("type")),
            bases=tuple(told.get("bases", ())),
            message=str(told.get("message", "")),
            exit_code=code if isinstance(code, int) else None,
        )

    def launcher_words(self) -> str | None:
        """The last line that the launcher wrote, if it ended before any rank began."""
        if self._launcher_status is None or self._watched or self._ended:
            return None
        try:
            lines = self._launcher_log.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        code = os.waitstatus_to_exitcode(self._launcher_status)
        return f"exit code {code}, {lines[-1][:500]}" if lines else f"exit code {code}"
