"""A path that the system refuses is what a command was given: it is named, with the remedy, and is no bug of ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervisor.cli import commands
from supervisor.errors import DiskError, ExitCode

LOOKING = ("verify", "status", "why", "watch", "compare", "stop", "export")


def ask(name: str, place: Path) -> DiskError:
    more = ["--adapter", str(place / "adapter")] if name == "export" else []
    with pytest.raises(DiskError) as refused:
        commands.main([name, str(place), *more], standalone_mode=False)
    assert refused.value.exit_code is ExitCode.USAGE
    return refused.value


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """Root may read everything."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.parametrize("name", LOOKING)
def test_a_path_that_is_too_long_or_closed_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    too_long = tmp_path / ("x" * 300)
    assert str(too_long) in (words := str(ask(name, too_long)))
    assert words.endswith("cannot be used: File name too long; give a shorter path")

    closed = tmp_path / "closed"
    (closed / "run").mkdir(parents=True)
    closed.chmod(0)
    try:
        with as_somebody_else():
            words = str(ask(name, closed / "run"))
    finally:
        closed.chmod(0o700)
    assert str(closed / "run") in words
    assert words.endswith("cannot be used: Permission denied; have it opened to you, or do it as its owner")


def test_so_is_a_place_to_write_to(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 300)
    with pytest.raises(DiskError, match="File name too long; give a shorter path"):
        commands.main(["export", str(tmp_path), "--adapter", str(target)], standalone_mode=False)
