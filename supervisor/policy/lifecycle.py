"""The supervisor's next move, from the situation alone.

The loop looks, asks `next_move`, does it, and looks again. The situation is what can be seen
now plus a few things that are remembered; there is no hidden state, so a move that was lost
is simply chosen again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Gang(Enum):
    """The workers of the current attempt, taken together."""

    NONE = "none"  # none was launched since the last one was dealt with
    ALIVE = "alive"
    BROKEN = "broken"  # a rank or the launcher ended badly, others may still run
    DONE = "done"  # every rank recorded that its program returned
    GONE = "gone"  # no process of it is left


class Wish(Enum):
    """What somebody outside wants."""

    GO_ON = "go on"
    HAND_BACK = "hand back"  # SIGTERM, SIGUSR1, SIGUSR2
    STOP = "stop"  # Ctrl-C, `supervisor stop`
    KILL = "kill"  # a second Ctrl-C


class Move(Enum):
    """What to do next."""

    WAIT = "wait"
    LAUNCH = "launch"
    PAUSE = "pause"  # ask ranks to wait at the beginning of their next step
    COMMIT_PERIODIC = "commit periodic"
    COMMIT_SAFETY = "commit safety"  # a notice came with time left: training goes on meanwhile
    COMMIT_EMERGENCY = "commit emergency"
    COMMIT_FINAL = "commit final"
    KILL = "kill"
    CLOSE_ATTEMPT = "close attempt"  # find out why it ended, and decide
    MISS = "miss"  # a node does not come: find out what follows
    LEAVE = "leave"


class Attendance(Enum):
    """Whether an attempt could begin, as far as the nodes are concerned."""

    COMPLETE = "complete"
    AWAITED = "awaited"
    OVERDUE = "overdue"  # somebody has been waited for long enough


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything the next move depends on.

    Attributes:
        gang: the workers.
        wish: what somebody outside wants.
        paused: whether ranks have been asked to wait.
        all_paused: whether every rank waits.
        drain_over: whether the time for one more step has passed.
        done_too_long: whether processes of a finished gang linger.
        settled: newest step settled on all ranks and whole on the board, -1 for none.
        committed: newest step on disk that the board need not give again, -1 for none.
        trained: the state at the training's end is whole on the board.
        trained_committed: it is on disk.
        committing: a commit is under way.
        commit_failed: the last emergency or final commit failed; it is not tried without end.
        periodic_due: a periodic checkpoint is due.
        safety_due: somebody gave notice, and nothing has been committed since.
        launch_due: the pause before the next attempt is over.
        over: the run is decided; only leaving remains.
        lost: a node was lost in this attempt: its memory is gone, and the next one may go, too.
        attendance: whether all nodes are there for the next attempt.
        mirroring: the newest checkpoint is on its way to the mirror, and there is time to wait for that.
    """

    gang: Gang
    wish: Wish = Wish.GO_ON
    paused: bool = False
    all_paused: bool = False
    drain_over: bool = False
    done_too_long: bool = False
    settled: int = -1
    committed: int = -1
    trained: bool = False
    trained_committed: bool = False
    committing: bool = False
    commit_failed: bool = False
    periodic_due: bool = False
    safety_due: bool = False
    launch_due: bool = True
    over: bool = False
    lost: bool = False
    attendance: Attendance = Attendance.COMPLETE
    mirroring: bool = False


def next_move(now: Situation) -> Move:  # noqa: PLR0911 - one line per rule
    """Choose the next move.

    In this order: a kill is a kill; what is broken is ended at once, for its peers hang; a
    drain commits before and after the pause; a finished training is committed; whatever has
    ended is closed, and only then is anything launched.

    >>> next_move(Situation(gang=Gang.BROKEN)).value
    'kill'
    >>> next_move(Situation(gang=Gang.ALIVE, wish=Wish.HAND_BACK, settled=7, committed=3)).value
    'pause'
    """
    if now.wish is Wish.KILL:
        return Move.LEAVE if now.gang in (Gang.NONE, Gang.GONE) else Move.KILL
    if now.gang is Gang.BROKEN:
        # Whoever is to leave commits first: what cannot be killed must not use up the grace.
        return (_secure(now) if now.wish is not Wish.GO_ON else None) or Move.KILL
    if now.gang is Gang.DONE and now.done_too_long:
        return Move.KILL
    if now.gang is Gang.DONE:
        return _secure(now) or Move.WAIT  # its processes are leaving
    if now.gang is Gang.ALIVE:
        return _alive(now)
    if now.gang is Gang.GONE:
        return _secure(now) or (Move.WAIT if now.committing else Move.CLOSE_ATTEMPT)
    # nothing runs
    if now.wish is not Wish.GO_ON or now.over:
        return _secure(now) or (Move.WAIT if now.committing or now.mirroring else Move.LEAVE)
    if now.safety_due and (secure := _secure(now)) is not None:
        return secure
    if now.attendance is Attendance.OVERDUE:
        return Move.MISS
    ready = now.launch_due and now.attendance is Attendance.COMPLETE
    return Move.LAUNCH if ready and not now.committing else Move.WAIT


def _alive(now: Situation) -> Move:
    if now.wish is not Wish.GO_ON:
        return _draining(now)
    if now.trained:
        return _secure(now) or Move.WAIT
    if now.committing:
        return Move.WAIT
    if now.safety_due and now.settled > now.committed:
        return Move.COMMIT_SAFETY
    return Move.COMMIT_PERIODIC if now.periodic_due else Move.WAIT


def _draining(now: Situation) -> Move:
    if not now.paused:
        return Move.PAUSE
    secure = _secure(now)
    if secure is not None:
        return secure
    if now.committing:
        return Move.WAIT
    return Move.KILL if now.all_paused or now.drain_over or now.trained else Move.WAIT


def _secure(now: Situation) -> Move | None:
    """Bring to disk what only memory holds.

    At the training's end, at a drain, at a leave, when a node was lost, when a notice came and nobody trains.
    """
    if now.committing or now.commit_failed:
        return None
    if now.trained and not now.trained_committed:
        return Move.COMMIT_FINAL
    needed = now.wish is not Wish.GO_ON or now.over or now.lost or now.safety_due
    if needed and not now.trained and now.settled > now.committed:
        return Move.COMMIT_EMERGENCY
    return None
