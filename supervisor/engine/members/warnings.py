"""What members' clouds gave notice of: folded from what members say again and again, told once to the leader."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from supervisor.engine.members.messages import Warned
from supervisor.policy.notices import Notice, Withdrawn


@dataclass(slots=True)
class Warnings:
    """The notice that stands on each member's node; one that was lost keeps its own until it comes back without."""

    _standing: dict[int, Warned] = field(default_factory=dict)
    _news: list[tuple[str, Warned | None, Warned | None]] = field(default_factory=list)

    def hear(self, node: int, warned: Warned | None, host: str = "?") -> None:
        """A member has said how it is.

        Args:
            node: its number.
            warned: the notice that stands there; None without one.
            host: its machine's name.
        """
        before = self._standing.get(node)
        if warned is before or (warned is not None and warned.same_as(before)):
            return
        where = f"node {node}" if host == "?" else f"node {node} ({host})"
        if warned is None:
            del self._standing[node]
        else:
            self._standing[node] = warned
        self._news.append((where, before, warned))

    def forget(self, nodes: Iterable[int]) -> None:
        """The run goes on without these."""
        for node in nodes:
            self.hear(node, None)

    def take(self, wall_s: float) -> list[Notice | Withdrawn]:
        """What is new since this was asked last.

        Args:
            wall_s: wall time here [unix s]; what members tell is how much is left.
        """
        taken, self._news = self._news, []
        found: list[Notice | Withdrawn] = []
        for where, before, warned in taken:
            key = where.partition(" (")[0]
            if before is not None and (warned is None or warned.cloud != before.cloud):
                found.append(Withdrawn(before.cloud, before.detail, key))
            if warned is not None:
                deadline_s = None if warned.left_s is None else wall_s + warned.left_s
                kind = f"{warned.kind} on {where}"
                found.append(Notice(warned.cloud, kind, deadline_s, warned.detail, warned.urgent, key))
        return found
