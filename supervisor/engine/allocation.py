"""The scheduler's job that this supervisor runs in: its end foreseen, its signals explained, its way back.

Outside of a scheduler there is none, and nothing here does anything. Questions are asked on a
thread, since a scheduler may be busy for seconds just when the loop has none to spare.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from supervisor.engine.handing_back import go
from supervisor.errors import ExitCode
from supervisor.launch.resubmit import record, resubmit
from supervisor.launch.slurm import Incarnation, ask, ask_site, exclude, release, usable
from supervisor.launch.slurm_text import Site, expand
from supervisor.policy.causes import Cause, Verdict
from supervisor.policy.handback import Facts, Over, Said, held
from supervisor.policy.scheduler import Ending, Fate, JobSeen, ending
from supervisor.policy.strikes import Strikes, to_exclude
from supervisor.whole import write_whole

#: How often the real end of the allocation is asked for: an administrator may move it [s].
ASK_EVERY_S = 600.0
#: After no answer it is asked for again so soon, and each time twice as late [s].
ASK_AGAIN_S = 30.0
#: What was seen this recently need not be asked again before the job is requeued [s].
FRESH_S = 1.0
#: From SIGTERM to SIGKILL where the cluster does not tell: SLURM's own default, and its least [s].
KILL_WAIT_S, LEAST_KILL_WAIT_S = 30.0, 5.0
#: The last words take this long [s].
MARGIN_S = 2.0
#: A scheduler that is silent for longer is left to the batch script, however much time there is [s].
PATIENCE_S = 300.0


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
        self._asked: Future[tuple[JobSeen | Said, Site | None]] | None = None
        self._site: Site | None = None
        self._next_s = 0.0
        self._unanswered = 0
        self._start_s: float | None = None
        self._end_s: float | None = None
        self._ending: Ending | None = None
        self._seen: JobSeen | None = None
        self._seen_at_s = -math.inf
        self._noticed_s: float | None = None
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
    def has_been_told(self) -> bool:
        """Whether another supervisor of this very stay has seen to the job, or has asked the batch script to."""
        if self._at is None:
            return False
        try:
            told = json.loads((self._run_dir / "verdicts" / f"{self._at.name}.json").read_text())
        except (OSError, ValueError):
            return False
        return isinstance(told, dict) and told.get("requeue") in ("done", "wanted")

    @property
    def scheduled(self) -> bool:
        """Whether a scheduler gave it, and can give another."""
        return self._at is not None

    @property
    def no_kill(self) -> bool:
        """Whether the allocation outlives a node of its own."""
        return self._at is not None and self._at.no_kill

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
            self._asked = self._asker.submit(_ask, self._at.task, first=self._site is None)
        if self._asked is not None and self._asked.done():
            (seen, site), self._asked = self._asked.result(), None
            if isinstance(seen, JobSeen):
                self._end_s, self._start_s, self._unanswered = seen.end_s, seen.start_s, 0
            else:
                self._next_s = now_s + min(ASK_EVERY_S, ASK_AGAIN_S * 2.0 ** min(self._unanswered, 9))
                self._unanswered += 1
            if site is not None:
                self._learn(site)
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
            self._noticed_s = time.monotonic()
            seen = ask(self._at.task)
            self._seen = seen if isinstance(seen, JobSeen) else None
            self._seen_at_s = time.monotonic()
            self._ending = ending(self._seen, self._at.restart, received)
        return self._ending.verdict

    @property
    def cancelled(self) -> bool:
        """Whether the scheduler was told by somebody to end the job for good; `hand_back` may find it out, too."""
        return self._ending is not None and self._ending.fate is Fate.STOP

    def hand_back(self, noticed_s: float | None = None, strikes: Strikes | None = None) -> bool:
        """Put the job back into the queue, or ask the batch script to; whether it is there.

        The wish is written down first: whoever is killed in the middle has still said it.

        Args:
            noticed_s: monotonic time at which the end was heard of [s]; None for when its reason was asked for.
            strikes: against nodes that the job is not to get again.
        """
        if self._at is None:
            return False
        strikes = strikes or Strikes()
        if self._ending is None or self._ending.fate is not Fate.QUEUED:
            self._say("wanted", "being asked for")
        facts = Facts(
            seen=self._seen if self._is_fresh() else None,
            before=self._seen,
            restart=self._at.restart,
            requeued_by_code=self._site is not None and ExitCode.HANDED_BACK in self._site.requeue_exit,
        )
        over = go(self._at.task, facts, self._until_s(noticed_s), self._submit_again(strikes))
        self._say(over.requeue, over.reason, **({"resubmitted": over.resubmitted} if over.resubmitted else {}))
        if over.cancelled:
            self._ending = Ending(Fate.STOP, Verdict(Cause.USER_STOP, over.reason))
        if over.requeue != "done":
            return False
        more = {"resubmitted": over.resubmitted} if over.resubmitted else {}
        self._write("requeued", job_id=self._at.job_id, restart=self._at.restart, **more)
        if over.resubmitted:
            record(self._run_dir, over.resubmitted)
        elif over.queued:
            self._see_to_the_queued(over, strikes)
        return True

    def close(self, state: str) -> None:
        """Tell the batch script that nothing is to be requeued, unless it was told something else."""
        if self._at is not None and not self._said:
            self._say("no", state)
        if self._asker is not None:
            self._asker.shutdown(wait=False, cancel_futures=True)

    def _learn(self, site: Site) -> None:
        """Say once a job which exit codes the cluster makes something else of."""
        assert self._at is not None
        self._site = site
        told = {"RequeueExit": site.requeue_exit, "RequeueExitHold": site.hold_exit}
        for name, codes in told.items():
            ours = [str(code.value) for code in (ExitCode.HANDED_BACK, ExitCode.STOPPED) if code in codes]
            if ours and not self._at.restart:
                words = f"this cluster requeues jobs that end with exit code {' or '.join(ours)} ({name})"
                self._write("incident", cause=Cause.UNKNOWN.value, detail=words, decision="none")

    def _is_fresh(self) -> bool:
        """Whether what was seen last still holds: it is new, or cannot be taken back."""
        queued = self._ending is not None and self._ending.fate is Fate.QUEUED
        return queued or time.monotonic() - self._seen_at_s < FRESH_S

    def _until_s(self, noticed_s: float | None) -> float:
        """Monotonic time at which this process is killed, as far as it can be known [s]."""
        now_s = time.monotonic()
        heard_s = next(one for one in (noticed_s, self._noticed_s, now_s) if one is not None)
        told_s = self._site.kill_wait_s if self._site is not None else None
        kill_wait_s = max(LEAST_KILL_WAIT_S, KILL_WAIT_S if told_s is None else told_s)
        if self._seen is not None:
            running = self._seen.state == "RUNNING"
        else:  # leaving on our own account, before the end that was foreseen
            running = self._noticed_s is None and self._end_s is not None
        # Nobody has begun to end a job that is RUNNING, and nobody but a scheduler that answers can begin.
        return now_s + PATIENCE_S if running else min(heard_s + kill_wait_s - MARGIN_S, now_s + PATIENCE_S)

    def _submit_again(self, strikes: Strikes) -> Callable[[Facts, float], Said]:
        assert self._at is not None
        at = self._at

        def submit(facts: Facts, timeout_s: float) -> Said:
            own = _expanded(facts.seen.excluded) if facts.seen is not None else ()
            nodes = self._nodes_to_exclude(facts.seen, strikes) if facts.seen is not None else None
            return resubmit(at, self._run_dir, own if nodes is None else nodes, os.environ, timeout_s)

        return submit

    def _see_to_the_queued(self, over: Over, strikes: Strikes) -> None:
        """One look at the job in the queue: let it go if it is held, and keep it from bad nodes."""
        assert self._at is not None
        told = strikes.nodes or strikes.excluded
        seen = over.seen if over.seen is not None else ask(self._at.task)
        if isinstance(seen, Said):
            return
        if (hold := held(seen)) is not None:
            freed = release(self._at.task) if hold.release else None
            done = freed is not None and freed.ok
            words = f"the job is held in the queue ({hold.reason})"
            remedy = "released" if done else f"`scontrol release {self._at.task}` lets it go"
            self._say(over.requeue, f"{over.reason}; {words}: {remedy}")
            self._write("incident", cause=Cause.UNKNOWN.value, detail=words, decision=remedy)
        nodes = self._nodes_to_exclude(seen, strikes) if told else None
        if nodes is not None:
            refused = exclude(self._at.task, nodes)
            if not refused.ok:
                self._write("incident", cause=Cause.UNKNOWN.value, detail=refused.words, decision="none")

    def _nodes_to_exclude(self, seen: JobSeen, strikes: Strikes) -> tuple[str, ...] | None:
        """All nodes that the job is to exclude from now on, its user's own among them; None for no change."""
        assert self._at is not None
        own, requested = _expanded(seen.excluded), _expanded(seen.requested)
        chosen = to_exclude(
            strikes,
            own=own,
            requested=requested,
            available=usable(seen.partition) if strikes.nodes and seen.partition else None,
            # Of a job that is COMPLETING, SLURM counts only the nodes that have not ended it yet.
            needed=max(seen.nodes or 0, self.nodes_needed),
        )
        wanted = tuple(dict.fromkeys((*(one for one in own if one not in strikes.excluded), *chosen)))
        if chosen or strikes.excluded:
            self._write("adapted", excluded=list(chosen), detail=f"nodes to avoid: {', '.join(chosen) or 'none'}")
        return wanted if set(wanted) != set(own) else None

    def _say(self, requeue: str, reason: str, **more: str) -> None:
        assert self._at is not None
        self._said = True
        directory = self._run_dir / "verdicts"
        told = {"requeue": requeue, "reason": reason, **more}
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            write_whole(directory / f"{self._at.name}.json", json.dumps(told) + "\n")
        except OSError as error:
            self._write("incident", cause="storage", detail=f"verdicts/: {error.strerror}", decision="none")


def _ask(task: str, *, first: bool) -> tuple[JobSeen | Said, Site | None]:
    """How the job stands, and the first time what the cluster's settings are."""
    return ask(task), ask_site() if first else None


def _expanded(nodes: str) -> tuple[str, ...]:
    try:
        return expand(nodes)
    except ValueError:
        return ()
