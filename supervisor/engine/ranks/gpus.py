"""This node's GPUs: how they are before an attempt, what they report during it, and how they are when it failed.

Nothing here waits. What a driver does not answer in time is unknown, and unknown holds nothing up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from supervisor.board.store import human_bytes
from supervisor.policy.causes import Verdict
from supervisor.policy.gpu_health import Health, app_fault, fault_of
from supervisor.watch import kernel_log
from supervisor.watch.gpu_health import GpuWatch, Look, neighbours


@dataclass(slots=True)
class Gpus:
    """Those that the ranks here use; without any, everything is answered at once, and by nothing.

    Attributes:
        watch: asks about them; None where ranks use none.
        mark: asks for the end of the kernel's log.
        since: asks for what stands in it from there on.
    """

    watch: GpuWatch | None
    mark: Callable[[], int | None] = kernel_log.end
    since: Callable[[int | None], list[str] | None] = kernel_log.since
    _begun_at: int | None = None
    _found: Look | None = None  # the answer to the last question
    _wanted: bool = False  # a question is to be asked as soon as the one under way is answered
    _seeking: bool = False  # whether killed processes still hold memory has been asked

    @property
    def fds(self) -> list[int]:
        """Readable when there is something to `look` at; for `select`."""
        fd = self.watch.fd if self.watch is not None else None
        return [] if fd is None else [fd]

    @staticmethod
    def of(names: Sequence[str] | None) -> Gpus:
        """Those that are named; None on a machine without any."""
        return Gpus(GpuWatch(names) if names else None)

    def begin_attempt(self) -> None:
        """What was reported so far belongs to earlier attempts; ask how the GPUs are now."""
        if self.watch is None:
            return
        self.watch.forget()
        self._begun_at = self.mark()
        self.ask()

    def ask(self) -> None:
        """Ask anew, as when an attempt has failed; `look` tells when the answer is there."""
        self._found, self._wanted = None, self.watch is not None
        self.look()

    def look(self) -> bool:
        """Hear what has come; whether the last question has been answered."""
        if self.watch is None:
            return True
        now_s = time.monotonic()
        found = self.watch.answer(now_s) if self.watch.asking else None
        self.watch.hear(now_s)
        if self._wanted and not self.watch.asking:
            self._wanted = False
            self.watch.ask(now_s)
        elif found is not None and not self._wanted:
            self._found = self._with_kernel_words(self.watch, found, now_s)
        return self._found is not None

    def _with_kernel_words(self, watch: GpuWatch, found: Look, now_s: float) -> Look:
        said = kernel_log.xids(self.since(self._begun_at))
        if not said:
            return found
        watch.note(said)
        return watch.answer(now_s) or found

    @property
    def healths(self) -> tuple[Health, ...]:
        """How they are by the last answer; none before there is one."""
        return self._found.healths if self._found is not None else ()

    @property
    def fault(self) -> Verdict | None:
        """The verdict that a GPU speaks, by the last answer and by what has been reported since the attempt began."""
        heard = self.watch.heard if self.watch is not None else ()
        return fault_of(self.healths) or fault_of(heard)

    def words(self, own_pids: Collection[int]) -> list[str]:
        """What the driver says beside a verdict: errors that a restart clears, and processes of others.

        Args:
            own_pids: of the run's processes here, ended ones included.
        """
        told = app_fault(self.watch.heard) if self.watch is not None else None
        holders = neighbours(self._found.holders, own_pids) if self._found is not None else None
        others = [
            f"GPU {one.gpu}: process {one.pid}, which is not of this run, holds "
            f"{'memory' if one.used_bytes is None else human_bytes(one.used_bytes)}"
            for one in holders or ()
        ]
        return [*([told] if told is not None else ()), *others]

    def hold(self, pids: Collection[int]) -> bool:
        """Whether the driver still counts GPU memory for any of these, or has not said yet.

        A killed process's memory comes back a moment after the process is gone; a new one that starts in between runs
        out. To be asked again and again; a driver that does not answer counts as one that says no.
        """
        if self.watch is None:
            return False
        if not self._seeking:
            if self.look() or not self.watch.asking:  # an answer that is under way may be older than their end
                self._seeking = True
                self.ask()
            return True
        if not self.look():
            return True
        self._seeking = False
        return self._found is not None and any(one.pid in pids for one in self._found.holders)

    def close(self) -> None:
        """End the process that asks."""
        if self.watch is not None:
            self.watch.close()
