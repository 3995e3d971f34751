"""Several supervisors of one run, each for a node of its own, on one machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.board.environment import MARKER, marker
from supervisor.board.pages import CONTROL, Beat, Control, Orders
from supervisor.board.store import board_name
from supervisor.launch.processes import marked
from supervisor.owner import start_ticks
from tests.harness import Run, orders_on, send, until
from tests.ports import own_port


@dataclass
class Nodes(Run):
    """A run of several nodes; `process` is the leader's supervisor."""

    count: int = 2
    members: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = field(default_factory=own_port)
    through: Callable[[int], list[str]] = lambda _node: []

    def start(self, *flags: str) -> Nodes:
        self.write_job()
        self.process = self.start_node(0, *flags)
        for node in range(1, self.count):
            self.members[node] = self.start_node(node, *flags)
        return self

    def start_node(self, node: int, *flags: str, job: str = "job.yaml") -> subprocess.Popen[bytes]:
        told = ["--node-rank", str(node), "--nodes", str(self.count), "--leader", f"{self.host}:{self.port}"]
        command = [*self.through(node), sys.executable, "-m", "supervisor", "run", str(self.base / job), *told, *flags]
        with (self.base / ("supervisor.log" if node == 0 else f"supervisor-{node}.log")).open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **self.environment}
            )

    def codes(self, patience_s: float = 400.0) -> list[int]:
        """How all of them left, the leader first."""
        return [self.wait(patience_s), *(self.members[n].wait(120.0) for n in sorted(self.members))]

    def supervisors(self) -> list[subprocess.Popen[bytes]]:
        assert self.process is not None
        return [self.process, *(self.members[n] for n in sorted(self.members))]

    def pids(self) -> list[int]:
        return [*(one.pid for one in self.supervisors()), *self.workers()]

    def board_of(self, node: int) -> Path:
        return self.board().with_name(board_name(self.run_id(), node))

    def orders(self) -> list[Orders]:
        return [orders_on(self.board_of(node)) for node in range(self.count)]

    def beats_of(self, node: int) -> list[Beat]:
        try:
            control = Control(self.board_of(node) / CONTROL)
        except (OSError, IndexError, ValueError):
            return []
        try:
            return [control.beat(rank) for rank in range(control.ranks)]
        finally:
            control.close()

    def beats(self) -> list[Beat]:
        return [beat for node in range(self.count) for beat in self.beats_of(node)]

    def workers_of(self, node: int) -> list[int]:
        """Ranks of a node that live."""
        return [beat.pid for beat in self.beats_of(node) if beat.pid and start_ticks(beat.pid)]

    def processes_of(self, node: int) -> list[int]:
        """All processes of a node's attempts: launcher, ranks, and what they started."""
        return [
            pid
            for attempt in range(1, len(self.journal("attempt_started")) + 1)
            for pid in marked(f"{MARKER}={marker(self.run_id(), attempt, node)}")
        ]

    def kill_node(self, node: int) -> None:
        """SIGKILL to all of a node, its supervisor first."""
        supervisor = self.supervisors()[node]
        for pid in [supervisor.pid, *self.processes_of(node)]:
            send(pid, signal.SIGKILL)
        supervisor.wait(30)

    def words(self) -> str:
        """What all supervisors said."""
        return "\n".join(f"{log.name}:\n{log.read_text(errors='replace')}" for log in self.base.glob("supervisor*.log"))

    def until_gone(self, pids: list[int], patience_s: float) -> None:
        until(lambda: not any(start_ticks(pid) for pid in pids), "end of the workers", patience_s)
