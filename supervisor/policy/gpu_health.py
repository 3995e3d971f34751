"""What a driver's words about a GPU mean: fit, doubtful, or to be left alone until somebody resets it.

Unknown is not fit: a driver that does not tell, or does not answer, has said nothing.

What this does not protect against: a GPU that computes wrong numbers in silence; a fault that the driver has not
noticed yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from supervisor.policy.causes import Cause, Verdict

#: Table 1 of NVIDIA's Xid catalog, column "Resolution Bucket (Immediate Action)":
#: https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html
_CATALOG = "Xid catalog"


class Action(Enum):
    """What NVIDIA's catalog wants done at once."""

    IGNORE = "IGNORE"
    RESTART_APP = "RESTART_APP"
    RESET_GPU = "RESET_GPU"
    RESTART_BM = "RESTART_BM"
    RESTART_VM = "RESTART_VM"
    CHECK_MECHANICALS = "CHECK_MECHANICALS"
    CHECK_LINK = "WORKFLOW_NVLINK"


class State(Enum):
    """How a GPU is."""

    OK = "ok"
    SUSPECT = "suspect"  # it may work; not to be trusted again if the attempt failed
    BAD = "bad"  # it needs a reset or a reboot: no attempt on this node can succeed
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Xid:
    """One kind of error that the driver reports.

    Attributes:
        code: its number.
        words: what it says.
        action: what is to be done.
        source: where that was read.
    """

    code: int
    words: str
    action: Action
    source: str = _CATALOG


def _many(codes: Iterable[int], words: str, action: Action) -> list[Xid]:
    return [Xid(code, words, action) for code in codes]


_ROWS = [
    Xid(8, "it stopped processing", Action.RESTART_APP),
    Xid(11, "corrupted push buffer stream", Action.RESTART_APP),
    Xid(13, "graphics engine exception", Action.RESTART_APP),
    Xid(14, "an error injected from outside", Action.IGNORE),
    Xid(25, "illegal push buffer stream", Action.RESTART_APP),
    Xid(31, "memory page fault", Action.RESTART_APP),
    Xid(32, "corrupted push buffer stream", Action.RESTART_APP),
    *_many((37, 38), "driver firmware error", Action.IGNORE),
    *_many((39, 40, 41), "copy engine exception", Action.RESTART_APP),
    Xid(43, "a program's channel was reset", Action.IGNORE),
    Xid(44, "fault during a context switch", Action.IGNORE),
    # Alone the catalog restarts the fabric manager; a killed worker causes it, too, so it is never a root here.
    Xid(45, "clean-up after an earlier error or a kill", Action.IGNORE),
    Xid(46, "it stopped processing", Action.RESET_GPU),
    Xid(48, "double-bit ECC error", Action.RESET_GPU, "Xid catalog, WORKFLOW_XID_48: RESET_GPU, or drain and reset"),
    Xid(54, "auxiliary power is not connected", Action.CHECK_MECHANICALS),
    Xid(60, "video processor exception", Action.RESTART_APP),
    Xid(62, "internal micro-controller halt", Action.RESET_GPU),
    Xid(63, "memory was remapped", Action.IGNORE),
    Xid(64, "memory could not be remapped", Action.RESET_GPU),
    *_many((66, 67), "illegal access by the driver", Action.IGNORE),
    Xid(69, "graphics engine class error", Action.RESTART_APP),
    *_many((68, 83, 84, 88, 89, 96, 97, 98), "video decoder exception", Action.RESTART_APP),
    *_many((70, 71, 72, 75, 76, 77, 85, *range(126, 136)), "copy engine error", Action.RESTART_APP),
    Xid(74, "NVLink error", Action.CHECK_LINK, "Xid catalog, WORKFLOW_NVLINK_ERR; a reset or reboot clears it"),
    Xid(79, "it has fallen off the bus", Action.RESTART_BM),
    Xid(80, "corrupted data sent to it", Action.RESTART_APP),
    *_many((82, *range(99, 106)), "JPEG engine error", Action.RESTART_APP),
    *_many((86, 139), "optical flow engine error", Action.RESTART_APP),
    Xid(92, "high rate of single-bit ECC errors", Action.IGNORE),
    Xid(93, "wear limit of its settings memory", Action.IGNORE),
    Xid(94, "contained memory error", Action.RESTART_APP),
    Xid(95, "uncontained memory error", Action.RESET_GPU),
    *_many((106, 107), "test message", Action.IGNORE),
    Xid(109, "context switch timeout", Action.RESET_GPU),
    Xid(110, "security fault", Action.RESET_GPU),
    Xid(119, "its system processor does not answer", Action.RESET_GPU),
    Xid(120, "error of its system processor", Action.RESET_GPU),
    Xid(121, "corrected error of the link to the processor", Action.IGNORE),
    Xid(136, "link training failed", Action.RESET_GPU),
    Xid(137, "NVLink privilege error", Action.IGNORE),
    Xid(140, "unrecovered ECC error", Action.RESET_GPU),
    Xid(141, "CUDA fast path error", Action.IGNORE),
    Xid(143, "initialisation error", Action.RESET_GPU),
    *[
        Xid(code, "NVLink error", Action.CHECK_LINK, "Xid catalog, WORKFLOW_NVLINK5_ERR: by subcode ignore or reset")
        for code in range(144, 151)
    ],
    Xid(151, "key rotation error", Action.RESTART_VM),
    *_many((152, 153), "deep learning accelerator error", Action.IGNORE),
    Xid(154, "the driver wants something else done now", Action.IGNORE, "Xid catalog; the recovery action says what"),
    # The catalog resets here, but a link that goes to sleep on purpose is reported so as well.
    Xid(155, "an NVLink went down", Action.CHECK_LINK),
    Xid(156, "a part of it was retired", Action.RESET_GPU),
    Xid(157, "a part of it could not be retired", Action.IGNORE),
    Xid(158, "fatal timeout", Action.RESET_GPU),
    *_many((160, 161), "a channel was retired", Action.IGNORE),
    *_many((171, 172), "details of an uncorrectable error", Action.IGNORE),
]
#: Every code that the catalog gives an action; the others are named and decide nothing.
XIDS = {row.code: row for row in _ROWS}

_STATES = {
    Action.IGNORE: State.OK,
    Action.RESTART_APP: State.OK,
    Action.CHECK_LINK: State.SUSPECT,
    Action.RESET_GPU: State.BAD,
    Action.RESTART_BM: State.BAD,
    Action.RESTART_VM: State.BAD,
    Action.CHECK_MECHANICALS: State.BAD,
}

#: `NVML_GPU_RECOVERY_ACTION_*` in nvml.h.
_RECOVERY = {
    1: (State.BAD, "the driver wants it reset"),
    2: (State.BAD, "the driver wants the node rebooted"),
    3: (State.SUSPECT, "the driver wants its peer-to-peer traffic drained"),
    4: (State.BAD, "the driver wants it drained and reset"),
    5: (State.SUSPECT, "the driver wants its NVLink domain recovered"),
    6: (State.BAD, "the driver wants its bus reset"),
    7: (State.BAD, "the driver wants the whole system rebooted"),
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What a driver said of one GPU; None where it did not say.

    Attributes:
        index: the driver's number of it.
        uuid: its name for ever.
        name: what it was asked for as.
        bus: its address, as the kernel's log has it.
        recovery: the action that the driver recommends, 0 for none.
        lost: it cannot be reached any more.
        remap_pending: memory rows wait for a reset to be replaced.
        remap_failed: memory rows could not be replaced.
        uncorrected: ECC errors since the driver was loaded.
        xids: errors reported since they were listened for, in their order.
        error: why it could not be asked.
    """

    index: int | None = None
    uuid: str | None = None
    name: str = ""
    bus: str | None = None
    recovery: int | None = None
    lost: bool = False
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    uncorrected: int | None = None
    xids: tuple[int, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds memory of a GPU.

    Attributes:
        pid: its number, as the driver counts.
        used_bytes: what it holds; None where the driver does not say.
        gpu: the driver's number of the GPU.
    """

    pid: int
    used_bytes: int | None
    gpu: int


@dataclass(frozen=True, slots=True)
class Health:
    """How one GPU is.

    Attributes:
        index: the driver's number of it; None where it has no answer.
        uuid: its name for ever.
        state: see there.
        words: why, for a person.
        xids: errors reported since they were listened for.
    """

    index: int | None
    uuid: str | None
    state: State
    words: str
    xids: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """As a person would find it again."""
        number = "a GPU" if self.index is None else f"GPU {self.index}"
        return f"{number} ({self.uuid})" if self.uuid else number


def judge(reading: Reading) -> Health:
    """Say how a GPU is.

    >>> judge(Reading(0, "GPU-1", recovery=0)).state, judge(Reading(0, "GPU-1")).state
    (<State.OK: 'ok'>, <State.UNKNOWN: 'unknown'>)
    >>> judge(Reading(3, "GPU-3", recovery=0, xids=(45, 79))).words
    'Xid 79, it has fallen off the bus'
    """
    found = list(_findings(reading))
    for state in (State.BAD, State.SUSPECT):
        words = [said for kind, said in found if kind is state]
        if words:
            return Health(reading.index, reading.uuid, state, "; ".join(words), reading.xids)
    if reading.recovery is None:
        said = reading.error or "the driver does not tell whether it needs recovery"
        return Health(reading.index, reading.uuid, State.UNKNOWN, said, reading.xids)
    return Health(reading.index, reading.uuid, State.OK, "; ".join(map(told, reading.xids)), reading.xids)


def _findings(reading: Reading) -> Iterable[tuple[State, str]]:
    if reading.lost:
        yield State.BAD, "the driver has lost it"
    for code in dict.fromkeys(reading.xids):
        if code in XIDS:
            yield _STATES[XIDS[code].action], told(code)
    if reading.recovery:
        unheard_of = (State.SUSPECT, f"the driver wants recovery action {reading.recovery}")
        yield _RECOVERY.get(reading.recovery, unheard_of)
    if reading.remap_failed:
        yield State.BAD, "broken memory rows could not be replaced"
    if reading.remap_pending:
        yield State.SUSPECT, "broken memory rows wait for a reset to be replaced"
    if reading.uncorrected:
        yield State.SUSPECT, f"uncorrected memory errors since the driver was loaded: {reading.uncorrected}"


def told(code: int) -> str:
    """An Xid in words.

    >>> told(79), told(9999)
    ('Xid 79, it has fallen off the bus', 'Xid 9999')
    """
    return f"Xid {code}, {XIDS[code].words}" if code in XIDS else f"Xid {code}"


def fault_of(healths: Sequence[Health]) -> Verdict | None:
    """The verdict that GPUs speak: one of them needs more than another attempt, so the node is to be left.

    A link that reported errors counts. What is merely doubtful (rows that wait for a reset) does not.
    """
    bad = [one for one in healths if one.state is State.BAD]
    linked = [one for one in healths if any(_action(code) is Action.CHECK_LINK for code in one.xids)]
    blamed = bad or linked
    if not blamed:
        return None
    return Verdict(Cause.GPU_FAULT, "; ".join(f"{one.name}: {one.words}" for one in blamed))


def app_fault(healths: Sequence[Health]) -> str | None:
    """Words for errors that a restart of the program clears; None if there were none.

    They may come from the program's own code (an illegal access) or from memory whose error was contained.
    """
    said = [
        f"{one.name}: {told(code)}"
        for one in healths
        for code in dict.fromkeys(one.xids)
        if _action(code) is Action.RESTART_APP
    ]
    return "; ".join(said) or None


def _action(code: int) -> Action | None:
    return XIDS[code].action if code in XIDS else None
