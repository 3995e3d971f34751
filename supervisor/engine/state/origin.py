"""The origin of the next attempt: what is there is looked at, what is torn is told, and one state is chosen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from supervisor.checkpoint.programs import Judged
from supervisor.engine.attempt import Start
from supervisor.engine.disk import Disk
from supervisor.engine.state.assembly import TornSnapshotError
from supervisor.engine.state.checkpoints import Checkpoints
from supervisor.engine.state.commits import write_final_from
from supervisor.engine.state.mirroring import Mirroring
from supervisor.engine.state.resuming import OnDisk, Resuming
from supervisor.errors import DiskError
from supervisor.policy.batch import Batch
from supervisor.policy.causes import Cause
from supervisor.policy.ledger import Ledger
from supervisor.policy.mirror import At
from supervisor.policy.resume import Fresh, FromCandidate, Refuse

#: How long a name is looked for while there is no time [s].
GLANCE_S = 0.5


@dataclass(slots=True)
class Origin:
    """Finds it.

    Attributes:
        run_dir: of the run.
        resuming: board and disk.
        checkpoints: what is on disk.
        write: the journal's append.
        attend: has something done that takes long, while members go on hearing from this node.
        mirror: may have a newer state than board and disk.
    """

    run_dir: Path
    resuming: Resuming
    checkpoints: Checkpoints
    write: Callable[..., Any]
    attend: Callable[[Callable[[], Any]], Any]
    mirror: Mirroring = field(default_factory=Mirroring)
    _looked: bool = False  # the disk was verified since the last start
    _lineage: int = 0  # of the run, then
    _said: set[str] = field(default_factory=set)
    _fetched: At | None = None

    def look_at_disk(self, ledger: Ledger) -> None:
        """Verify what is on disk; say what is torn, and what cannot be read or is gone."""
        self._looked, self._lineage = True, ledger.lineage
        self.mirror.adopt(ledger.run_id, ledger.behind, self.write)
        disk: OnDisk = self.attend(lambda: self.resuming.look(ledger, time.time, brought=bool(self.mirror.restored)))
        for name, step, reason in disk.rejected:
            self.write("checkpoint_rejected", path=f"checkpoints/{name}", step=step, reason=reason)
        for problem in disk.unreadable:
            self.write("incident", cause=Cause.STORAGE.value, detail=problem, decision="it stays where it is")
        for name in disk.missing:
            self.write(
                "incident",
                cause=Cause.STORAGE.value,
                detail=f"{name} was committed, and the file system does not show it",
                decision="the newest that it shows counts",
            )
        for one in self.resuming.own.torn:
            self._pass_over(one)
        self.checkpoints.newest = disk.newest.step if disk.newest is not None else -1

    def _pass_over(self, one: Judged) -> None:
        """One of the program's own is no good: said once."""
        detail = f"{one.named.path}, which the program wrote itself: {one.reason}"
        if detail not in self._said:
            self._said.add(detail)
            cause = Cause.BAD_CHECKPOINT if one.known else Cause.STORAGE
            self.write("incident", cause=cause.value, detail=detail, decision="the one before it counts")

    def own_step(self, ledger: Ledger, *, leaving: bool) -> int:
        """Number of the newest checkpoint that a program without our hooks has written itself, 0 for none.

        Args:
            ledger: of the run.
            leaving: whether there is no time to read it, on a disk that may hang; then its name counts.
        """
        own = self.resuming.own
        if ledger.committed:
            return 0
        if not leaving:
            self.attend(own.look)
            return own.newest.number if own.newest is not None else 0
        disk = Disk()
        pending = disk.ask(own.glance)
        disk.close(GLANCE_S)
        return pending.result() if pending.over else 0

    def states(self, ledger: Ledger, *, leaving: bool) -> tuple[int, ...]:
        """Steps of the states that can be gone back to.

        Args:
            ledger: of the run.
            leaving: whether there is no time to ask a disk that may hang; then only its newest is known.
        """
        in_memory = [whole.step for whole in self.resuming.memory.wholes()]
        try:
            on_disk = [self.checkpoints.newest] if leaving else self.attend(lambda: self.resuming.on_disk(ledger))
        except DiskError:
            on_disk = []  # what cannot be read has nothing to offer now
        return tuple(sorted({step for step in (*in_memory, *on_disk) if step > 0}))

    def batch_on_disk(self, ledger: Ledger) -> Batch | None:
        """How a step was made up in the newest checkpoint; None where there is none, or it does not tell."""
        self.look_at_disk(ledger)
        return self.resuming.disk.batch

    def find(self, ledger: Ledger, world_size: int, prepare: Callable[[Start], None]) -> Start | Refuse:
        """Choose, and prepare what was chosen; what turns out to be torn is passed over.

        Args:
            ledger: of the run.
            world_size: ranks that are to be launched.
            prepare: leaves the workers a note of it.

        Raises:
            JobError: the newest state belongs to another number of processes.
        """
        while True:
            # In a new lineage what was abandoned is in the way, and what was newest may not count any more.
            gone_back = self._lineage != ledger.lineage
            if gone_back or (not self._looked and self.resuming.board_is_behind(self.checkpoints.newest)):
                self.look_at_disk(ledger)
            chosen = self.resuming.choose(ledger, world_size)
            if self._fetch_newer(chosen, ledger):
                continue
            if not isinstance(chosen, FromCandidate) and (failed := self.mirror.failed()) is not None:
                return failed
            if isinstance(chosen, Refuse):
                return chosen
            start = self.resuming.start(chosen)
            if start.source == "checkpoint" and self._fetched == _at(chosen):
                start, self._fetched = replace(start, source="mirror"), None
            try:
                prepare(start)
            except TornSnapshotError as error:
                decision = "the next older state is tried"
                self.write("incident", cause=Cause.BAD_CHECKPOINT.value, detail=str(error), decision=decision)
                self.resuming.pass_over()
                continue
            self._looked = False
            if (detail := self.resuming.resized(start)) is not None:
                self.write("adapted", world_size=world_size, accumulation=start.accumulation, detail=detail)
            self._secure_final(start)
            return start

    def _fetch_newer(self, chosen: FromCandidate | Fresh | Refuse, ledger: Ledger) -> bool:
        """Bring what the mirror has to disk if it is newer than what was chosen; whether to choose again."""
        at = self.mirror.newer(_at(chosen), take_diverged=self.resuming.take_diverged)
        if at is None:
            return False
        outcome = self.attend(lambda: self.mirror.fetch(at))
        if outcome["what"] == "fetched":
            self._fetched = at
            self._fetch_best(at)
            self.look_at_disk(ledger)
        elif outcome["what"] == "rejected":
            self.write("checkpoint_rejected", path=f"mirror: {at[0]}-{at[1]}", step=at[1], reason=outcome["reason"])
        else:
            detail = f"mirror: step {at[1]} could not be fetched: {outcome['reason']}"
            self.write("incident", cause=Cause.STORAGE.value, detail=detail, decision="the next older state is tried")
        return True

    def _fetch_best(self, newest: At) -> None:
        """Bring what was measured best, too: else what is measured next would be taken for better, and kept."""
        retention = self.checkpoints.committer.retention
        for at in self.attend(lambda: retention.best_among(self.mirror.older(newest))):
            outcome = self.attend(partial(self.mirror.fetch, at))
            if outcome["what"] != "fetched":
                detail = f"mirror: step {at[1]}, measured best, could not be fetched: {outcome['reason']}"
                decision = "what is measured from now on is kept"
                self.write("incident", cause=Cause.STORAGE.value, detail=detail, decision=decision)
        self.attend(retention.open)

    def _secure_final(self, start: Start) -> None:
        """Training had ended before: its end counts as secured once the final adapter is there, too."""
        checkpoint = self.run_dir / "checkpoints" / f"checkpoint-{start.step}"
        on_disk = start.trained and self.checkpoints.newest >= start.step
        if on_disk and not (self.run_dir / "final").is_dir():
            write_final_from(checkpoint, self.run_dir)
        self.checkpoints.trained = on_disk


def _at(chosen: FromCandidate | Fresh | Refuse) -> At | None:
    return (chosen.candidate.lineage, chosen.candidate.step) if isinstance(chosen, FromCandidate) else None
