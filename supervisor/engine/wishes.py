"""What somebody outside wants: signals and requests, folded into one wish."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.engine.disk import Pending
from supervisor.policy.lifecycle import Wish
from supervisor.watch.requests import stop_asked
from supervisor.watch.signals import Inbox

#: SIGUSR1 and SIGUSR2 are what schedulers send ahead of time; SIGHUP is a terminal that went away.
HANDING_BACK = frozenset({signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP})
_LOOK_EVERY_S = 0.4


@dataclass(slots=True)
class Wishes:
    """The strongest wish so far, and whose it is.

    Attributes:
        inbox: signals.
        run_dir: where requests are left.
        grace_s: assumed when a notice names no deadline [s].
        ignore_hangup: the run outlives its terminal.
        write: the journal's append.
        ask: has something done on the disk, see `engine.disk`; None where requests in the run directory are
            somebody else's business.
        wish: the strongest so far.
        by: who wished it.
        since_s: monotonic time of the first wish to leave [s].
    """

    inbox: Inbox
    run_dir: Path
    grace_s: float
    ignore_hangup: bool
    write: Callable[..., Any]
    ask: Callable[[Callable[[], str | None]], Pending[str | None]] | None = None
    wish: Wish = Wish.GO_ON
    by: str = ""
    since_s: float = 0.0
    _look_again_s: float = 0.0
    _asked: Pending[str | None] | None = None

    def look(self, now_s: float) -> None:
        """Read what has come, at monotonic time ``now_s``.

        A second SIGTERM changes nothing, since SLURM sends several; a second Ctrl-C kills.
        """
        if self.wish is Wish.GO_ON:
            self.since_s = now_s
        for caught in self.inbox.read():
            if caught is signal.SIGINT:
                self._interrupt()
            elif caught is signal.SIGHUP and self.ignore_hangup:
                continue
            elif caught in HANDING_BACK:
                self.hand_back(caught.name)
        if self.ask is not None and self.wish is Wish.GO_ON:
            self._look_for_a_request(self.ask, now_s)

    def _look_for_a_request(self, ask: Callable[[Callable[[], str | None]], Pending[str | None]], now_s: float) -> None:
        if self._asked is None and now_s >= self._look_again_s:
            self._asked, self._look_again_s = ask(lambda: stop_asked(self.run_dir)), now_s + _LOOK_EVERY_S
        if self._asked is None or not self._asked.over:
            return
        asked, self._asked = self._asked, None
        if (asked_by := asked.result()) is not None:
            self.wish, self.by = Wish.STOP, f"`supervisor stop` ({asked_by})"
            self.write("stop_asked", by=asked_by)

    def hand_back(self, by: str) -> None:
        """The machine is needed elsewhere, or will be."""
        if self.wish is Wish.GO_ON:
            self.wish, self.by = Wish.HAND_BACK, by
            self.write("notice", kind=by, grace_s=self.grace_s)

    def stop(self, by: str) -> None:
        """What looked like handing back turns out to be a wish to stop."""
        self.wish, self.by = Wish.STOP, by
        self.write("stop_asked", by=by)

    def stop_once(self, by: str) -> None:
        """Somebody asked for a stop on another node, where the same Ctrl-C may have been heard as here."""
        if self.wish is Wish.GO_ON:
            self.stop(by)

    def _interrupt(self) -> None:
        if self.wish is Wish.STOP:
            self.wish, self.by = Wish.KILL, "Ctrl-C, twice"
        elif self.wish is not Wish.KILL:
            self.wish, self.by = Wish.STOP, "Ctrl-C"
        self.write("stop_asked", by=f"SIGINT ({self.by})")
