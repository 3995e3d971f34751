"""A rank's seat at the board: who it is, what it publishes, what it is told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from supervisor.board.environment import ATTEMPT, BOARD, LINEAGE, WORLD_SIZE
from supervisor.board.pages import CONTROL, Beat, Control, Orders, Reply, monotonic_s, ring
from supervisor.owner import start_ticks


def supervised(environment: Mapping[str, str] | None = None) -> bool:
    """Whether a supervisor started this process.

    >>> supervised({})
    False
    """
    return bool((os.environ if environment is None else environment).get(BOARD))


class WorldSizeError(RuntimeError):
    """The program trains with another number of processes than were launched."""


@dataclass(slots=True)
class Seat:
    """This process's place among the ranks.

    Attributes:
        board: the board's directory.
        rank: global rank.
        local_rank: on this node; its page of the control file.
        world_size: ranks that were launched.
        attempt: number of the attempt.
        lineage: of the run.
        control: the control file.
    """

    board: Path
    rank: int
    local_rank: int
    world_size: int
    attempt: int
    lineage: int
    control: Control
    _beat: Beat

    @staticmethod
    def take(environment: Mapping[str, str]) -> Seat:
        """Sit down where the environment says.

        The launcher of a single process sets no rank; that process is rank 0.
        """
        board = Path(environment[BOARD])
        return Seat(
            board=board,
            rank=int(environment.get("RANK", "0")),
            local_rank=int(environment.get("LOCAL_RANK", "0")),
            world_size=int(environment.get(WORLD_SIZE, "1")),
            attempt=int(environment[ATTEMPT]),
            lineage=int(environment.get(LINEAGE, "0")),
            control=Control(board / CONTROL),
            _beat=Beat(pid=os.getpid(), start_ticks=start_ticks(os.getpid()) or 0),
        )

    @property
    def leads(self) -> bool:
        """Whether this rank writes what all ranks of the node have in common."""
        return self.local_rank == 0

    @property
    def beat(self) -> Beat:
        """What was published last."""
        return self._beat

    def publish(self, **changes: Any) -> None:
        """Change the beat; costs no system call."""
        self._beat = replace(self._beat, time_s=monotonic_s(), **changes)
        self.control.publish(self.local_rank, self._beat)

    def announce(self, **changes: Any) -> None:
        """Change the beat and wake the supervisor; for rare news."""
        self.publish(**changes)
        ring(self.board)

    def orders(self) -> Orders:
        """What the supervisor wants of all ranks."""
        return self.control.orders()

    def replied(self) -> Reply:
        """What the supervisor answered to this rank."""
        return self.control.replied(self.local_rank)


_seat: list[Seat] = []


def seat() -> Seat:
    """This process's seat, the same object for the bootstrap and the program.

    Raises:
        KeyError: no supervisor started this process; ask `supervised` first.
    """
    if not _seat:
        _seat.append(Seat.take(os.environ))
    return _seat[0]
