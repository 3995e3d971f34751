"""Periods and durations of the job file, as values.

A period is how often something happens: by the clock, by steps, or `auto`. A
number never stands alone in the job file: `500` would mean minutes to one
reader and steps to another.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from supervisor.policy.schedule import Seconds, Steps

__all__ = [
    "Auto",
    "Every",
    "Off",
    "Seconds",
    "SnapshotEvery",
    "Steps",
    "parse_duration",
    "parse_every",
    "parse_period",
    "parse_snapshot",
    "switch",
]

_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zA-Z]*)\s*", re.ASCII)
_SECONDS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}
_STEPS = ("step", "steps")
_UNITS = "s, min, h, d"


@dataclass(frozen=True, slots=True)
class Auto:
    """The supervisor chooses, from what it measures."""

    def __str__(self) -> str:
        return "auto"


@dataclass(frozen=True, slots=True)
class Off:
    """Never."""

    def __str__(self) -> str:
        return "off"


Every = Auto | Seconds | Steps
SnapshotEvery = Auto | Steps | Off


def parse_duration(value: Any) -> Seconds:
    """Read a duration.

    >>> parse_duration("1.5 min"), str(parse_duration("5400 s"))
    (Seconds(s=90.0), '90 min')

    Raises:
        ValueError: it is none; the message says what is allowed.
    """
    match _measured(value):
        case Seconds() as duration:
            return duration
        case _:
            raise ValueError(f"a duration is a number and a unit ({_UNITS}), such as '30 s'")


def parse_every(value: Any) -> Every:
    """Read a period by the clock or by steps.

    >>> parse_every("auto"), parse_every("10 min"), parse_every("500 steps")
    (Auto(), Seconds(s=600.0), Steps(n=500))

    Raises:
        ValueError: it is none; the message says what is allowed.
    """
    if value == "auto":
        return Auto()
    return parse_period(value, or_else="or auto")


def parse_period(value: Any, or_else: str = "") -> Seconds | Steps:
    """Read a period that somebody chose, so not `auto`.

    Raises:
        ValueError: it is none, or it is zero; the message says what is allowed.
    """
    period = _measured(value)
    if period is None:
        raise ValueError(
            f"a period is a number and a unit ({_UNITS}, steps), such as '10 min' or '500 steps' {or_else}"
        )
    if period == Seconds(0.0):
        raise ValueError("a period is longer than 0 s")
    return period


def parse_snapshot(value: Any) -> SnapshotEvery:
    """Read the period of snapshots: by steps, `auto` or `off` (which YAML reads as false).

    >>> parse_snapshot("20 steps"), parse_snapshot(False)
    (Steps(n=20), Off())

    Raises:
        ValueError: it is none; the message says what is allowed.
    """
    if value is False or value == "off":
        return Off()
    if value == "auto":
        return Auto()
    match _measured(value):
        case Steps() as steps:
            return steps
        case _:
            raise ValueError("snapshots are counted in steps: '1 step', '20 steps', auto or off")


def switch(value: Any) -> Any:
    """Give back the words `on` and `off`, which YAML 1.1 reads as true and false.

    >>> switch(False), switch(True), switch("auto")
    ('off', 'on', 'auto')
    """
    if isinstance(value, bool):
        return "on" if value else "off"
    return value


def _measured(value: Any) -> Seconds | Steps | None:
    """A number with a unit we know, or None.

    Raises:
        ValueError: a number without a unit, or steps that are no whole number of at least 1.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"{value} has no unit: write '{value} s', '{value} min' or '{value} steps'")
    found = _NUMBER_AND_UNIT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    number, unit = found.groups()
    if unit.lower() in _STEPS:
        if not number.isdigit() or not 1 <= len(number) <= 15 or int(number) < 1:
            raise ValueError("steps are counted: a whole number of at least 1, such as '500 steps'")
        return Steps(int(number))
    if not unit:
        raise ValueError(f"{number} has no unit: write '{number} s', '{number} min' or '{number} steps'")
    size_s = _SECONDS.get(unit.lower())
    if size_s is None:
        return None
    seconds = float(number) * size_s
    return Seconds(seconds) if math.isfinite(seconds) else None
