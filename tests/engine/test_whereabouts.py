"""Where the leader is, asked of a disk that may hang."""

from __future__ import annotations

import os
import time
from pathlib import Path

from harness import until

from supervisor.engine.members.meeting import Over, announce
from supervisor.engine.members.place import Stand
from supervisor.engine.members.whereabouts import Whereabouts
from supervisor.errors import ExitCode
from supervisor.link.address import Address, new_token

ADDRESS = Address("10.0.0.7", 4711, new_token())


def test_the_command_line_names_the_place_and_the_run_directory_the_token(tmp_path: Path) -> None:
    whereabouts = Whereabouts(tmp_path, Stand(1, 2, "", "10.0.0.8", 29400))
    assert whereabouts.leader() is None
    announce(tmp_path, "", ADDRESS)
    assert whereabouts.leader() == Address("10.0.0.8", 29400, ADDRESS.token)
    announce(tmp_path, "", Over(ExitCode.FINISHED))
    assert whereabouts.over() is None  # it may be another leader's
    assert whereabouts.leader() is None


def test_a_schedulers_leader_names_its_place_and_says_when_it_leaves(tmp_path: Path) -> None:
    whereabouts = Whereabouts(tmp_path, Stand(1, 2, "12.0"))
    announce(tmp_path, "12.0", ADDRESS)
    assert (whereabouts.leader(), whereabouts.over()) == (ADDRESS, None)
    announce(tmp_path, "12.0", Over(ExitCode.GAVE_UP))
    assert (whereabouts.leader(), whereabouts.over()) == (None, Over(ExitCode.GAVE_UP))


def test_nobody_waits_for_a_disk_that_hangs_and_what_was_known_counts_until_it_answers(tmp_path: Path) -> None:
    whereabouts = Whereabouts(tmp_path, Stand(1, 2, "12.0"))
    announce(tmp_path, "12.0", ADDRESS)
    assert whereabouts.leader() == ADDRESS
    [path] = (tmp_path / "control").iterdir()
    path.unlink()
    os.mkfifo(path)  # whoever opens it waits
    assert whereabouts.leader() == ADDRESS
    began_s = time.monotonic()
    for _ in range(100):
        assert whereabouts.leader() == ADDRESS
        assert whereabouts.ask(lambda: "answer", "unknown") == "unknown"
    assert time.monotonic() - began_s < 10.0
    path.write_text("torn")
    path.unlink()
    until(lambda: whereabouts.leader() is None, "answer")
