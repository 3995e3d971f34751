"""YAML with a memory of where each key stood, so that every complaint can name its line.

Three habits of YAML 1.1 are left out, because each has silently changed
somebody's job: `12:00:00` stays text (not 43200), `2024-05-01` stays text (not
a date), and `010` stays text (not 8). One is added: `1e-4` is a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from supervisor.errors import JobError

KeyPath = tuple[str | int, ...]

_MAX_NODES = 100_000  # aliases of aliases of aliases grow without end
_MAX_BYTES = 1 << 20
_ALLOWED_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")}
_MERGE = "tag:yaml.org,2002:merge"
_OUR_RESOLVERS = {
    "tag:yaml.org,2002:int": (re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$"), "-+0123456789"),
    "tag:yaml.org,2002:float": (
        re.compile(
            r"^(?:[-+]?(?:[0-9][0-9_]*)?\.[0-9]+(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+\.(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        "-+0123456789.",
    ),
}
_LEFT_OUT = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"}


def _with_ours(base: Mapping[Any, Sequence[tuple[str, Any]]]) -> dict[Any, list[tuple[str, Any]]]:
    """The rules by which a plain scalar gets its type, with ours behind those of ``base``."""
    table = {first: list(rules) for first, rules in base.items()}
    for tag, (pattern, firsts) in _OUR_RESOLVERS.items():
        for first in firsts:
            table.setdefault(first, []).append((tag, pattern))
    return table


def _without_numbers(base: Mapping[Any, Sequence[tuple[str, Any]]]) -> dict[Any, list[tuple[str, Any]]]:
    return {first: [(tag, rule) for tag, rule in rules if tag not in _LEFT_OUT] for first, rules in base.items()}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _with_ours(_without_numbers(yaml.SafeLoader.yaml_implicit_resolvers))


class _Dumper(yaml.SafeDumper):
    """Quotes what either we or any other reader of YAML would take for something else than text."""

    yaml_implicit_resolvers = _with_ours(yaml.SafeDumper.yaml_implicit_resolvers)

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Text in double quotes where it holds line breaks or what nobody can see: single quotes fold them."""
        style = None if data.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


@dataclass(slots=True)
class Document:
    """A job file as plain values, with the place of every key.

    Attributes:
        values: the mapping.
        source: the file's name, for messages.
        lines: 1-based line of each key path.
        texts: how each scalar was written.
        overrides: key paths that `--set` gave.
    """

    values: dict[str, Any]
    source: str
    lines: dict[KeyPath, int] = field(default_factory=dict)
    texts: dict[KeyPath, str] = field(default_factory=dict)
    overrides: list[KeyPath] = field(default_factory=list)

    def where(self, path: KeyPath) -> str:
        """Name the place of a key, or of the nearest key around it: `job.yaml:7`, `--set a.b`; or of what made it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.overrides:
                return f"--set {dotted(path[:length])}"
            if path[:length] in self.lines:
                return f"{self.source}:{self.lines[path[:length]]}"
        for override in self.overrides:
            if path and override[: len(path)] == path:
                return f"--set {dotted(override)}"
        return f"{self.source}:1"


def dotted(path: KeyPath) -> str:
    """Write a key path as people do.

    >>> dotted(("notify", 0, "every"))
    'notify.0.every'
    """
    return ".".join(str(part) for part in path)


def read_document(path: Path) -> Document:
    """Read a job file.

    Raises:
        JobError: there is none, it is no UTF-8 or no YAML, it holds something else
            than a mapping, or a key twice; the message names the line.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise JobError(f"{path}: {error.strerror or error}", "give the path of a readable job file") from error
    if len(data) > _MAX_BYTES:
        raise JobError(f"{path} is larger than {_MAX_BYTES >> 20} MiB", "a job file is a short text; is this it?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise JobError("not UTF-8 text", "save the job file as UTF-8", f"{path}:{line}") from error
    document = Document({}, str(path))
    value = _plain(text, document, path.name, ())
    if value is None:
        raise JobError("the file is empty", "it needs at least the key `program`", f"{path}:1")
    if not isinstance(value, dict):
        raise JobError(
            "the file is no mapping of keys", "write `key: value` lines, such as `program: jobs.lora`", f"{path}:1"
        )
    document.values = value
    return document


def apply_override(document: Document, override: str) -> None:
    """Set one key of ``document`` in place, as `--set a.b=value` asks; the value is YAML.

    Raises:
        JobError: it is no `a.b=value`, its value is no YAML, or its path leads through a scalar.
    """
    key, equals, text = override.partition("=")
    keys: KeyPath = tuple(key.strip().split("."))
    where = f"--set {key.strip()}"
    if not equals or not all(keys):
        raise JobError(
            f"--set {override}: no key and value", "write --set a.b=value, such as --set checkpoint.keep_last=5"
        )
    _forget(document, keys)
    marks = Document({}, where)
    value = _plain(text, marks, where, keys)
    document.texts.update(marks.texts)
    document.overrides.append(keys)
    inside: Any = document.values
    for depth, part in enumerate(keys[:-1], start=1):
        if inside.get(part) is None:
            inside[part] = {}
        inside = inside[part]
        if not isinstance(inside, dict):
            raise JobError(f"{dotted(keys[:depth])} is no mapping", f"set {dotted(keys[:depth])} as a whole", where)
    inside[keys[-1]] = value


def dump(values: Mapping[str, Any]) -> str:
    r"""Write a mapping as YAML that `read_document` reads back as the same values.

    >>> dump({"slurm": {"time": "12:00:00"}, "lr": "1e-4"})
    "slurm:\n  time: '12:00:00'\nlr: '1e-4'\n"
    """
    text: str = yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def _forget(document: Document, keys: KeyPath) -> None:
    """Drop the marks of a key and of all below it: they speak of a value that is replaced."""
    for marks in (document.lines, document.texts):
        for path in [p for p in marks if p[: len(keys)] == keys]:
            del marks[path]
    document.overrides[:] = [p for p in document.overrides if p[: len(keys)] != keys]


def _plain(text: str, document: Document, name: str, start: KeyPath) -> Any:
    """Parse ``text`` into plain values, noting marks in ``document`` below the path ``start``.

    Raises:
        JobError: it is no YAML that we take.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _Walk(document, loader).value(node, start)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        if "'\\t'" in problem:
            problem = "a tab where YAML wants spaces"
        raise JobError(f"not YAML: {problem}", "mend the syntax there", _at(document, mark)) from error
    except yaml.YAMLError as error:  # characters that YAML forbids; it has a position, no mark
        position = getattr(error, "position", 0)
        line = text.count("\n", 0, position if isinstance(position, int) else 0) + 1
        place = document.source if document.source.startswith("--set") else f"{document.source}:{line}"
        raise JobError("not YAML: a character that is not allowed", "remove the control character", place) from error
    except RecursionError as error:
        raise JobError(f"{name} is nested too deeply", "a job file has a few levels", document.source) from error


def _at(document: Document, mark: yaml.Mark | None) -> str:
    if document.source.startswith("--set"):
        return document.source
    return f"{document.source}:{mark.line + 1 if mark else 1}"


class _Walk:
    """Turns nodes into values; scalars by the loader, mappings and lists here, for the marks."""

    def __init__(self, document: Document, loader: _Loader) -> None:
        self.document = document
        self.loader = loader
        self.seen = 0

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.seen += 1
        if self.seen > _MAX_NODES:
            raise self.error(node, f"more than {_MAX_NODES} values", "aliases that multiply? a job file is short")
        if node.tag not in _ALLOWED_TAGS:
            raise self.error(node, f"the tag {node.tag.replace('tag:yaml.org,2002:', '!!')}", "write plain values only")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            values = []
            for index, item in enumerate(node.value):
                self.document.lines.setdefault((*path, index), item.start_mark.line + 1)
                values.append(self.value(item, (*path, index)))
            return values
        if node.tag.endswith((":map", ":seq")):
            raise self.error(node, f"{str(node.value)[:40]!r} is not what its tag says", "write a plain value")
        self.document.texts[path] = self.text(node)
        try:
            return self.loader.construct_object(node)
        except (ValueError, LookupError, yaml.YAMLError) as error:
            raise self.error(
                node, f"{str(node.value)[:40]!r} is not what its tag says", "write a plain value"
            ) from error

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged = {**self.merge(value_node, path), **merged}
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.error(key_node, "a key that is no word", "write `key: value`")
            key = self.text(key_node)  # as written: `on:` and `1:` are words here
            here = (*path, key)
            line = key_node.start_mark.line + 1
            if key in own:
                first = self.document.lines[here]
                raise self.error(key_node, f"{dotted(here)} stands twice, first on line {first}", "keep one of the two")
            self.document.lines[here] = line
            own[key] = self.value(value_node, here)
        return {**merged, **own}

    def merge(self, node: yaml.Node, path: KeyPath) -> dict[str, Any]:
        """What `<<: *anchor` brings in."""
        if isinstance(node, yaml.SequenceNode):
            parts = [self.merge(item, path) for item in node.value]
            return {key: value for part in reversed(parts) for key, value in part.items()}
        marks = Document({}, self.document.source)
        walk = _Walk(marks, self.loader)
        walk.seen = self.seen
        found = walk.value(node, path)
        self.seen = walk.seen
        if not isinstance(found, dict):
            raise self.error(node, "`<<` takes a mapping", "merge an anchor that names a mapping")
        for key_path, line in marks.lines.items():
            self.document.lines.setdefault(key_path, line)
        for key_path, text in marks.texts.items():
            self.document.texts.setdefault(key_path, text)
        return found

    def text(self, node: yaml.Node) -> str:
        """A scalar as it was written; half a surrogate pair could not be written out again."""
        text: str = node.value
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise self.error(node, "half a surrogate pair", "write the character itself")
        return text

    def error(self, node: yaml.Node, problem: str, remedy: str) -> JobError:
        return JobError(problem, remedy, _at(self.document, node.start_mark))
