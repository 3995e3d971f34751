"""Asking this node's ranks what they are at, on a thread: what is asked may hang, and the loop may not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from supervisor.board.environment import STACKS_SIGNAL, trace_file, trace_pipe
from supervisor.board.pages import Beat
from supervisor.engine.disk import Disk, Pending
from supervisor.policy.stalls import Account
from supervisor.watch.witness import Suspect, accounts_of, bare_account

#: How long a node may take over it [s]; with the way to the leader that is within the limit of all.
LIMIT_S = 2.0
#: How often is looked whether a trace has come [s].
_PAUSE_S = 0.05

Accounts = tuple[Account, ...]


@dataclass(slots=True)
class Inquiry:
    """Asks the ranks of one node.

    Attributes:
        board: the board's directory, where torch listens for who wants a trace of its collectives.
        use_of_gpus: tells how busy the GPUs of the ranks are, in their order.
        limit_s: how long it may take [s].
        number: of the last question, 0 before the first.
    """

    board: Path
    use_of_gpus: Callable[[], Sequence[int | None]]
    limit_s: float = LIMIT_S
    number: int = 0
    _suspects: tuple[Suspect, ...] = ()
    _asked_s: float = 0.0
    _pending: Pending[Accounts] | None = None
    _answers: int = 0  # the question that is pending
    _thread: Disk | None = field(default=None)

    def ask(self, number: int, beats: Sequence[Beat], logs: Path, first_rank: int, *, native: bool) -> None:
        """Begin to ask.

        Args:
            number: of the question.
            beats: of the ranks.
            logs: directory of the attempt's logs.
            first_rank: global rank of the lowest of them.
            native: whether what lies below Python is wanted as well.
        """
        self.number, self._asked_s = number, time.monotonic()
        self._suspects = tuple(
            Suspect(first_rank + n, beat.pid, beat.start_ticks, logs / f"rank-{first_rank + n}.stacks.txt")
            for n, beat in enumerate(beats)
        )
        if self._pending is not None and not self._pending.over:
            return  # the last question hangs somewhere; another thread would hang there, too
        steps = sorted({beat.step for beat in beats})
        heading = f"settled steps {steps}, {time.strftime('%Y-%m-%d %H:%M:%S')}"
        suspects = self._suspects
        self._answers, self._thread = number, self._thread or Disk()
        self._pending = self._thread.ask(lambda: self._find_out(suspects, heading, logs, native=native))

    def answer(self) -> Accounts | None:
        """What is known; None while more may come."""
        pending = self._pending if self._answers == self.number else None
        if pending is not None and pending.over:
            return pending.result()
        if time.monotonic() - self._asked_s < self.limit_s:
            return None
        return tuple(bare_account(one) for one in self._suspects)

    def _find_out(self, suspects: Sequence[Suspect], heading: str, logs: Path, *, native: bool) -> Accounts:
        until_s = time.monotonic() + 0.9 * self.limit_s
        traces = {one.rank: before for one in suspects if (before := self._ask_trace(one.rank, logs)) is not None}
        told = accounts_of(
            suspects, signum=STACKS_SIGNAL, heading=heading, limit_s=until_s - time.monotonic(), native=native
        )
        uses = list(self.use_of_gpus())
        found = []
        for n, one in enumerate(told):
            came = one.rank in traces and _has_changed(trace_file(logs, one.rank), traces[one.rank], until_s)
            files = (*one.files, trace_file(logs, one.rank).name) if came else one.files
            found.append(replace(one, files=files, gpu_percent=uses[n] if n < len(uses) else None))
        return tuple(found)

    def _ask_trace(self, rank: int, logs: Path) -> float | None:
        """Ask torch for the last collectives of a rank; when it wrote them last [unix s], None if it does not listen.

        Nothing here reads what it writes: that is a pickle.

        Source: torch 2.13, ProcessGroupNCCL.hpp, `DumpPipe`.
        """
        try:
            descriptor = os.open(trace_pipe(self.board, logs, rank), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            os.write(descriptor, b"1")
        except OSError:
            return None
        finally:
            os.close(descriptor)
        return _changed_at(trace_file(logs, rank))


def _has_changed(path: Path, before: float, until_s: float) -> bool:
    while _changed_at(path) == before:
        if time.monotonic() >= until_s:
            return False
        time.sleep(_PAUSE_S)
    return True


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
