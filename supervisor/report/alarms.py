"""The dead man's switch: an address that is asked for while the run goes well, and raises the alarm when it is not.

Going well means that the supervisor says so: it rewrites `progress.json` every 2 s, also while it waits for
a restart, for a node or for storage; when training stands still it is the supervisor that ends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from supervisor.report.settings import Settings

#: How old the supervisor's last word may be [s]; counted from when it changed, on our own clock.
FRESH_S = 30.0
#: The ends at which nobody has to come.
GOOD_ENDS = frozenset({"finished", "stopped", "requeued"})


@dataclass(slots=True)
class _Alarm:
    url: str
    every_s: float
    next_s: float = 0.0
    asked: bool = False
    ended: bool = False


class Alarms:
    """All switches of one run."""

    def __init__(self, settings: Settings) -> None:
        self._alarms = [_Alarm(url, every_s) for _, url, every_s in settings.alarms]
        self._word: float | None = None
        self._moved_s: float | None = None

    def __bool__(self) -> bool:
        return bool(self._alarms)

    def see(self, word: float | None, now_s: float) -> None:
        """What the supervisor last said.

        Args:
            word: when it said so, by its own clock; it only counts that it changes.
            now_s: monotonic time [s].
        """
        if word is None or word == self._word:
            return
        if self._word is not None:  # the first may be of a supervisor that is dead
            self._moved_s = now_s
        self._word = word

    def ask(self, now_s: float, end: str | None) -> list[dict[str, Any]]:
        """The addresses that are to be asked for now, as `supervisor.report.send` takes them.

        Args:
            now_s: monotonic time [s].
            end: the state with which the supervisor left; None as long as it lives.
        """
        fresh = self._moved_s is not None and now_s - self._moved_s < FRESH_S
        asked = []
        for number, alarm in enumerate(self._alarms):
            due = fresh and now_s >= alarm.next_s if end is None else end in GOOD_ENDS and not alarm.ended
            if alarm.asked or not due:
                continue
            alarm.asked, alarm.ended, alarm.next_s = True, end is not None, now_s + alarm.every_s
            asked.append({"id": f"p{number}", "url": alarm.url})
        return asked

    def answer(self, number: int) -> None:
        """The address has been asked for, or could not be."""
        self._alarms[number].asked = False
