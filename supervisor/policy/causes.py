"""Why an attempt ended: the causes, their classes, and how evidence becomes one of them.

Root before cascade: of several ranks the one that ended for the gravest reason is the root;
among equals the earliest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Cause(Enum):
    """Why an attempt ended, as far as the evidence shows. The words are a promise."""

    FINISHED = "finished"
    USER_STOP = "user_stop"
    PREEMPTED = "preempted"
    TIME_LIMIT = "time_limit"
    NODE_LOST = "node_lost"
    DISCONNECTED = "disconnected"
    STALLED = "stalled"
    GPU_OOM = "gpu_oom"
    HOST_OOM = "host_oom"
    GPU_FAULT = "gpu_fault"
    NETWORK = "network"
    STORAGE = "storage"
    DISK_FULL = "disk_full"
    DIVERGED = "diverged"
    BAD_CHECKPOINT = "bad_checkpoint"
    USER_ERROR = "user_error"
    CRASHED = "crashed"
    UNKNOWN = "unknown"


class CauseClass(Enum):
    """What kind of thing a cause is."""

    EXPECTED = "expected"  # nobody erred; costs no patience
    TRANSIENT = "transient"  # may go away by itself
    ADAPT = "adapt"  # comes again unless something is changed
    PERMANENT = "permanent"  # comes again; a person has to change something


CLASSES: dict[Cause, CauseClass] = {
    Cause.FINISHED: CauseClass.EXPECTED,
    Cause.USER_STOP: CauseClass.EXPECTED,
    Cause.PREEMPTED: CauseClass.EXPECTED,
    Cause.TIME_LIMIT: CauseClass.EXPECTED,
    Cause.NODE_LOST: CauseClass.TRANSIENT,
    Cause.DISCONNECTED: CauseClass.TRANSIENT,
    Cause.STALLED: CauseClass.TRANSIENT,
    Cause.GPU_OOM: CauseClass.ADAPT,
    Cause.HOST_OOM: CauseClass.ADAPT,
    Cause.GPU_FAULT: CauseClass.TRANSIENT,
    Cause.NETWORK: CauseClass.TRANSIENT,
    Cause.STORAGE: CauseClass.TRANSIENT,
    Cause.DISK_FULL: CauseClass.PERMANENT,
    Cause.DIVERGED: CauseClass.ADAPT,
    Cause.BAD_CHECKPOINT: CauseClass.PERMANENT,
    Cause.USER_ERROR: CauseClass.PERMANENT,
    Cause.CRASHED: CauseClass.TRANSIENT,
    Cause.UNKNOWN: CauseClass.TRANSIENT,
}


@dataclass(frozen=True, slots=True)
class RankEnd:
    """How one rank ended, as far as it can be read.

    Attributes:
        rank: global rank.
        time_s: when its end was recorded or seen [s]; only compared with other ranks'.
        error_type: qualified name of the exception it recorded, or None for no record.
        bases: qualified names of that exception's classes.
        message: of the exception.
        exit_code: of a `SystemExit`, else None.
        signal: name of the signal that ended the process, where the launcher told.
    """

    rank: int
    time_s: float
    error_type: str | None = None
    bases: tuple[str, ...] = ()
    message: str = ""
    exit_code: int | None = None
    signal: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why an attempt ended, and where that was read.

    Attributes:
        cause: one of the list.
        evidence: one sentence that names the source.
        usage: whether the job itself cannot work, so that nothing was ever tried.
    """

    cause: Cause
    evidence: str
    usage: bool = False


#: Exceptions that the same program with the same input raises again, however often it is tried.
_USER_ERRORS = (
    "builtins.ImportError",
    "builtins.SyntaxError",
    "builtins.NameError",
    "supervisor.errors.JobError",
    "supervisor.errors.MachineError",
    "supervisor.worker.seat.WorldSizeError",
    "supervisor.worker.snapshots.BoardRefusedError",
)
#: What a rank raises because a peer is gone: never the root if there is another.
_CASCADES = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Socket Timeout",
    "NCCL",
    "Gloo",
    "gloo",
    "DistNetworkError",
    "DistStoreError",
)
_USAGE_EXIT = 2  # what argparse leaves with


def diagnose(ends: Sequence[RankEnd], launcher: str | None = None) -> Verdict:
    """Find the root among the ranks' ends.

    Args:
        ends: of the ranks that ended badly, in any order.
        launcher: last words of a launcher that ended before any rank, if that happened.

    Returns:
        The verdict; `Cause.UNKNOWN` where nothing was recorded.

    >>> diagnose([RankEnd(1, 5.0), RankEnd(0, 5.1, "builtins.RuntimeError", message="Connection closed by peer")])
    ... # doctest: +ELLIPSIS
    Verdict(cause=<Cause.CRASHED: 'crashed'>, evidence='rank 1 was killed...
    """
    if not ends:
        if launcher is None:
            return Verdict(Cause.UNKNOWN, "no rank recorded how it ended")
        return Verdict(Cause.CRASHED, f"the launcher ended before any rank did: {launcher}")
    root = min(ends, key=lambda end: (_cascades(end), end.error_type is None, end.time_s, end.rank))
    if root.error_type is None or (_cascades(root) and any(e.error_type is None for e in ends)):
        killed = next(e for e in ends if e.error_type is None)
        how = f"by {killed.signal}" if killed.signal else "from outside"
        return Verdict(Cause.CRASHED, f"rank {killed.rank} was killed {how}, it recorded no error of its own")
    said = f"rank {root.rank} raised {root.error_type}: {_first_line(root.message)}"
    if any(name in root.bases for name in _USER_ERRORS):
        return Verdict(Cause.USER_ERROR, said, usage=any("supervisor.errors." in b for b in root.bases))
    if root.error_type == "builtins.SystemExit" and root.exit_code == _USAGE_EXIT:
        return Verdict(Cause.USER_ERROR, f"rank {root.rank} refused its command line (exit code 2)")
    return Verdict(Cause.CRASHED, said)


def _cascades(end: RankEnd) -> bool:
    return end.error_type is not None and any(sign in f"{end.error_type} {end.message}" for sign in _CASCADES)


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0][:500] if lines else "(no message)"
