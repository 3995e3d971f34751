"""Two nodes with a real network between them, which is cut: shortly, and for longer than is waited for.

`LONG_CUT_S=60` makes the long one so long; a minute is what is promised.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from apart import LEADER, Net, allowed, net_between
from harness import BUSY_S, Run, until
from nodes import Nodes
from undisturbed import TOGETHER, assert_same

pytestmark = pytest.mark.skipif(not allowed(), reason="network namespaces cannot be made here")

#: Silence is noticed after 4 s; ending the workers takes a moment more.
ENDED_S = 7.0

#: Long enough for many steps, and the packet that is sent again arrives well before the silence is noticed.
SHORT_S = 1.0

LONG_S = float(os.environ.get("LONG_CUT_S", "15"))


@pytest.fixture
def net() -> Iterator[Net]:
    with net_between(f"nodes{os.getpid()}") as made:
        yield made


def listeners(net: Net) -> set[str]:
    """Addresses on which anybody listens at the leader; proc(5), net/tcp."""
    tables = subprocess.run(
        [*net.there("leader"), "cat", "/proc/net/tcp", "/proc/net/tcp6"], capture_output=True, text=True, check=True
    )
    found = set()
    for line in tables.stdout.splitlines():
        words = line.split()
        if words[3] == "0A":
            address, port = words[1].split(":")
            octets = ".".join(str(byte) for byte in reversed(bytes.fromhex(address)))
            found.add(f"{octets}:{int(port, 16)}")
    return found


def pass_until(end_s: float) -> None:
    until(lambda: time.monotonic() >= end_s, "end of the cut", LONG_S + 60.0)


def test_a_short_cut_costs_nothing_and_a_long_one_an_attempt_and_nobody_can_tell_from_the_result(
    tmp_path: Path, net: Net, together: Run
) -> None:
    job = {"launch": {"processes_per_node": 1}, "checkpoint": {"snapshot": "1 step"}}
    run = Nodes(tmp_path, args=TOGETHER, job=job, host=LEADER)
    run.through = lambda node: net.there("member" if node else "leader")
    for point in ("step-4", "step-8", "step-14"):
        run.place(point)
    run.write_job()
    run.process = run.start_node(0)
    assert until(lambda: listeners(net), "listening leader") == {f"{LEADER}:{run.port}"}
    run.members[1] = run.start_node(1)

    for point, how in (("step-4", "packets lost"), ("step-8", "cable pulled at the member")):
        run.wait_at(point)
        net.cut(how, True)
        cut_s = time.monotonic()
        run.let_go(point)  # into a sum over all ranks that cannot come
        pass_until(cut_s + SHORT_S)
        assert max(beat.step for beat in run.beats()) <= int(point[5:]) + 1, "nothing was cut"
        net.cut(how, False)
    run.wait_at("step-14")
    assert len(run.journal("attempt_started")) == 1

    pids = run.processes_of(0) + run.processes_of(1)
    net.cut("packets lost", True)
    cut_s = time.monotonic()
    run.let_go("step-14")
    run.until_gone(pids, ENDED_S + BUSY_S)
    pass_until(cut_s + LONG_S)
    assert len(run.journal("attempt_started")) == 1
    net.cut("packets lost", False)

    assert run.codes() == [0, 0], run.words()
    assert_same(run, together)
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == ["disconnected", "finished"]
    assert run.workers() == []
