"""Two nodes of one run, without a scheduler: whatever happens to one of them, the result is that of one node."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import BUSY_S, SHM, Run, command, fill, redone, send, until
from nodes import Nodes
from undisturbed import TOGETHER, assert_same

from supervisor.board.store import PREFIX

EVERY_STEP = {"snapshot": "1 step", "every": "7 steps"}


def nodes_of(base: Path, count: int = 2, **checkpoint: Any) -> Nodes:
    """As many nodes of one rank each."""
    job = {"launch": {"processes_per_node": 1}, "checkpoint": {**EVERY_STEP, **checkpoint}}
    return Nodes(base, args=TOGETHER, job=job, count=count)


@pytest.fixture
def run(tmp_path: Path) -> Nodes:
    return nodes_of(tmp_path)


def assert_nothing_left(run: Nodes) -> None:
    """No process, no memory."""
    assert run.workers() == []
    assert [path.name for path in SHM.glob(f"{PREFIX}{run.run_id()}*")] == []


def test_two_nodes_of_one_rank_give_what_one_node_of_two_ranks_gives(run: Nodes, together: Run) -> None:
    run.args = {**TOGETHER, "accumulate": 4}
    run.write_job().rename(run.base / "other.yaml")
    run.args = TOGETHER
    run.write_job()
    with socket.create_server(("127.0.0.1", run.port)):
        assert run.start_node(0).wait(240.0) == 2
    assert f"127.0.0.1:{run.port} cannot be listened on" in run.words()
    assert_nothing_left(run)
    other = run.start_node(1, job="other.yaml")
    log = run.base / "supervisor-1.log"
    until(lambda: log.read_text().startswith("waiting for the leader: "), "word of what it waits for")
    run.process = run.start_node(0)
    refusal = run.wait_for_event("incident")[0]
    assert "its job file is another one" in refusal.fields["detail"]
    assert other.wait(240.0) == 2
    said = log.read_text()
    assert "the leader sent this node away: its job file is another one" in said
    assert "the leader is there" not in said
    run.members[1] = run.start_node(1)
    assert run.codes() == [0, 0], run.words()
    assert_same(run, together)
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == ["finished"]
    assert run.journal("allocation_started")[0].fields["nodes"] == 2
    assert_nothing_left(run)


def test_ranks_nodes_and_the_leader_are_killed_and_stopped_and_nobody_can_tell_from_the_result(
    run: Nodes, together: Run
) -> None:
    for point in ("substep-4", "substep-7", "substep-10", "substep-13", "substep-16"):
        run.place(point)
    run.start()

    for point, rank in (("substep-4", 0), ("substep-7", 1)):
        run.wait_at(point)
        run.kill_rank(rank)
        run.let_go(point)

    run.wait_at("substep-10")
    assert run.start_node(0).wait(240.0) == 2  # a second leader; whoever comes after it still finds the first
    pids = run.processes_of(0)
    run.kill_node(1)
    run.until_gone(pids, 5.0 + BUSY_S)
    run.let_go("substep-10")
    run.members[1] = run.start_node(1)

    run.wait_at("substep-13")
    pids = run.processes_of(0)
    send(run.members[1].pid, signal.SIGSTOP)
    run.until_gone(pids, 9.0 + BUSY_S)  # silent for 4 s, and then within 5 s
    run.let_go("substep-13")
    send(run.members[1].pid, signal.SIGCONT)

    run.wait_at("substep-16")  # right after a line of the log: what only a lost rank knows is part of the next one
    pids = run.processes_of(1)
    run.kill_node(0)
    run.until_gone(pids, 9.0 + BUSY_S)
    run.let_go("substep-16")
    assert run.members[1].wait(240.0) == 75, run.words()
    assert len(list(run.run_dir.glob("journal-*-n1.jsonl"))) == 1
    status = json.loads(command("status", str(run.run_dir), "--json").stdout)
    assert (status["state"], status["last_checkpoint"]["step"]) == ("interrupted", 15)

    run.members[1] = run.start_node(1)  # before there is a leader
    run.process = run.start_node(0)
    assert run.codes() == [0, 0], run.words()
    assert_same(run, together)
    assert redone(run) == [0] * 5
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == [
        *("crashed", "crashed", "node_lost", "disconnected", "node_lost", "finished")
    ]
    assert list(run.run_dir.glob("journal-*-n1.jsonl")) == []
    assert_nothing_left(run)


def leave_at(run: Nodes, point: str, ask: Callable[[], object]) -> None:
    """Have the run asked to leave while all ranks hold, and let them go once it has heard."""
    run.place(point)
    run.start().wait_at(point)
    ask()
    run.wait_for_drain()
    run.let_go(point)


def test_all_nodes_leave_together_whoever_was_asked(run: Nodes, together: Run) -> None:
    leave_at(run, "step-4", lambda: run.signal_tree(signal.SIGTERM))
    assert run.codes(10.0 + BUSY_S) == [75, 75], run.words()
    assert_nothing_left(run)

    leave_at(run, "step-8", lambda: command("stop", "--no-wait", str(run.run_dir)))
    assert run.codes(10.0 + BUSY_S) == [130, 130], run.words()
    assert_nothing_left(run)

    leave_at(run, "step-12", lambda: send(run.members[1].pid, signal.SIGINT))
    assert run.codes(10.0 + BUSY_S) == [130, 130], run.words()
    assert run.journal("run_stopped")[-1].fields["by"] == f"SIGINT on {os.uname().nodename}"
    assert_nothing_left(run)

    run.place("substep-15")
    run.start().wait_at("substep-15")
    assert run.process is not None
    send(run.process.pid, signal.SIGINT)
    run.wait_for_event("stop_asked", 3)
    send(run.process.pid, signal.SIGINT)
    assert run.codes(5.0 + BUSY_S) == [130, 130], run.words()
    assert run.workers() == []
    run.let_go("substep-15")

    run.start()
    assert run.codes() == [0, 0], run.words()
    assert_same(run, together)
    assert max(redone(run)) == 0
    assert_nothing_left(run)


def test_of_three_nodes_one_is_lost_for_good_and_no_settled_step_with_it(tmp_path: Path) -> None:
    """What the two others have is committed once no worker lives, so each must still give its part then."""
    run = nodes_of(tmp_path, count=3)
    run.args = {**TOGETHER, "max_steps": 10, "workers": 0}
    run.place("step-6")
    run.start().wait_at("step-6", ranks=3)
    run.kill_node(2)
    for board in SHM.glob(f"{PREFIX}{run.run_id()}-n2"):
        shutil.rmtree(board)  # as a machine's memory goes with it
    lost = until(
        lambda: [r for r in run.journal("checkpoint_committed") if r.fields.get("stood_in")], "checkpoint", 9.0 + BUSY_S
    )
    run.let_go("step-6")  # earlier, the two others might settle it
    assert [(r.count("step"), r.fields["stood_in"]) for r in lost] == [(5, [2])]
    run.members[2] = run.start_node(2)
    assert run.codes() == [0, 0, 0], run.words()
    assert redone(run) == [0]
    assert run.journal("training_started")[-1].fields["source"] == "checkpoint"
    assert_nothing_left(run)


def test_what_a_full_disk_did_not_take_waits_in_the_memory_of_all_nodes(
    tmp_path: Path, small_disk: Path, together: Run
) -> None:
    run = nodes_of(tmp_path / "base", every="1 step", keep_last=2)  # so that nothing can go to make room
    run.job["run_dir"] = str(small_disk / "run")
    run.place("step-6")
    run.start().wait_at("step-6")
    run.wait_for_commit(5)
    ballast = fill(small_disk)
    run.signal_tree(signal.SIGTERM)
    run.wait_for_drain()
    run.let_go("step-6")
    assert run.codes(20.0 + BUSY_S) == [75, 75], run.words()
    assert len(list(SHM.glob(f"{PREFIX}{run.run_id()}*"))) == 2
    ballast.unlink()
    assert max(int(path.name.rpartition("-")[2]) for path in (run.run_dir / "checkpoints").glob("checkpoint-*")) < 6

    run.start()
    assert run.codes() == [0, 0], run.words()
    assert_same(run, together)
    [_, start] = run.journal("training_started")
    assert (start.fields["source"], start.fields["step"]) == ("snapshot", 6)
    assert_nothing_left(run)
