"""What a supervisor says where there is no terminal."""

from __future__ import annotations

import io
from pathlib import Path

from supervisor.report.display import display


def test_a_node_that_does_not_lead_says_what_it_waits_for_and_what_it_does(tmp_path: Path) -> None:
    out = io.StringIO()
    with display(tmp_path, out) as tell:
        tell("leader_awaited", {"trouble": "it is not known where the leader is"})
        tell("joined", {})
        tell("member_started", {"attempt": 2, "processes": 4})
        tell("leader_lost", {"reason": "silent for 4.0 s"})
        tell("something of a later release", {})
    assert out.getvalue().splitlines() == [
        "waiting for the leader: it is not known where the leader is",
        "the leader is there",
        "attempt 2: 4 processes are starting on this node",
        "the leader is out of reach: silent for 4.0 s",
    ]
