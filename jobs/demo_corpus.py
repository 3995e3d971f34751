"""The demo's data: what every machine has that has Python, its standard library's own source.

Pairs of a function's signature and the first paragraph of its docstring, as
chat messages, in an order that depends on the files alone.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.errors import MachineError

#: Not the library itself: what is installed beside it, its tests, and generated tables.
_LEFT_OUT = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "encodings"})
_SHORTEST, _LONGEST = 20, 240  # characters of a docstring's first paragraph
_LONGEST_SIGNATURE = 120


@dataclass(frozen=True, slots=True)
class Pair:
    """A function, and what its author says that it does."""

    signature: str
    summary: str

    def messages(self) -> dict[str, Any]:
        """The pair as a row of chat data."""
        return {
            "messages": [
                {"role": "user", "content": self.signature},
                {"role": "assistant", "content": self.summary},
            ]
        }


def library_sources(root: Path | None = None) -> list[tuple[str, str]]:
    """Name and text of each module of the standard library, in the order of their names.

    Raises:
        MachineError: this Python comes without its source.
    """
    root = Path(sysconfig.get_paths()["stdlib"]) if root is None else root
    found = []
    for path in _modules(root):
        try:
            found.append((path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError):
            continue
    if not found:
        raise MachineError(f"this Python has no source of its standard library in {root}", "use one that has")
    return sorted(found)


def pairs(sources: list[tuple[str, str]]) -> list[Pair]:
    """Every documented function, each docstring once, in an order that mixes the modules."""
    found: dict[str, Pair] = {}
    for _, text in sources:
        for pair in _pairs_of(text):
            found.setdefault(pair.summary, pair)
    return sorted(found.values(), key=lambda pair: hashlib.blake2b(pair.summary.encode()).digest())


def _modules(root: Path) -> Iterator[Path]:
    """Python files below ``root``; directories that are left out are not entered, they can be large."""
    for directory, subdirectories, files in os.walk(root):
        subdirectories[:] = [name for name in subdirectories if name not in _LEFT_OUT]
        yield from (Path(directory) / name for name in files if name.endswith(".py"))


def _pairs_of(text: str) -> Iterator[Pair]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes in strings
            tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            paragraph = inspect.cleandoc(ast.get_docstring(node) or "").split("\n\n")[0]
            summary = " ".join(paragraph.split())
            signature = f"def {node.name}({ast.unparse(node.args)})"
            if _SHORTEST <= len(summary) <= _LONGEST and len(signature) <= _LONGEST_SIGNATURE:
                yield Pair(signature, summary)
