"""What pydantic found wrong, said the way a job file's author can use.

The first wrong key in the file's order is named with its line; further ones are
listed behind it, so that one look mends them all.
"""

from __future__ import annotations

import difflib
import typing
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from supervisor.errors import JobError
from supervisor.job.file import Document, KeyPath, dotted
from supervisor.job.notify import masked


def complaint(error: ValidationError, model: type[BaseModel], document: Document) -> JobError:
    """Turn what pydantic refused into the error that names key, line, nearest key and what is allowed.

    Args:
        error: what pydantic raised for the values of ``document``.
        model: the model that it checked them with.
        document: the job file.
    """
    found: dict[KeyPath, ErrorDetails] = {}
    for details in error.errors(include_url=False):
        found.setdefault(_path(details, document.values), details)
    first, *others = sorted(found, key=lambda path: _order(path, document))
    problem, remedy = _sentence(found[first], first, model)
    if others:
        remedy += f" (also wrong: {', '.join(f'{dotted(path)}, {document.where(path)}' for path in others)})"
    return JobError(problem, remedy, document.where(first))


def nearest(key: str, allowed: typing.Iterable[str]) -> str | None:
    """The allowed key that ``key`` may have been meant for.

    >>> nearest("keep_lasst", ["every", "keep_last", "keep_best"])
    'keep_last'
    """
    matches = difflib.get_close_matches(key, list(allowed), n=1)
    return matches[0] if matches else None


def key_paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every key of ``model`` and of the sections below it, dotted."""
    paths = []
    for name, section in _sections(model).items():
        paths.append(prefix + name)
        if section is not None:
            paths += key_paths(section, f"{prefix}{name}.")
    return paths


def shown(value: Any) -> str:
    """A value for a message: as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _sentence(details: ErrorDetails, path: KeyPath, model: type[BaseModel]) -> tuple[str, str]:
    """Problem and remedy."""
    key = dotted(path)
    value = masked(details["input"]) if path[:1] == ("notify",) else shown(details["input"])
    match details["type"]:
        case "extra_forbidden":
            return f"unknown key {key}", _which(path, model)
        case "missing":
            return f"{key} is missing", f"it takes {_allowed(path, model) or 'a value'}"
        case "value_error":
            reason = str(details.get("ctx", {}).get("error", details["msg"]))
            return f"{key}: {value} cannot be used", reason
        case _:
            allowed = _allowed(path, model) or details["msg"]
            return f"{key}: {value} cannot be used", f"allowed: {allowed}"


def _which(path: KeyPath, model: type[BaseModel]) -> str:
    """The remedy for an unknown key: the nearest one, here or in another section, and those allowed here."""
    section = _section(path[:-1], model)
    keys = sorted(_sections(section)) if section else []
    allowed = f"allowed here: {', '.join(keys)}"
    name = str(path[-1])
    around = dotted(path[:-1])
    if near := nearest(name, keys):
        return f"did you mean {f'{around}.' if around else ''}{near}? {allowed}"
    for other in key_paths(model):
        if other.rsplit(".", 1)[-1] == name:
            return f"did you mean {other}? {allowed}"
    return allowed


def _allowed(path: KeyPath, model: type[BaseModel]) -> str | None:
    """The description of the field at ``path``, or of the nearest field around it that has one."""
    for length in range(len(path), 0, -1):
        section = _section(path[: length - 1], model)
        field = section.model_fields.get(str(path[length - 1])) if section else None
        if field is not None and field.description:
            return field.description
    return None


def _section(path: KeyPath, model: type[BaseModel]) -> type[BaseModel] | None:
    """The model of the section at ``path``."""
    section: type[BaseModel] | None = model
    for part in path:
        if section is not None and not isinstance(part, int):
            section = _sections(section).get(part)
    return section


def _sections(model: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    """The keys of ``model``, each with the model of its section where it is one."""
    return {field.alias or name: _model_in(field.annotation) for name, field in model.model_fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation such as `Launch`, `KeepBest | None` or `list[str | DeadMan]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in typing.get_args(annotation):
        if (found := _model_in(part)) is not None:
            return found
    return None


def _path(details: ErrorDetails, values: Any) -> KeyPath:
    """Where the error stands in the file: pydantic's location without the names of types it puts in between."""
    inside = values
    path: list[str | int] = []
    location = details["loc"]
    for index, part in enumerate(location):
        if isinstance(inside, dict) and part in inside:
            inside = inside[str(part)]
        elif isinstance(inside, list) and isinstance(part, int) and part < len(inside):
            inside = inside[part]
        elif not (details["type"] == "missing" and index == len(location) - 1):
            continue
        path.append(part)
    return tuple(path)


def _order(path: KeyPath, document: Document) -> tuple[int, int, str]:
    """Overrides first, then by line; what is missing comes last."""
    overridden = document.where(path).startswith("--set")
    line = document.lines.get(path)
    return (0 if overridden else 1, line if line is not None else 1 << 30, dotted(path))
