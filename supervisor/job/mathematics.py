"""Which keys of a job decide what is computed, and how two jobs differ in them.

A run under way keeps its mathematics: with another model, data set or learning
rate its checkpoints would belong to no run at all. How long it goes on, how it
is launched and when it is saved may change between attempts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from supervisor.job.schema import Job

#: Top-level keys of the job file whose values decide what is computed.
MATHEMATICS = ("program", "args", "start_from")

#: Keys below them that do not: a run may be given more steps, or fewer.
FREE = ("args.training.max_steps", "args.max_steps")

_ABSENT = object()


def mathematics(job: Job) -> str:
    """Fingerprint what decides the result: 64 hexadecimal digits, the same for the same mathematics.

    >>> one = Job(program="t.py", args={"training": {"max_steps": 10}})
    >>> mathematics(one) == mathematics(Job(program="t.py", args={"training": {"max_steps": 20}}))
    True
    """
    return hashlib.sha256(_canonical(_deciding(job.model_dump())).encode()).hexdigest()


def changed_keys(old: Mapping[str, Any], new: Job) -> list[str]:
    """List the dotted keys within the mathematics in which two jobs differ.

    Args:
        old: the run's resolved job file, as plain values.
        new: the job that is to go on with the run.

    >>> changed_keys({"program": "t.py", "args": {"r": 8}}, Job(program="t.py", args={"r": 16}))
    ['args.r']
    """
    before, after = _deciding(old), _deciding(new.model_dump())
    keys = [*before, *(key for key in after if key not in before)]
    return [key for key in keys if _text(before.get(key, _ABSENT)) != _text(after.get(key, _ABSENT))]


def describe_changes(old: Mapping[str, Any], new: Job) -> list[str]:
    """Say each difference within the mathematics, for the refusal.

    >>> describe_changes({"program": "t.py", "args": {"r": 8}}, Job(program="t.py", args={"r": 16, "seed": 1}))
    ['args.r 8 → 16', 'args.seed (absent) → 1']
    """
    before, after = _deciding(old), _deciding(new.model_dump())
    keys = changed_keys(old, new)
    return [f"{key} {_text(before.get(key, _ABSENT))} → {_text(after.get(key, _ABSENT))}" for key in keys]


def _deciding(values: Mapping[str, Any]) -> dict[str, Any]:
    """The deciding keys, flattened to dotted paths; null is the same as absent."""
    flat: dict[str, Any] = {}
    for key in MATHEMATICS:
        _flatten(values.get(key), key, flat)
    return {key: value for key, value in flat.items() if key not in FREE}


def _flatten(value: Any, path: str, flat: dict[str, Any]) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _flatten(inner, f"{path}.{key}", flat)
    elif value is not None:
        flat[path] = value


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _text(value: Any) -> str:
    return "(absent)" if value is _ABSENT else _canonical(value)
