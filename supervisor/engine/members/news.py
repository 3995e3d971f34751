"""What is new of the members since it was asked last: each thing is told once, by the member's host."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from supervisor.engine.members.messages import Seen

T = TypeVar("T")


@dataclass(slots=True)
class News:
    """Gathers what is said until somebody takes it."""

    _notices: list[tuple[str, str]] = field(default_factory=list)
    _stops: list[str] = field(default_factory=list)
    _shortages: list[tuple[str, str]] = field(default_factory=list)
    _refusals: list[str] = field(default_factory=list)
    _sent_away: dict[int, str] = field(default_factory=dict)  # what was said of it; they come again and again

    def hear(self, host: str, seen: Seen, before: Seen | None) -> None:
        """A member has said how it is, and what it said before."""
        if seen.notice is not None and (before is None or before.notice is None):
            self._notices.append((seen.notice, host))
        if seen.shortage is not None and (before is None or before.shortage != seen.shortage):
            self._shortages.append((seen.shortage, host))
        if seen.stop and not (before is not None and before.stop):
            self._stops.append(host)

    def sent_away(self, node: int, words: str) -> None:
        """A member cannot take part; that is told again only when it is for another reason."""
        if self._sent_away.get(node) != words:
            self._sent_away[node] = words
            self._refusals.append(words)

    def joined(self, node: int) -> None:
        """It takes part after all."""
        self._sent_away.pop(node, None)

    def take_notices(self) -> list[tuple[str, str]]:
        """Signals that members heard of, and where."""
        return _taken(self._notices)

    def take_stops(self) -> list[str]:
        """Hosts of members where somebody asked the run to stop."""
        return _taken(self._stops)

    def take_shortages(self) -> list[tuple[str, str]]:
        """What members saw of memory that comes to its end, and where."""
        return _taken(self._shortages)

    def take_refusals(self) -> list[str]:
        """Members that were sent away, and why."""
        return _taken(self._refusals)


def _taken(told: list[T]) -> list[T]:
    found = list(told)
    told.clear()
    return found
