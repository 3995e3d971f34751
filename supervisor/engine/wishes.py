"""What somebody outside wants: signals, requests, and notices of a cloud, folded into one wish."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.engine.disk import Pending
from supervisor.policy.causes import Cause
from supervisor.policy.lifecycle import Wish
from supervisor.policy.notices import CommitNow, DrainNow, Heard, News, Notice, Unread, Withdrawn, answer, take
from supervisor.watch.clouds.watch import CloudWatch
from supervisor.watch.requests import stop_asked
from supervisor.watch.signals import Inbox

#: SIGUSR1 and SIGUSR2 are what schedulers send ahead of time; SIGHUP is a terminal that went away.
HANDING_BACK = frozenset({signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP})
_LOOK_EVERY_S = 0.4
#: Of a cloud's own words so many are repeated as evidence.
_WORDS = 300


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
        clouds: where notices are heard; None where nobody listens.
        wall: the clock by which clouds name their deadlines [unix s].
        wish: the strongest so far.
        by: who wished it.
        since_s: monotonic time of the first wish to leave [s].
        standing: notices that were heard of and not withdrawn.
        safety_due: nothing has been committed since the last of them.
        left_for: the notice that became the wish to leave.
    """

    inbox: Inbox
    run_dir: Path
    grace_s: float
    ignore_hangup: bool
    write: Callable[..., Any]
    ask: Callable[[Callable[[], str | None]], Pending[str | None]] | None = None
    clouds: CloudWatch | None = None
    wall: Callable[[], float] = time.time
    wish: Wish = Wish.GO_ON
    by: str = ""
    since_s: float = 0.0
    standing: tuple[Heard, ...] = ()
    safety_due: bool = False
    left_for: Notice | None = None
    _look_again_s: float = 0.0
    _asked: Pending[str | None] | None = None

    @property
    def fds(self) -> tuple[int, ...]:
        """Readable when there is something to look at."""
        return (self.inbox.fd,) if self.clouds is None else (self.inbox.fd, self.clouds.fd)

    @property
    def leave_by_s(self) -> float | None:
        """Monotonic time at which the machine may be gone [s]; None as long as nobody wants us to leave."""
        if self.wish is Wish.GO_ON:
            return None
        told = [one.deadline_s for one in self.standing if one.notice.urgent and one.deadline_s is not None]
        return min(told) if self.left_for is not None and told else self.since_s + self.grace_s

    def look(self, now_s: float, *, secured_s: float | None = None, commit_s: float = 0.0) -> None:
        """Read what has come.

        A second SIGTERM changes nothing, since SLURM sends several; a second Ctrl-C kills.

        Args:
            now_s: monotonic time [s].
            secured_s: monotonic time at which the last commit that succeeded was begun [s]; None without one.
            commit_s: how long it took [s].
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
        if self.clouds is not None:
            self.hear(self.clouds.events(), now_s)
        self._weigh(now_s, secured_s, commit_s)

    def hear(self, told: Iterable[News], now_s: float) -> None:
        """Notices have come, or gone.

        Args:
            told: oldest first.
            now_s: monotonic time [s].
        """
        for news in told:
            if isinstance(news, Unread):
                words = f"{news.cloud}: its notices cannot be read: {news.detail}"
                self.write("incident", cause=Cause.NETWORK.value, detail=words, decision="it is asked again")
                continue
            self._write_down(news)
            self.standing = take(self.standing, news, wall_s=self.wall(), now_s=now_s)

    def _write_down(self, news: Notice | Withdrawn) -> None:
        if isinstance(news, Notice):
            named = {"deadline": news.deadline_s} if news.deadline_s is not None else {"grace_s": self.grace_s}
            self.write("notice", kind=str(news), detail=news.detail, urgent=news.urgent, **named)
            return
        before = [one.notice for one in self.standing if (one.notice.cloud, one.notice.key) == (news.cloud, news.key)]
        self.write("notice", kind=str(before[0] if before else news.cloud), detail=news.detail, withdrawn=True)

    def _weigh(self, now_s: float, secured_s: float | None, commit_s: float) -> None:
        follows = answer(self.standing, now_s=now_s, secured_s=secured_s, commit_s=commit_s)
        self.safety_due = isinstance(follows, CommitNow)
        if isinstance(follows, DrainNow) and self.wish is Wish.GO_ON:
            self.left_for = follows.notice
            words = f"{follows.notice} ({follows.notice.detail})"
            self.wish, self.by = Wish.HAND_BACK, words if len(words) <= _WORDS else f"{words[:_WORDS]}…"

    def leave(self, *, secured: bool) -> None:
        """The process leaves: a cloud need not wait for it any longer, once it is gone.

        Args:
            secured: everything that memory held is on disk.
        """
        if self.clouds is not None and self.left_for is not None and self.wish is Wish.HAND_BACK and secured:
            self.clouds.acknowledge(self.left_for)

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
