"""What all rooms use. Those whose tests take minutes come first: what takes milliseconds fills the gaps at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import Ext4
from hypothesis import HealthCheck, settings

# How long an example takes says more of the machine, and of what else it does, than of the code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

_FIRST = ("slurm", "faults")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _place(item.path))


def _place(path: Path) -> int:
    return _FIRST.index(path.parent.name) if path.parent.name in _FIRST else len(_FIRST)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Ext4]:
    """An ext4 of the test's own."""
    made = Ext4(tmp_path / "disk")
    yield made
    made.thaw()
    while made.place.is_mount():
        made.go()
