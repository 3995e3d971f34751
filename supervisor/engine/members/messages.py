"""What leader and members tell each other: whole states, so that one that was lost is made good by the next.

The leader says what it wants (`Wanted`), a member what is (`Seen`). Neither is a command: a member
compares the two and does what is missing, after a cut just as before it. Only a rank's own part of a
checkpoint is sent once, in frames of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_type_hints

from supervisor.board.pages import Beat, Phase
from supervisor.board.slots import Identity
from supervisor.engine.attempt import AttemptOrder, Start
from supervisor.engine.ranks.node import Testimony
from supervisor.launch.command import Rendezvous
from supervisor.policy.adapt import Adaptation
from supervisor.policy.causes import RankEnd
from supervisor.policy.lifecycle import Gang
from supervisor.policy.stalls import Account

WANTED, SEEN, PART, PARTED = "wanted", "seen", "part", "parted"

T = TypeVar("T")


class MessageError(ValueError):
    """What came is no message of this version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the leader wants of one member.

    Attributes:
        run_id: of the run.
        epoch: under which the leader owns it.
        token: the owner's, as the lease has it.
        order: the attempt that is to be under way; None before the first.
        kill: its workers are to be ended.
        period: snapshots are taken of the steps that it divides.
        due_every: a checkpoint is due at the steps that it divides; 0 if the clock decides.
        due_at: one more step of which a checkpoint is due; 0 for none.
        taken: newest step of which a due checkpoint has been begun.
        drain: ranks are to wait at the beginning of their next step.
        part: number of the commit that a part is wanted for, and of which snapshot; None for none.
        leave: exit code to leave with; None to stay.
        keep: whoever leaves is to leave its board: the newest state is not on disk.
        inquiry: number of the question what its ranks are at; 0 for none.
        native: whether what lies below Python is wanted with it.
    """

    run_id: str
    epoch: int
    token: str
    order: AttemptOrder | None = None
    kill: bool = False
    period: int = 1
    due_every: int = 0
    due_at: int = 0
    taken: int = 0
    drain: int = 0
    part: tuple[int, Identity] | None = None
    leave: int | None = None
    keep: bool = False
    inquiry: int = 0
    native: bool = False

    def fields(self) -> dict[str, Any]:
        """As it is sent."""
        return asdict(self) | {"order": None if self.order is None else _order_fields(self.order)}

    @staticmethod
    def read(fields: Mapping[str, Any]) -> Wanted:
        """Read back what `fields` gave.

        Raises:
            MessageError: it is something else.
        """
        try:
            told = dict(fields)
            told["order"] = None if told["order"] is None else _read_order(told["order"])
            if told["part"] is not None:
                number, identity = told["part"]
                told["part"] = (_whole(number), _identity(identity))
            return _typed(Wanted(**told))
        except (KeyError, TypeError, ValueError) as error:
            raise MessageError(f"not what a leader wants: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """A cloud's notice, as a member passes it on.

    Attributes:
        cloud: whose.
        kind: what is to happen.
        detail: in the cloud's own words.
        key: which of its notices.
        urgent: the node is lost to the run; else it is advice.
        left_s: until it happens [s], for clocks are not compared; None if no time is named.
    """

    cloud: str
    kind: str
    detail: str
    key: str
    urgent: bool
    left_s: float | None = None

    def same_as(self, other: Warned | None) -> bool:
        """Whether only time has passed between the two."""
        if other is None:
            return False
        return replace(self, left_s=None) == replace(other, left_s=None) and self.is_timed == other.is_timed

    @property
    def is_timed(self) -> bool:
        """Whether it names a time."""
        return self.left_s is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """How one member's node is.

    Attributes:
        attempt: the one that it speaks of; 0 before the first.
        gang: its workers.
        beats: of its ranks, in their order.
        whole: snapshots that are whole on all its ranks.
        lingers: processes of a finished gang stay longer than they should.
        failure: why the attempt could not be begun here; None if it could.
        testimony: how the attempt ended here, as far as it is known.
        notice: name of the signal that told that the end is near; None without one.
        warned: what its cloud gave notice of, with time left; None without one.
        stop: whether somebody there asked the run to stop.
        shortage: the newest that its machine's memory comes to its end; None without one.
        gpu_fault: what is wrong with one of its GPUs, so that no attempt there can succeed; None if nothing is known.
        answered: number of the question that the accounts answer; 0 for none.
        accounts: what its ranks are at.
    """

    attempt: int = 0
    gang: Gang = Gang.NONE
    beats: tuple[Beat, ...] = ()
    whole: tuple[Identity, ...] = ()
    lingers: bool = False
    failure: str | None = None
    testimony: Testimony = field(default_factory=Testimony)
    notice: str | None = None
    warned: Warned | None = None
    stop: bool = False
    shortage: str | None = None
    gpu_fault: str | None = None
    answered: int = 0
    accounts: tuple[Account, ...] = ()

    def fields(self) -> dict[str, Any]:
        """As it is sent."""
        testimony = self.testimony
        return {
            "attempt": self.attempt,
            "gang": self.gang.value,
            "beats": [astuple(beat) for beat in self.beats],
            "whole": self.whole,
            "lingers": self.lingers,
            "failure": self.failure,
            "finished": testimony.finished,
            "ends": [asdict(end) for end in testimony.ends],
            "launcher": testimony.launcher,
            "oom_kills": testimony.oom_kills,
            "notice": self.notice,
            "warned": None if self.warned is None else asdict(self.warned),
            "stop": self.stop,
            "shortage": self.shortage,
            "gpu_fault": self.gpu_fault,
            "answered": self.answered,
            "accounts": [asdict(account) for account in self.accounts],
        }

    @staticmethod
    def read(fields: Mapping[str, Any]) -> Seen:
        """Read back what `fields` gave.

        Raises:
            MessageError: it is something else.
        """
        try:
            ends = tuple(_end(end) for end in _many(fields["ends"]))
            return _typed(
                Seen(
                    attempt=fields["attempt"],
                    gang=Gang(fields["gang"]),
                    beats=tuple(_beat(values) for values in _many(fields["beats"])),
                    whole=tuple(_identity(one) for one in _many(fields["whole"])),
                    lingers=fields["lingers"],
                    failure=fields["failure"],
                    testimony=_typed(Testimony(fields["finished"], ends, fields["launcher"], fields["oom_kills"])),
                    notice=fields["notice"],
                    warned=None if fields["warned"] is None else _warned(fields["warned"]),
                    stop=fields["stop"],
                    shortage=fields["shortage"],
                    gpu_fault=fields["gpu_fault"],
                    answered=fields["answered"],
                    accounts=tuple(_account(one) for one in _many(fields["accounts"])),
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            raise MessageError(f"not how a node is: {error}") from error

    def is_news(self, before: Seen | None) -> bool:
        """Whether the leader should hear of it at once; what only goes on can wait for the next second."""
        if before is None:
            return True
        warned = self.warned is not None and not self.warned.same_as(before.warned)
        withdrawn = self.warned is None and before.warned is not None
        return warned or withdrawn or self._urgent() != before._urgent()

    def _urgent(self) -> tuple[object, ...]:
        phases = tuple((b.phase, b.pid, b.trained, b.resumed, b.diverged_at) for b in self.beats)
        whole = self.whole if self.gang is not Gang.ALIVE or any(b.phase == Phase.PAUSED for b in self.beats) else ()
        told = self.testimony
        return (
            *(self.attempt, self.gang, phases, whole, self.lingers, self.failure, self.notice, self.stop),
            *(told, self.shortage, self.gpu_fault, self.answered),
        )


def _warned(told: Mapping[str, Any]) -> Warned:
    warned = _typed(Warned(**told))
    if warned.left_s is not None and not math.isfinite(warned.left_s):
        raise ValueError(f"{warned.left_s} is no time")
    return warned


def _order_fields(order: AttemptOrder) -> dict[str, Any]:
    told = asdict(order)
    checkpoint = order.start.checkpoint
    told["start"]["checkpoint"] = None if checkpoint is None else str(checkpoint)
    told["adaptation"] = order.adaptation.told()
    return told


def _read_order(told: Mapping[str, Any]) -> AttemptOrder:
    start = dict(told["start"])
    checkpoint, identity = start["checkpoint"], start["identity"]
    if checkpoint is not None and str(Path(checkpoint)) != checkpoint:
        raise ValueError(f"{checkpoint!r} is no path as paths are written")
    start["checkpoint"] = None if checkpoint is None else Path(checkpoint)
    start["identity"] = None if identity is None else _identity(identity)
    rendezvous = _typed(Rendezvous(**told["rendezvous"]))
    adaptation = Adaptation().after(told["adaptation"])
    if adaptation.told() != told["adaptation"]:
        raise TypeError(f"{told['adaptation']!r} is no adaptation")
    made = {**told, "start": _typed(Start(**start)), "rendezvous": rendezvous, "adaptation": adaptation}
    return _typed(AttemptOrder(**made))


def _account(told: Mapping[str, Any]) -> Account:
    frames = None if told["frames"] is None else _names(told["frames"])
    return _typed(Account(**{**told, "frames": frames, "files": _names(told["files"])}))


def _identity(values: Sequence[int]) -> Identity:
    lineage, step, trained, attempt = (_whole(value) for value in _many(values))
    return lineage, step, trained, attempt


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value


def _many(values: Any) -> Sequence[Any]:
    if not isinstance(values, list | tuple):
        raise TypeError(f"{values!r} is no list")
    return values


def _names(values: Any) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in _many(values)):
        raise TypeError(f"{values!r} are no names")
    return tuple(values)


def _end(told: Mapping[str, Any]) -> RankEnd:
    return _typed(RankEnd(**{**told, **{name: _names(told[name]) for name in ("bases", "chain", "lines")}}))


_BEAT = tuple(type(value) for value in astuple(Beat(phase=0, trained=0)))


def _beat(values: Sequence[Any]) -> Beat:
    if tuple(map(type, values)) != _BEAT:  # of all that is sent the most: a rank's every second
        raise TypeError(f"{values!r} is no beat")
    return Beat(*values)


def _typed(made: T) -> T:
    """The same value, whose plain fields are of the types that its class declares.

    Raises:
        TypeError: they are not.
    """
    for name, kinds in _plain_types(type(made)):  # type: ignore[arg-type]  # a class is hashable
        value = getattr(made, name)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise TypeError(f"{name} is {value!r}")
    return made


@cache
def _plain_types(of: type) -> list[tuple[str, tuple[type, ...]]]:
    found = []
    for name, declared in get_type_hints(of).items():
        kinds = get_args(declared) if isinstance(declared, UnionType) else (declared,)
        if all(isinstance(kind, type) for kind in kinds):  # tuples are looked at where they are made
            found.append((name, (*kinds, int) if float in kinds else kinds))
    return found
