"""The supervisor's end of its mirror: a process of its own does all of it, and is never waited for by the loop.

What it says is read when the loop looks. If it is killed, or hangs, it is started again; what is known of the
mirror is kept here.
"""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from supervisor.engine.state.keeping import Keeping
from supervisor.errors import JobError, TakenOverError
from supervisor.journal import Journal
from supervisor.mirror.messages import Settings
from supervisor.mirror.refusals import StoreError, StoreOwnedError, StoreRefusedError
from supervisor.policy.causes import Cause
from supervisor.policy.lineage import counts
from supervisor.policy.mirror import At, complaint_due, newer
from supervisor.policy.resume import Refuse

#: A start waits so long for a word of the store [s]; while it says something, it is waited for.
ANSWER_S = 15.0
#: A keeper that has something to do and is silent for so long hangs, in spite of every time limit in it [s].
HUNG_S = 600.0
#: A checkpoint that has not arrived after so long is worth a word [s].
LATE_S = 600.0
#: What is fetched, or sent when nobody presses, is waited for as long as there is a word in this time [s].
STILL_S = 30.0
#: What is left of the grace for leaving itself [s].
LEAVE_S = 3.0
#: A leave that nobody waits for may take this long: the lease is given back, so that a successor need not watch [s].
SHORT_S = 2.0

Write = Callable[..., Any]


@dataclass(slots=True)
class Mirroring:
    """The mirror of one stay; without `settings` there is none, and nothing happens.

    Attributes:
        settings: of the mirror; None for none.
        environment: what the job adds to this process's own.
        write: the journal's append.
        opened: it is ours, and what is in it is known.
        restored: files that were brought to this machine when it was opened.
        committed: whether there has ever been a checkpoint in it.
        send_s: how long the last checkpoint took [s].
    """

    settings: Settings | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    write: Write = lambda *_words, **_told: None
    opened: bool = False
    restored: tuple[str, ...] = ()
    committed: bool = False
    send_s: float = 0.0
    _there: dict[At, bool] = field(default_factory=dict)
    _passed_over: dict[At, tuple[str, bool]] = field(default_factory=dict)  # why, and whether nobody knows
    _behind: tuple[At, ...] = ()
    _run_id: str | None = None
    _newest: int = -1
    _newest_since_s: float = 0.0
    _leave_by_s: float | None = None
    _unreachable: str | None = None
    _refused: dict[str, Any] | None = None
    _lost: dict[str, Any] | None = None
    _left: bool = False
    _complaints: int = 0
    _failing_since_s: float | None = None
    _answer: dict[str, Any] | None = None
    _answered: threading.Event = field(default_factory=threading.Event)
    _keeper: Keeping = field(default_factory=Keeping)

    # -- at the start

    def open(self, wait: Callable[[float], None]) -> None:
        """Wait until the mirror is ours, or has not answered for a while.

        Args:
            wait: how to let seconds pass, not deaf to signals.

        Raises:
            JobError: the library is not installed.
            StoreRefusedError: the store, or what is in it, does not want to.
            StoreOwnedError: a living owner has the run elsewhere.
        """
        if self.settings is None:
            return
        if importlib.util.find_spec("obstore") is None:
            raise JobError("checkpoint.mirror needs obstore", "pip install 'lora-supervisor[cloud]'")
        self._start()
        while not self.opened and self._unreachable is None:
            self._hear()
            if self._refused is not None:
                kind = StoreOwnedError if self._refused["owned"] else StoreRefusedError
                raise kind(self._refused["problem"], self._refused["remedy"])
            if not self._keeper.there or time.monotonic() - self._keeper.heard_s > ANSWER_S:
                self._unreachable = f"{self.settings.url} does not answer"
            wait(0.05)

    def close_attempt(self, journal: Journal, attempt: int | None) -> None:
        """The journal was saved while an attempt was under way: with its machine that has ended.

        Args:
            journal: of the run, as it was brought.
            attempt: whose end nobody has written down; None for none.

        Raises:
            DiskError: the file system refused.
        """
        if not self.restored or attempt is None:
            return
        step = max((step for _, step in self._there), default=None)
        evidence = f"its machine is gone; the mirror has step {step}"
        journal.append("attempt_ended", attempt=attempt, cause=Cause.NODE_LOST.value, evidence=evidence, step=step)

    def without(self, *, safe: bool) -> None:
        """Go on without a store that did not answer; it is tried on and on.

        Args:
            safe: the run directory has what the run goes on from, so that nothing is begun anew.

        Raises:
            StoreError: it has not; a machine that knows nothing of the run must not begin at step 0.
        """
        if self.settings is None or self.opened:
            return
        if not safe:
            raise StoreError(
                f"{self._unreachable}, and only it could tell whether the run has been begun",
                "start again when it can be reached, or begin anew with --fresh",
            )
        self._keeper.end()  # a keeper that opens late has to know that the run is under way
        self.settings = replace(self.settings, late=True)

    def adopt(self, run_id: str | None, behind: tuple[At, ...], write: Write) -> None:
        """The run has begun under this name, or has gone back behind some step since.

        Args:
            run_id: of the run.
            behind: as the ledger has it.
            write: the journal's append.
        """
        if self.settings is None or (run_id, behind) == (self._run_id, self._behind):
            return
        self._run_id, self._behind, self.write = run_id, behind, write
        self.settings = replace(self.settings, run_id=run_id, late=True)
        if self._keeper.there:
            self._keeper.say("adopt", run_id=run_id, behind=behind)
        elif self._unreachable is not None:
            self._complain(self._unreachable, time.monotonic())

    # -- what an attempt goes on from

    def newer(self, than: At | None, *, take_diverged: bool) -> At | None:
        """The newest checkpoint in the mirror, if it is newer than what there is here; None if it is not."""
        return newer(self._there, than, self._behind, self._passed_over, take_diverged=take_diverged)

    def older(self, than: At) -> list[At]:
        """Those in the mirror that are older than this one, and count."""
        there = [at for at, diverged in self._there.items() if not diverged and at not in self._passed_over]
        return [at for at in there if at < than and counts(self._behind, *at)]

    def failed(self) -> Refuse | None:
        """Why nothing that it has can be gone on from; None where it has nothing, or nothing was asked for."""
        if not self._passed_over:
            return None
        listed = "; ".join(f"step {step}: {why}" for (_, step), (why, _) in sorted(self._passed_over.items()))
        unread = any(unread for _, unread in self._passed_over.values())
        return Refuse(f"the mirror has had checkpoints and none of them could be fetched: {listed}", transient=unread)

    def fetch(self, at: At) -> dict[str, Any]:
        """Have a checkpoint brought to disk, on a thread that may wait; what came of that, as the keeper says it."""
        self._answer = None
        self._answered.clear()
        self._keeper.say("fetch", lineage=at[0], step=at[1])
        while not self._answered.wait(0.1):
            if not self._keeper.there or time.monotonic() - self._keeper.heard_s > STILL_S:
                self._answer = {"what": "unread", "reason": "the mirror does not answer"}
                break
        answer = self._answer or {}
        if answer["what"] != "fetched":
            self._passed_over[at] = answer["reason"], answer["what"] == "unread"
        if answer["what"] == "rejected":
            self._there.pop(at, None)
        return answer

    # -- while it goes on

    def look(self, now_s: float) -> None:
        """Hear what has come, and start the keeper again if it has ended.

        Args:
            now_s: monotonic time [s].

        Raises:
            TakenOverError: the run is somebody else's now.
        """
        if self.settings is None:
            return
        self._hear()
        if self._lost is not None:
            raise TakenOverError(self._lost["problem"], self._lost["remedy"])
        if self._refused is not None and self._refused["owned"]:
            raise TakenOverError(self._refused["problem"], self._refused["remedy"])
        awaited = self._awaits(self._newest)
        if awaited and now_s - self._newest_since_s > LATE_S:
            self._complain(f"step {self._newest} has not arrived after {LATE_S / 60:.0f} min", now_s)
        if awaited and self._keeper.there and now_s - self._keeper.heard_s > HUNG_S:
            self._keeper.end()
        if not self._keeper.there and now_s >= self._keeper.again_s and self._run_id is not None:
            self._start()
            self._keeper.say("adopt", run_id=self._run_id, behind=self._behind)

    def awaited(self, newest: int, leave_by_s: float | None, now_s: float) -> bool:
        """Whether a leave waits for the newest checkpoint to arrive; also how the keeper learns that there is one.

        Args:
            newest: newest step on disk, -1 for none.
            leave_by_s: monotonic time at which the machine may be gone [s]; None while it is to stay.
            now_s: monotonic time [s].
        """
        if self.settings is None:
            return False
        if newest != self._newest:
            self._newest, self._newest_since_s = newest, now_s
            self._keeper.say("look")
        self._leave_by_s = None if leave_by_s is None else leave_by_s - LEAVE_S
        return self.opened and self._leave_by_s is not None and now_s < self._leave_by_s and self._awaits(newest)

    def close(self, pressed: Callable[[], bool]) -> None:
        """Let the keeper finish: for as long as there is time, or, where nobody presses, as long as it gets on.

        Args:
            pressed: whether somebody wants us to leave.
        """
        if not self._keeper.there:
            return
        if not self.opened:
            self._keeper.end()
            return
        self._keeper.say("leave")
        until_s = None if self._leave_by_s is None else max(self._leave_by_s, time.monotonic() + SHORT_S)
        self._keeper.heard_s = time.monotonic()
        while not self._left and self._keeper.there:
            now_s = time.monotonic()
            if until_s is None and pressed():
                until_s = now_s + SHORT_S
            if now_s - self._keeper.heard_s > STILL_S or (until_s is not None and now_s >= until_s):
                break
            self._keeper.wait(0.05)
            self._hear()
        self._keeper.end()

    # -- the keeper

    def _awaits(self, step: int) -> bool:
        return step >= 0 and not any(s == step and counts(self._behind, lineage, s) for lineage, s in self._there)

    def _start(self) -> None:
        assert self.settings is not None
        self._refused = None
        self._keeper.start({**os.environ, **self.environment})
        self._keeper.say("open", settings=self.settings.encode())

    def _hear(self) -> None:
        for told in self._keeper.hear():
            self._take(told)

    def _take(self, told: dict[str, Any]) -> None:
        now_s = time.monotonic()
        match told["what"]:
            case "opened":
                self.opened, self._unreachable, self._keeper.ends = True, None, 0
                self.restored, self.committed = tuple(told["restored"]), told["committed"]
                self._there.update({(lineage, step): diverged for lineage, step, diverged in told["commits"]})
            case "refused":
                self._refused = told
                if not told["owned"] and self._run_id is not None:
                    self._complain(told["problem"], now_s)
            case "unreachable" | "failed":
                self._unreachable = told["problem"] if told["what"] == "unreachable" else self._unreachable
                if self._run_id is not None:
                    self._complain(told["problem"], now_s)
            case "mirrored":
                self._there[told["lineage"], told["step"]] = told["diverged"]
                self.send_s, self.committed = told["seconds"], True
                self._failing_since_s, self._complaints = None, 0
                self.write("mirrored", **{key: value for key, value in told.items() if key not in ("what", "diverged")})
            case "idle":
                self._failing_since_s, self._complaints = None, 0
            case "fetched" | "rejected" | "unread":
                self._answer = told
                self._answered.set()
            case "lost":
                self._lost = told
            case "left":
                self._left = True

    def _complain(self, problem: str, now_s: float) -> None:
        """Say that the mirror fails, but not each time."""
        self._failing_since_s = now_s if self._failing_since_s is None else self._failing_since_s
        if complaint_due(self._complaints, now_s - self._failing_since_s):
            self._complaints += 1
            self.write("incident", cause=Cause.STORAGE.value, detail=f"mirror: {problem}", decision="training goes on")
