"""Metrics put where they are read: in files, whole by rename, and on ports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from supervisor.report.fold import RunHistory
from supervisor.report.live import Live
from supervisor.report.metrics import metrics
from supervisor.report.notified import put
from supervisor.report.port import MetricsPort
from supervisor.report.settings import Settings
from supervisor.report.status import summary

#: How often figures are made [s].
EVERY_S = 15.0


@dataclass(slots=True)
class Meter:
    """Makes the figures of one run.

    Attributes:
        settings: where they go.
        see: told of each place whether it works.
    """

    settings: Settings
    see: Callable[[str, bool], None]
    _ports: dict[tuple[str, int], MetricsPort] = field(default_factory=dict)
    _next_s: float = 0.0

    @property
    def asked(self) -> bool:
        """Whether anybody wants figures."""
        return bool(self.settings.files or self.settings.ports)

    def due(self, now_s: float) -> bool:
        """Whether it is time, at this monotonic time [s]."""
        return self.asked and now_s >= self._next_s

    def write(self, history: RunHistory, live: Live, now: float, now_s: float, *, up: bool, state: str | None) -> None:
        """Put the figures in place.

        Args:
            history: of the run.
            live: what its supervisor says.
            now: the wall clock [unix s].
            now_s: monotonic time [s].
            up: whether the supervisor lives.
            state: what it left the run in; None while it lives.
        """
        self._next_s = now_s + EVERY_S
        told = summary(history, self.settings.run_dir, now, live)
        told |= {} if state is None else {"state": state, "steps_per_s": None}
        text = metrics(told, run_id=history.run_id, attempts=len(history.counted), up=up)
        for file in self.settings.files:
            try:
                put(file, text, 0o644)  # node_exporter is another user
                self.see(str(file), True)
            except OSError:
                self.see(str(file), False)
        for host, port in self.settings.ports:
            self._serve(host, port, text)

    def _serve(self, host: str, port: int, text: str) -> None:
        if (host, port) not in self._ports:
            try:
                self._ports[host, port] = MetricsPort(host, port)
            except OSError:
                self.see(f"{host}:{port}", False)
                return
        self._ports[host, port].text = text
        self.see(f"{host}:{port}", True)
