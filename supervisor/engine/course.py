"""The course that a run takes: what follows an attempt, a refusal, a missing node, and with what the process leaves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from supervisor.engine.allocation import Allocation
from supervisor.engine.ending import leave
from supervisor.engine.progress import known
from supervisor.engine.state.checkpoints import Checkpoints
from supervisor.engine.wishes import Wishes
from supervisor.errors import ExitCode
from supervisor.job import Job, Off
from supervisor.policy.adapt import CHANGES
from supervisor.policy.causes import Cause, Verdict
from supervisor.policy.ledger import Ledger
from supervisor.policy.restart import Adapt, Facts, Finish, GiveUp, GoBack, LeaveNode, Limits, Restart, decide, hopeless
from supervisor.policy.resume import Refuse
from supervisor.policy.storage import wait_for_storage_s


@dataclass(slots=True)
class Course:
    """Carries out what `policy.restart` decides, and remembers it.

    Attributes:
        job: of the run.
        checkpoints: what is on disk.
        wishes: what somebody outside wants.
        allocation: where this supervisor runs.
        write: the journal's append.
        state: of the run, in the contract's words.
        launch_at_s: monotonic time of the next launch [s].
        gave_up: why nothing is tried any more; None as long as it is.
        exit: what to exit with; None to stay.
    """

    job: Job
    checkpoints: Checkpoints
    wishes: Wishes
    allocation: Allocation
    write: Callable[..., Any]
    state: str = "starting"
    launch_at_s: float = 0.0
    gave_up: GiveUp | None = None
    exit: ExitCode | None = None
    _verdict: Verdict | None = None
    _storage_gone_s: float | None = None

    @property
    def over(self) -> bool:
        """Whether the run is decided; only leaving remains."""
        return self.gave_up is not None or self.exit is not None

    def follow(
        self,
        verdict: Verdict,
        ledger: Ledger,
        *,
        trained: bool,
        nodes: Sequence[str] = (),
        facts: Facts | None = None,
    ) -> None:
        """Take the course that follows an attempt.

        Args:
            verdict: why it ended.
            ledger: of the run, this attempt included.
            trained: whether its training had begun.
            nodes: names of those on which the cause lies.
            facts: what it left besides.
        """
        decision = decide(verdict, ledger, self._limits, facts)
        match decision:
            case Finish():
                self.write("decision", decision="finish", delay_s=0.0, reason=verdict.evidence)
                self._finish(trained=trained)
            case Restart(delay_s):
                self._incident(verdict, f"restart in {delay_s:.0f} s" if delay_s else "restart at once", nodes)
                self._again("restart", delay_s, verdict.evidence)
            case Adapt(to, detail, delay_s):
                self._incident(verdict, detail, nodes)
                self.write("adapted", detail=detail, **{CHANGES: to.told()})
                self._again("adapt", delay_s, detail)
            case GoBack():
                self._go_back(verdict, decision, ledger, nodes)
                self._again("roll_back", 0.0, decision.detail)
            case LeaveNode(reason):
                self._incident(verdict, "leave this allocation", nodes)
                self.wishes.hand_back(reason)
            case GiveUp():
                self._give_up(verdict, decision, nodes)

    def remember(self, words: str, ledger: Ledger, facts: Facts) -> None:
        """An attempt that had diverged was taken away: whoever goes on with the run goes on behind that."""
        verdict = Verdict(Cause.DIVERGED, words)
        decision = decide(verdict, ledger, self._limits, facts)
        if isinstance(decision, GoBack):
            self._go_back(verdict, decision, ledger)

    def _go_back(self, verdict: Verdict, decision: GoBack, ledger: Ledger, nodes: Sequence[str] = ()) -> None:
        changes = {CHANGES: ledger.adaptation.skipping(decision.skip).told()}
        self._incident(verdict, decision.detail, nodes)
        # What is on disk beyond does not count from now on, so that what memory holds may be newer.
        counting = [s for lineage, s, _ in ledger.committed if ledger.counts(lineage, s) and s < decision.before]
        self.checkpoints.newest, self.checkpoints.trained = max(counting, default=-1), False
        self.write("adapted", lineage=ledger.lineage + 1, before=decision.before, detail=decision.detail, **changes)

    @property
    def _limits(self) -> Limits:
        recovery = self.job.recovery
        return Limits(
            max_barren=recovery.max_barren,
            shrink=recovery.on_oom == "shrink",
            roll_back=recovery.on_nan == "rollback",
            requeues=self.allocation.scheduled,
        )

    def _again(self, word: str, delay_s: float, reason: str) -> None:
        self.write("decision", decision=word, delay_s=delay_s, reason=reason)
        self.launch_at_s = time.monotonic() + delay_s
        self.state = "waiting"

    def could_not_start(self, error: Exception, attempt: int, world_size: int, ledger: Callable[[], Ledger]) -> None:
        """An attempt could not be started: storage that is gone is waited for, all else counts as an attempt.

        Args:
            error: why.
            attempt: its number.
            world_size: ranks that were to be launched.
            ledger: asks for the run's, once this attempt stands in it.
        """
        now_s = time.monotonic()
        gone_since_s = now_s if self._storage_gone_s is None else self._storage_gone_s
        wait_s = wait_for_storage_s(_errno(error), now_s - gone_since_s)
        if wait_s is not None:
            if self._storage_gone_s is None:
                self._incident(Verdict(Cause.STORAGE, str(error)), "waiting for the file system")
            self._storage_gone_s, self.launch_at_s, self.state = gone_since_s, now_s + wait_s, "waiting"
            return
        self._storage_gone_s = None
        verdict = Verdict(Cause.CRASHED, f"the attempt could not be started: {error}")
        self.write("attempt_started", attempt=attempt, world_size=world_size, source="fresh")
        self.write("attempt_ended", cause=verdict.cause.value, evidence=verdict.evidence, step=None)
        self.follow(verdict, ledger(), trained=False)

    def started(self) -> None:
        """An attempt has been started."""
        self._storage_gone_s = None

    def refuse(self, refused: Refuse) -> None:
        """There is nothing to go on from."""
        verdict = Verdict(Cause.BAD_CHECKPOINT, refused.reason)
        if refused.transient:
            self._incident(verdict, "the same command may be tried again")
            self.write("decision", decision="leave", delay_s=0.0, reason=refused.reason)
            self.state, self.exit = "interrupted", ExitCode.HANDED_BACK
        else:
            self._give_up(verdict, GiveUp(f"bad_checkpoint: {refused.reason}"))

    def miss(self, missing: str, attempt: int | None, world_size: int, ledger: Callable[[], Ledger]) -> None:
        """A node has been waited for long enough: another allocation may have better ones.

        Args:
            missing: who, for people.
            attempt: number of an attempt that this counts as; None if its loss was counted already.
            world_size: ranks that were to be launched.
            ledger: asks for the run's, once this attempt stands in it.
        """
        if attempt is not None:
            verdict = Verdict(Cause.NODE_LOST, f"{missing} did not join")
            self.write("attempt_started", attempt=attempt, world_size=world_size)
            self.write("attempt_ended", cause=verdict.cause.value, evidence=verdict.evidence, step=None)
            decision = decide(verdict, ledger(), self._limits)
            if isinstance(decision, GiveUp):
                self._give_up(verdict, decision)
                return
        self.wishes.hand_back(f"the loss of {missing}")

    def leave(self, ledger: Ledger) -> None:
        """Leave with a run that has not finished."""
        left = leave(
            self.job.run_dir,
            self.wishes,
            self.allocation,
            self.write,
            gave_up=self.gave_up,
            verdict=self._verdict,
            committed=self.checkpoints.newest,
            hopeless=hopeless(ledger),
        )
        self.state, self.exit = left.state, left.code

    def _finish(self, *, trained: bool) -> None:
        snapshots = not isinstance(self.job.checkpoint.snapshot, Off)
        if self.checkpoints.failed or (trained and snapshots and not self.checkpoints.trained):
            reason = "training finished, but its last state could not be written"
            self._give_up(Verdict(Cause.STORAGE, reason), GiveUp(reason))
            return
        final = self.job.run_dir / "final"
        self.state = "finished"
        self.write("run_finished", step=known(self.checkpoints.newest), final="final" if final.is_dir() else None)
        self.exit = ExitCode.FINISHED

    def _give_up(self, verdict: Verdict, decision: GiveUp, nodes: Sequence[str] = ()) -> None:
        self._incident(verdict, "give up", nodes)
        self.write("decision", decision="give_up", delay_s=0.0, reason=decision.reason)
        self.gave_up, self._verdict = decision, verdict

    def _incident(self, verdict: Verdict, decision: str, nodes: Sequence[str] = ()) -> None:
        told = {"nodes": list(nodes)} if nodes else {}
        self.write("incident", cause=verdict.cause.value, detail=verdict.evidence, decision=decision, **told)


def _errno(error: BaseException) -> int | None:
    """The kernel's number behind an error of the file system, which may have been told in our own words."""
    for one in (error, error.__cause__):
        number = getattr(one, "errno", None)
        if isinstance(number, int):
            return number
    return None
