"""Holding a run: the owner shows that it lives, and finds out when it owns the run no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from supervisor.engine.disk import Disk, Pending
from supervisor.engine.state.mirroring import Mirroring
from supervisor.errors import DiskError, OwnedError, TakenOverError
from supervisor.lease import RENEW_EVERY_S, Lease


@dataclass(slots=True)
class Tenure:
    """Renews the lease, on the thread that does what may hang.

    Attributes:
        lease: of the run.
        disk: does it.
        end_workers: ends ours, before anybody is told that the run is another's.
        mirror: has a lease of its own, which its keeper renews.
    """

    lease: Lease
    disk: Disk
    end_workers: Callable[[], None]
    mirror: Mirroring = field(default_factory=Mirroring)
    _renewed_at_s: float = 0.0
    _renewal: Pending[None] | None = None

    def renew(self, now_s: float) -> None:
        """Show that this owner lives, if it is time to.

        Args:
            now_s: monotonic time [s].

        Raises:
            TakenOverError: somebody else owns the run; our workers are gone by then.
        """
        try:
            self.mirror.look(now_s)
        except TakenOverError:
            self.end_workers()
            raise
        if self._renewal is None and now_s - self._renewed_at_s >= RENEW_EVERY_S:
            self._renewal, self._renewed_at_s = self.disk.ask(self.lease.renew), now_s
        if self._renewal is None or not self._renewal.over:
            return
        renewal, self._renewal = self._renewal, None
        try:
            renewal.result()
        except OwnedError as error:
            self.end_workers()
            raise TakenOverError(error.problem, error.remedy) from error
        except DiskError:
            return  # nothing is known, so nothing changes; commits ask again before they count
