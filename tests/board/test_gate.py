"""The gate: what is told waits for whoever comes late, and nobody waits for a supervisor that does not want them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from supervisor.board.gate import Gate, GateClosedError, wait_at_gate


def test_every_rank_is_told_the_same_whether_it_waits_or_comes_late(tmp_path: Path) -> None:
    gate = Gate(tmp_path, 7, 2)
    told: list[dict[str, object]] = []
    early = threading.Thread(target=lambda: told.append(wait_at_gate(tmp_path, 7, 0)))
    early.start()
    gate.open(resume_from="a\nb")
    early.join(60)
    assert told == [{"resume_from": "a\nb"}]
    assert wait_at_gate(tmp_path, 7, 1) == {"resume_from": "a\nb"}
    gate.remove()
    assert list(tmp_path.iterdir()) == []


def test_who_waits_at_a_gate_that_is_taken_down_is_not_needed(tmp_path: Path) -> None:
    gate = Gate(tmp_path, 7, 1)
    ends: list[Exception] = []

    def wait() -> None:
        try:
            wait_at_gate(tmp_path, 7, 0)
        except GateClosedError as closed:
            ends.append(closed)

    waiting = threading.Thread(target=wait)
    waiting.start()
    gate.remove()
    waiting.join(60)
    assert len(ends) == 1
    with pytest.raises(GateClosedError, match="attempt 7 is not needed"):
        wait_at_gate(tmp_path, 7, 0)


def test_what_a_killed_supervisor_left_is_not_in_the_way(tmp_path: Path) -> None:
    Gate(tmp_path, 7, 1)
    gate = Gate(tmp_path, 7, 1)
    assert (tmp_path / "gate-7.0").stat().st_mode & 0o777 == 0o600
    gate.open(resume_from=None)
    assert wait_at_gate(tmp_path, 7, 0) == {"resume_from": None}
    gate.remove()
