"""Why an attempt ended: the causes, their classes, how one rank ended, and what was made of all of them.

How evidence becomes a cause stands in `supervisor.policy.diagnosis`.
"""

from __future__ import annotations

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
        exit_code: of a `SystemExit`, or what a process left with that recorded nothing; None while unknown.
        signal: name of the signal that ended the process; None while unknown.
        errno: the kernel's number behind the exception.
        chain: what that exception was raised from or after, each as `type: message`, the nearest first.
        began: whether training had begun; None where nobody can tell.
        phase: what it was doing, in the board's words; None while unknown.
        step: newest step that it had settled; None for none.
        lines: of its log, those that say something and the last one; oldest first.
        node: number of its node.
        oom_kills: how many processes the kernel killed for memory on its node in this attempt; None while unknown.
        held_bytes: what torch had reserved of a full device, by its own count [B]; None while unknown.
    """

    rank: int
    time_s: float
    error_type: str | None = None
    bases: tuple[str, ...] = ()
    message: str = ""
    exit_code: int | None = None
    signal: str | None = None
    errno: int | None = None
    chain: tuple[str, ...] = ()
    began: bool | None = None
    phase: str | None = None
    step: int | None = None
    lines: tuple[str, ...] = ()
    node: int = 0
    oom_kills: int | None = None
    held_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why an attempt ended, and where that was read.

    Attributes:
        cause: one of the list.
        evidence: one sentence that names the source.
        usage: whether the job itself cannot work, so that nothing was ever tried.
        root: short and the same for the same root in every attempt; None where nothing is known of one.
        details: further evidence, a line each, with where it was read.
        node: number of the node on which the root lies; None where nothing tells.
    """

    cause: Cause
    evidence: str
    usage: bool = False
    root: str | None = None
    details: tuple[str, ...] = ()
    node: int | None = None
