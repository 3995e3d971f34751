"""The workers of one attempt: started, watched, and ended to the last process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from supervisor.board.environment import MARKER
from supervisor.board.pages import Beat, Phase
from supervisor.engine.disk import Disk, Pending
from supervisor.engine.ranks.evidence import Scene, ends_of, launcher_words
from supervisor.launch.command import Launch
from supervisor.launch.exits import exit_of
from supervisor.launch.processes import Children, kill, marked, spawn
from supervisor.policy.causes import RankEnd
from supervisor.policy.lifecycle import Gang
from supervisor.watch import kernel_log
from supervisor.watch.cgroups import kills_since, oom_kills
from supervisor.watch.kernel_log import killed_by_kernel
from supervisor.watch.ready import ready

#: How long processes may take to leave after their program returned: trackers upload in that time.
LINGER_S = 60.0
#: How long the other ranks may take to record how they ended, once one is gone. A root cause on
#: one rank and its echo on another are milliseconds apart.
TESTIMONY_S = 0.3
#: How long the reading of what they left may take [s]: without room on the board, their logs are on disk.
EVIDENCE_S = 3.0
#: How long the loop itself waits for that [s]; on a healthy disk it is over then.
READ_S = 0.05
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
        kills: counts the processes that the kernel has killed here for memory; None where it does not say.
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
    kills: Callable[[], int | None] = oom_kills
    _launcher: int = 0
    _watched: dict[int, int] = field(default_factory=dict)  # rank -> pidfd
    _pids: set[int] = field(default_factory=set)
    _ended: dict[int, float] = field(default_factory=dict)  # rank -> when its process was seen to be gone
    _exits: dict[int, int] = field(default_factory=dict)  # rank -> exit code, or its signal, negative
    _fell: dict[int, float] = field(default_factory=dict)  # those of `_ended` that were not killed from here
    _kills_before: int | None = None
    _killed_for_memory: int | None = None
    _kernel_mark: int | None = None
    _begun: bool = False
    _reading: Pending[tuple[tuple[RankEnd, ...], str | None]] | None = None
    _reading_since_s: float = 0.0
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

    def begin(self) -> None:
        """Their attempt begins: what the kernel kills from now on is a matter of theirs."""
        self._begun, self._kills_before, self._kernel_mark = True, self.kills(), kernel_log.end()

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
                code = exit_of(beats[rank].pid, descriptor)
                if code is not None:
                    self._exits[rank] = code

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
            if self._begun:  # the beats of those that stand by are others'
                self._watch([self.beat(rank) for rank in range(self.ranks)], time.monotonic())
            self._fell = dict(self._ended)
        self._killing = True
        self._sweep()

    def _wait_for_testimony(self) -> None:
        """Give ranks that are failing right now the moment it takes to write down why, and the launcher its own.

        On kernels that do not tell how a process ended that was not their child, the launcher has to.
        """
        if not self._ended:
            return
        until_s = time.monotonic() + TESTIMONY_S
        while time.monotonic() < until_s and not self._testified():
            time.sleep(0.01)

    def _testified(self) -> bool:
        beats = [self.beat(rank) for rank in range(self.ranks)]
        told = all(beats[rank].phase in (Phase.FAILED, Phase.FINISHED) or rank in self._exits for rank in self._ended)
        others = (beat.phase for rank, beat in enumerate(beats) if rank not in self._ended)
        launcher = told or self.children.status(self._launcher) is not None
        return launcher and all(phase in (Phase.FAILED, Phase.PAUSED) for phase in others)

    def _sweep(self) -> Gang:
        left = marked(f"{MARKER}={self.marker}")
        kill(left)
        self._launcher_status = self.children.status(self._launcher)
        if left:
            return Gang.BROKEN
        self._dead_since_s = self._dead_since_s or time.monotonic()
        if time.monotonic() - self._dead_since_s < RESOURCE_S and self.resource_held(self._pids):
            return Gang.BROKEN
        if not self._read():
            return Gang.BROKEN
        self._gone = True
        return Gang.GONE

    def _read(self) -> bool:
        """Whether what they left has been read, or there is no more waiting for it."""
        if not self._begun:
            return True  # they only stood by
        if self._reading is None:
            disk = Disk()
            scene, status = self._scene(), None if self._watched or self._ended else self._launcher_status
            log, mark = self._launcher_log, self._kernel_mark
            self._reading = disk.ask(lambda: (ends_of(_with_kernel_words(scene, mark)), _words(log, status)))
            self._reading_since_s = time.monotonic()
            disk.close(READ_S)
        return self._reading.over or time.monotonic() - self._reading_since_s > EVIDENCE_S

    def _scene(self) -> Scene:
        """What the reader needs to know, as it is now."""
        self._killed_for_memory = kills_since(self._kills_before, self.kills())
        to_unix_s = time.time() - time.monotonic()
        beats = [self.beat(rank) for rank in range(self.ranks)]
        return Scene(
            logs=self.logs,
            launcher_log=self._launcher_log,
            first_rank=self.first_rank,
            ranks=self.ranks,
            ended={rank: at_s + to_unix_s for rank, at_s in self._fell.items()},
            finished=frozenset(rank for rank, beat in enumerate(beats) if beat.phase == Phase.FINISHED),
            exits={rank: code for rank, code in self._exits.items() if rank in self._fell},
            oom_kills=self._killed_for_memory,
            beats=beats,
        )

    def close(self) -> None:
        """Close the descriptors."""
        self.children.forget(self._launcher)
        for descriptor in self._watched.values():
            os.close(descriptor)
        self._watched.clear()

    # -- testimony

    @property
    def ends(self) -> tuple[RankEnd, ...]:
        """How the ranks ended that ended badly before they were killed; none before all are gone."""
        return self._read_result[0]

    @property
    def launcher_words(self) -> str | None:
        """Why the launcher ended, if that was before any rank began; None before all are gone."""
        return self._read_result[1]

    @property
    def oom_kills(self) -> int | None:
        """How many processes the kernel has killed here for memory since the attempt began; None while unknown."""
        return self._killed_for_memory

    @property
    def _read_result(self) -> tuple[tuple[RankEnd, ...], str | None]:
        reading = self._reading
        return reading.result() if reading is not None and reading.over else ((), None)


def _with_kernel_words(scene: Scene, mark: int | None) -> Scene:
    said = kernel_log.since(mark)
    return replace(scene, killed=frozenset(n for n, beat in enumerate(scene.beats) if killed_by_kernel(beat.pid, said)))


def _words(log: Path, status: int | None) -> str | None:
    return None if status is None else launcher_words(log, os.waitstatus_to_exitcode(status))
