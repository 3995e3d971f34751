"""What a hub or a line reports: past facts, in the order in which they came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from supervisor.link.wire import Frame


@dataclass(frozen=True, slots=True)
class Joined:
    """The other end is there, and has proved the token. What was queued for it before is gone.

    Attributes:
        node: the member's; 0 on a line, for the leader.
        fields: the member's hello; on a line, the leader's welcome.
    """

    node: int
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Heard:
    """The other end said something."""

    node: int
    frame: Frame


@dataclass(frozen=True, slots=True)
class Lost:
    """The other end, which had joined, is gone; ``reason`` says how that was noticed."""

    node: int
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """On a line: the leader does not want this member.

    It is told once as long as the reason stays the same. The line goes on trying, since a node
    number that is taken may become free; who does not want that closes it.

    Attributes:
        reason: in words.
        fields: what the leader told besides.
    """

    reason: str
    fields: Mapping[str, Any]


Event = Joined | Heard | Lost | Refused
