"""`final/` is the old one or the new one, never a mixture, and after a crash the next call repairs it."""

import os
from pathlib import Path

import pytest
from checkpoint_samples import contents, killed_everywhere, parts

from supervisor.checkpoint.final import repair_final, write_final
from supervisor.checkpoint.parts import Part
from supervisor.checkpoint.refusals import PartError


def held(final: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in final.iterdir()}


def test_it_is_written_and_replaced(tmp_path: Path) -> None:
    final = tmp_path / "final"
    for step in (10, 20):
        assert write_final(final, parts(step)) == sum(map(len, contents(step).values()))
        assert held(final) == contents(step)
        assert os.listdir(tmp_path) == ["final"]


def test_a_failure_leaves_the_old_one(tmp_path: Path) -> None:
    final = tmp_path / "final"
    write_final(final, parts(10))
    with pytest.raises(PartError):
        write_final(final, [Part("adapter_config.json", 2, lambda: iter((b"x",)))])
    assert held(final) == contents(10)
    assert os.listdir(tmp_path) == ["final"]


def test_without_a_crash_there_is_nothing_to_repair(tmp_path: Path) -> None:
    repair_final(tmp_path / "final")
    assert os.listdir(tmp_path) == []


def test_killed_at_any_call_it_is_old_or_new_after_the_repair(tmp_path: Path) -> None:
    places = killed_everywhere(
        tmp_path,
        prepare="write_final(here / 'final', parts(10))",
        act="write_final(here / 'final', parts(20))",
    )
    assert places > 40
    found = []
    for number in range(1, places + 2):
        final = tmp_path / str(number) / "final"
        if final.exists():
            assert held(final) in (contents(10), contents(20))
        repair_final(final)
        assert held(final) in (contents(10), contents(20))
        found.append(held(final) == contents(20))
        write_final(final, parts(30))
        assert held(final) == contents(30)
        assert os.listdir(final.parent) == ["final"]
    assert found == sorted(found)
    assert found[0] is False
    assert found[-1] is True
