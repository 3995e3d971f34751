"""A real limit that comes near is told of while the training goes on, here and on another node."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import Run
from memory_groups import limited, may_make_groups
from nodes import Nodes
from undisturbed import ALONE

#: Several times what the ranks need.
LIMIT_BYTES = 3 << 30
FILLS = """
import sys, time
from pathlib import Path
group, limit_bytes = Path(sys.argv[1]), int(sys.argv[2])
(group / "cgroup.procs").write_text("0")
from supervisor.watch.cgroups import find, usage
kept = []
while usage(find()).used_bytes < 0.95 * limit_bytes:
    kept.append(bytearray(b"x") * (8 << 20))
print("full", flush=True)
time.sleep(600)
"""


@pytest.fixture
def group() -> Iterator[Path]:
    here = may_make_groups()
    if here is None:
        pytest.skip("memory control groups cannot be made here: needs root")
    with limited(here, LIMIT_BYTES) as step:
        yield step


@contextmanager
def filled(group: Path) -> Iterator[None]:
    """A neighbour in the same group takes all but a twentieth."""
    command = [sys.executable, "-c", FILLS, str(group), str(LIMIT_BYTES)]
    neighbour = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert neighbour.stdout is not None
    try:
        assert neighbour.stdout.readline() == "full\n"
        yield
    finally:
        neighbour.kill()
        neighbour.wait()


def put(process: subprocess.Popen[bytes] | None, group: Path) -> None:
    assert process is not None
    (group / "cgroup.procs").write_text(str(process.pid))


def test_a_limit_that_comes_near_is_told_of_and_the_training_goes_on(tmp_path: Path, group: Path) -> None:
    run = Run(tmp_path, args=ALONE, job={"launch": {"processes_per_node": 1, "standby": "off"}})
    run.place("step-3")
    run.start()
    put(run.process, group)
    run.wait_at("step-3", ranks=1)
    with filled(group):
        (warning,) = run.wait_for_event("incident")
    run.let_go("step-3")
    assert run.wait() == 0, run.said()
    assert (warning.fields["cause"], warning.fields["decision"]) == ("host_oom", "training goes on")
    assert warning.fields["detail"].startswith(f"memory of control group {group.parent}: 2.")
    assert "of 3.0 GiB used (9" in warning.fields["detail"]
    assert "most of it: rank 0 " in warning.fields["detail"]
    assert len(run.journal("incident")) == 1
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == ["finished"]


def test_another_nodes_limit_is_told_of_by_the_leader(tmp_path: Path, group: Path) -> None:
    run = Nodes(tmp_path, args=ALONE, job={"launch": {"nodes": 2, "processes_per_node": 1, "standby": "off"}})
    run.place("step-3")
    run.start()
    put(run.members[1], group)
    run.wait_at("step-3")
    with filled(group):
        (warning,) = run.wait_for_event("incident")
    run.let_go("step-3")
    assert run.codes() == [0, 0], run.said()
    detail = warning.fields["detail"]
    assert detail.startswith("on ")
    assert f": memory of control group {group.parent}: 2." in detail
    assert "most of it: rank 1 " in detail
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == ["finished"]
