"""The scheduler's job that this supervisor runs in: its end foreseen, its signals explained, its way back.

Outside of a scheduler there is none, and nothing here does anything. Questions are asked on a
thread, since a scheduler may be busy for seconds just when the loop has none to spare.
"""

from __future__ import annotations

import json
import math
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from supervisor.engine.opening import write_whole
from supervisor.launch.slurm import Incarnation, addresses, ask, requeue
from supervisor.policy.causes import Cause, Verdict
from supervisor.policy.scheduler import Ending, Fate, JobSeen, ending

#: How often the real end of the allocation is asked for: an administrator may move it [s].
ASK_EVERY_S = 600.0


class Allocation:
    """What this supervisor runs in.

    Attributes:
        name: as the journal has it; under SLURM the job's id and its restart count.
    """

    def __init__(self, at: Incarnation | None, run_dir: Path, write: Callable[..., Any]) -> None:
        """Know nothing yet.

        Args:
            at: the scheduler's job, None outside of one.
            run_dir: where the verdict is left for the batch script.
            write: the journal's append.
        """
        self._at, self._run_dir, self._write = at, run_dir, write
        self._asker = ThreadPoolExecutor(1, "scheduler") if at is not None else None
        self._asked: Future[JobSeen | None] | None = None
        self._next_s = 0.0
        self._start_s: float | None = None
        self._end_s: float | None = None
        self._ending: Ending | None = None
        self._said = False
        self.name = at.name if at is not None else f"{socket.gethostname()}-{os.getpid()}"

    @property
    def node_names(self) -> tuple[str, ...]:
        """The allocation's nodes; none outside of a scheduler, or where it does not tell."""
        return self._at.nodes if self._at is not None else ()

    @property
    def nodes_needed(self) -> int:
        """How many nodes the job is to have."""
        return max(1, len(self.node_names))

    @property
    def no_kill(self) -> bool:
        """Whether the allocation outlives a node of its own."""
        return self._at is not None and self._at.no_kill

    def addresses(self, names: Sequence[str]) -> dict[str, str]:
        """Where each of these nodes listens; the scheduler is asked once for all."""
        return addresses(names) if self._at is not None else {name: name for name in names}

    def time_is_up(self, now_s: float, grace_s: float) -> bool:
        """Whether the allocation ends so soon that it is time to go.

        Args:
            now_s: wall time [unix s].
            grace_s: how long before the end.
        """
        if self._at is None or self._asker is None:
            return False
        if self._asked is None and now_s >= self._next_s:
            self._next_s = now_s + ASK_EVERY_S
            self._asked = self._asker.submit(ask, self._at.task)
        if self._asked is not None and self._asked.done():
            seen, self._asked = self._asked.result(), None
            if seen is not None:
                self._end_s, self._start_s = seen.end_s, seen.start_s
            if self._is_near(now_s, grace_s):
                self._ending = Ending(Fate.REQUEUE, Verdict(Cause.TIME_LIMIT, "the job's time limit is near (EndTime)"))
                return True
        if self._is_near(now_s, grace_s) and self._asked is None:
            self._next_s = now_s  # what was heard is minutes old: one more question before it counts
        return False

    def _is_near(self, now_s: float, grace_s: float) -> bool:
        if self._end_s is None:
            return False
        # A limit that is no longer than the grace must leave time to train, or the job goes round for ever.
        whole_s = self._end_s - self._start_s if self._start_s is not None else math.inf
        return now_s >= self._end_s - min(grace_s, whole_s / 4)

    def why(self, received: str) -> Verdict | None:
        """Why it is being ended; None outside of a scheduler.

        Args:
            received: what told that the end is near.
        """
        if self._at is None:
            return None
        if self._ending is None:
            self._ending = ending(ask(self._at.task), self._at.restart, received)
        return self._ending.verdict

    @property
    def cancelled(self) -> bool:
        """Whether the scheduler was told by somebody to end the job for good."""
        return self._ending is not None and self._ending.fate is Fate.STOP

    def hand_back(self) -> bool:
        """Put the job back into the queue, or ask the batch script to; whether it is there.

        The wish is written down first: whoever is killed in the middle has still said it.
        """
        if self._at is None:
            return False
        if self._ending is not None and self._ending.fate is Fate.QUEUED:
            self._say("done", "the scheduler did it")
        else:
            self._say("wanted", "being asked for")
            refused = requeue(self._at.task)
            if refused is not None:
                self._say("wanted", refused)
                return False
            self._say("done", "scontrol requeue")
        self._write("requeued", job_id=self._at.job_id, restart=self._at.restart)
        return True

    def close(self, state: str) -> None:
        """Tell the batch script that nothing is to be requeued, unless it was told something else."""
        if self._at is not None and not self._said:
            self._say("no", state)
        if self._asker is not None:
            self._asker.shutdown(wait=False, cancel_futures=True)

    def _say(self, requeue: str, reason: str) -> None:
        assert self._at is not None
        self._said = True
        directory = self._run_dir / "verdicts"
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            write_whole(directory / f"{self._at.name}.json", json.dumps({"requeue": requeue, "reason": reason}) + "\n")
        except OSError as error:
            self._write("incident", cause="storage", detail=f"verdicts/: {error.strerror}", decision="none")
