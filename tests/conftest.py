"""The rooms whose tests take minutes come first: what takes milliseconds then fills the gaps at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

_FIRST = ("slurm", "faults")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _place(item.path))


def _place(path: Path) -> int:
    return _FIRST.index(path.parent.name) if path.parent.name in _FIRST else len(_FIRST)
