"""What a member does whose leader is gone for good: the lowest one that is left commits, and hands the job back.

Whether the leader is gone is read from the lease, not from the silence on the link: a leader that is only cut off
still renews it. Counters are compared, never clocks. Who commits is decided by an exclusive file; a lower
node gets a head start. The commit is made under the leader's epoch, which is asked for again right before the
rename, so that a new owner is never overtaken.

What this does not protect against: a run directory that the nodes do not share. Then nobody can tell, and
members leave after a while with what they have.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.checkpoint.retain import Keep
from supervisor.engine.allocation import Allocation
from supervisor.engine.ending import strikes
from supervisor.engine.members.messages import Wanted
from supervisor.engine.ranks.node import Node
from supervisor.engine.state.assembly import sources_of
from supervisor.engine.state.commits import Answer, Committer, Order
from supervisor.errors import DiskError, ExitCode, SupervisorError
from supervisor.journal import Journal
from supervisor.launch.slurm import Incarnation
from supervisor.lease import read_lease, still_held_by
from supervisor.owner import Life, life, this_process
from supervisor.policy.causes import Cause
from supervisor.policy.lifecycle import Wish

#: The lease is looked at so often [s], and a counter that has not moved for so long means a dead owner:
#: three renewals (`lease.RENEW_EVERY_S`) and a little more.
LOOK_S = 2.0
STILL_S = 17.0
#: With word that the end is near, a leader may be silent for so long before a member acts without it [s].
NOTICE_S = 2.0
#: Head start of a lower node [s].
HEAD_START_S = 0.5
#: Nobody can tell what became of the leader: so long is waited for it [s].
UNKNOWN_S = 120.0
_PATIENCE_S = 30.0


@dataclass(slots=True)
class LeaderWatch:
    """Whether the owner of the lease still lives, as a member can tell.

    Attributes:
        run_dir: of the run.
        epoch: under which it owns the run.
        token: the owner's.
    """

    run_dir: Path
    epoch: int
    token: str
    _counter: int | None = None
    _moved_s: float = field(default_factory=time.monotonic)
    _looked_s: float = 0.0
    _read_s: float | None = None
    _known: Life = Life.UNKNOWN

    def look(self, now_s: float) -> Life:
        """Ask the lease, now and then.

        What keeps this node from reading keeps the owner from writing: a time in which nothing could be read
        is no time in which it kept still.

        Args:
            now_s: monotonic time [s].

        Returns:
            DEAD also for a run that has been given back or taken over: that leader leads nobody.
        """
        if now_s - self._looked_s < LOOK_S:
            return self._known
        self._looked_s = now_s
        try:
            record = read_lease(self.run_dir)
        except DiskError:
            record = None
        if record is not None:
            if self._read_s is not None and now_s - self._read_s > 2 * LOOK_S:
                self._moved_s = now_s
            self._read_s = now_s
        if record is None:
            self._known = Life.UNKNOWN
        elif record.owner is None or (record.epoch, record.owner.token) != (self.epoch, self.token):
            self._known = Life.DEAD
        elif record.counter != self._counter:
            self._counter, self._moved_s, self._known = record.counter, now_s, Life.ALIVE
        elif now_s - self._moved_s > STILL_S:
            self._known = Life.DEAD
        if record is not None and record.owner is not None and life(record.owner, this_process()) is Life.DEAD:
            self._known = Life.DEAD
        return self._known


def must_act(silent_s: float, leader: Life, wish: Wish) -> bool:
    """Whether a member has to act without its leader.

    Args:
        silent_s: how long nothing was heard of it [s].
        leader: whether it lives.
        wish: what somebody outside wants.

    >>> must_act(3.0, Life.ALIVE, Wish.HAND_BACK), must_act(60.0, Life.ALIVE, Wish.GO_ON)
    (True, False)
    >>> must_act(5.0, Life.DEAD, Wish.GO_ON), must_act(60.0, Life.UNKNOWN, Wish.GO_ON)
    (True, False)
    """
    if wish is not Wish.GO_ON:
        return silent_s > NOTICE_S
    return leader is Life.DEAD or (leader is Life.UNKNOWN and silent_s > UNKNOWN_S)


@dataclass(frozen=True, slots=True)
class Alone:
    """How a member left that had to act without its leader.

    Attributes:
        code: to exit with.
        secured: what its board holds is on disk, or was nothing.
    """

    code: ExitCode
    secured: bool


def commit_alone(
    run_dir: Path,
    wanted: Wanted,
    node: Node,
    number: int,
    at: Incarnation | None,
    *,
    received: str,
    stopped: bool = False,
    tell: Callable[[str, dict[str, Any]], None],
    keep: Keep,
) -> Alone:
    """Commit what this node has, write it down, hand the job back, and leave.

    Args:
        run_dir: of the run.
        wanted: what the leader wanted last.
        node: this one's part; none of its workers lives.
        number: of this node.
        at: the scheduler's job, None outside of one.
        received: what told that the end is near, or that the leader is gone.
        stopped: whether that was a user, who wants the run to stay stopped.
        tell: shown every change, for people.
        keep: which checkpoints stay.
    """
    attempt = node.order.number if node.order is not None else 0
    if not _claimed(run_dir, f"leaderless-{wanted.epoch}-{attempt}", number):
        return Alone(ExitCode.HANDED_BACK, secured=False)  # a lower node does it
    try:
        still_held_by(run_dir, wanted.epoch, wanted.token)
        journal = Journal.open(run_dir, time.time, socket.gethostname(), f"journal-{wanted.epoch}-n{number}.jsonl")
    except SupervisorError:
        # Given back or taken over: the run goes on elsewhere, and perhaps from what this board holds.
        return Alone(ExitCode.HANDED_BACK, secured=False)

    def write(event: str, **fields: Any) -> None:
        record = journal.note(event, node=number, **fields)
        tell(event, {**record.fields, "event": record.event, "attempt": record.attempt})

    order = node.order
    journal.attempt = order.number if order is not None else None
    whole = next(iter(node.memory.wholes()), None)
    evidence = f"{received}; node {number} went on without the leader"
    allocation = Allocation(at, run_dir, write)
    if order is not None:
        lost = {"nodes": list(allocation.node_names[:1])} if allocation.node_names else {}
        step = whole.step if whole is not None else None
        write("attempt_ended", cause=Cause.NODE_LOST.value, evidence=evidence, step=step, **lost)
    secured = True
    if whole is not None and order is not None and whole.step > 0:
        answer = _commit(run_dir, wanted, node, keep)
        secured = answer is not None and answer.committed is not None
        _write_down(write, run_dir, answer)
    verdict = None if stopped else allocation.why(received)
    if stopped or allocation.cancelled:
        write("run_stopped", by=received if stopped else "scancel", step=whole.step if whole is not None else None)
        allocation.close("stopped")
        return Alone(ExitCode.STOPPED, secured)
    if allocation.has_been_told:
        return Alone(ExitCode.HANDED_BACK, secured)  # the leader came so far: once is enough
    write("decision", decision="leave", delay_s=0.0, reason=verdict.evidence if verdict is not None else evidence)
    state = "requeued" if allocation.hand_back(strikes=strikes(run_dir)) else "interrupted"
    allocation.close(state)
    return Alone(ExitCode.HANDED_BACK, secured)


def _claimed(run_dir: Path, name: str, number: int) -> bool:
    """Whether this node is the one that commits; a lower one has a head start."""
    time.sleep(HEAD_START_S * min(number - 1, 10))
    path = run_dir / "control" / name
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    with suppress(OSError):  # for people; on a full disk the file is there without it
        os.write(descriptor, json.dumps({"node": number, "host": socket.gethostname()}).encode())
    os.close(descriptor)
    return True


def _commit(run_dir: Path, wanted: Wanted, node: Node, keep: Keep) -> Answer | None:
    assert node.order is not None
    whole = node.memory.wholes()[0]
    own = range(node.order.first_rank, node.order.first_rank + node.order.processes)
    committer = Committer(
        run_dir,
        wanted.run_id,
        node.memory.board.directory,
        keep=keep,
        still_owner=lambda: still_held_by(run_dir, wanted.epoch, wanted.token),
    )
    committer.submit(
        Order(
            "final" if whole.trained else "emergency",
            sources_of(node.memory, whole, node.order.first_rank),
            None,
            world_size=node.order.world_size,
            lost=tuple(rank for rank in range(node.order.world_size) if rank not in own),
        )
    )
    committer.close(_PATIENCE_S)
    return next(iter(committer.answers()), None)


def _write_down(write: Callable[..., None], run_dir: Path, answer: Answer | None) -> None:
    if answer is None or answer.committed is None:
        problem = answer.problem if answer is not None else "it was not over in time"
        write("incident", cause=Cause.STORAGE.value, detail=f"emergency checkpoint: {problem}", decision="none")
        return
    write(
        "checkpoint_committed",
        step=answer.order.step,
        lineage=answer.order.lineage,
        path=str(answer.committed.path.relative_to(run_dir)),
        bytes=answer.committed.bytes,
        stall_s=None,
        write_s=answer.committed.write_s,
        reason=answer.order.reason,
        stood_in=list(answer.order.lost),
    )
