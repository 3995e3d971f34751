"""Ranks that stand still: what is found out before they are ended, and that slow ones are left alone."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from harness import Run, command, until
from nodes import Nodes
from undisturbed import TOGETHER, TRAINER_TOGETHER, assert_nothing_repeated, assert_same

from supervisor.watch.witness import state_of

#: Long enough for the machine to stutter, short enough for a test.
SET = {"stall_after": "6 s"}


def stacks(run: Run, attempt: int, rank: int) -> str:
    return (run.run_dir / "logs" / f"attempt-{attempt}" / f"rank-{rank}.stacks.txt").read_text()


def evidence(run: Run) -> list[str]:
    return [str(r.fields["evidence"]) for r in run.journal("attempt_ended")]


def stop(run: Run, rank: int) -> int:
    pid = run.beats()[rank].pid
    os.kill(pid, signal.SIGSTOP)
    until(lambda: state_of(pid) == "T", "stop")
    return pid


def test_a_stopped_rank_is_named_with_the_stacks_of_all_and_costs_no_settled_step(
    tmp_path: Path, together: Run
) -> None:
    learnt = {"stall_after": "auto"}
    run = Run(tmp_path, args={**TOGETHER, "sleep": 0.1}, job={"checkpoint": {"snapshot": "1 step"}, "recovery": learnt})
    run.place("substep-9")
    run.start().wait_at("substep-9")
    stop(run, 1)
    run.let_go("substep-9")
    run.wait_for_event("attempt_ended")
    assert "rank 1 is stopped (SIGSTOP, state T) at step 8 while rank 0 waits in " in evidence(run)[0]
    assert "stacks in logs/attempt-1: rank-0.stacks.txt" in evidence(run)[0]
    assert "Current thread" in stacks(run, 1, 0)
    assert "own_loop.py" in stacks(run, 1, 0)
    assert "state T" in stacks(run, 1, 1)
    assert run.wait() == 0, run.said()
    assert_same(run, together)
    assert_nothing_repeated(run)
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == ["stalled", "finished"]
    [incident] = run.journal("incident")
    assert (incident.fields["detail"], incident.fields["decision"]) == (evidence(run)[0], "restart at once")
    assert "rank 1 is stopped" in command("why", str(run.run_dir)).stdout


def test_ranks_that_hang_in_their_own_code_are_found_there_and_the_result_is_the_same(
    tmp_path: Path, together: Run
) -> None:
    run = Run(tmp_path, args=TOGETHER, job={"checkpoint": {"snapshot": "1 step"}, "recovery": SET})
    run.place("substep-8", "lock")
    run.place("substep-16", "spin")
    assert run.run() == 0, run.said()
    assert_same(run, together)
    assert_nothing_repeated(run)
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == ["stalled", "stalled", "finished"]
    for said, step in zip(evidence(run), (7, 15), strict=False):
        assert f"rank 1 is in places.py:hang() at step {step} while rank 0 waits in " in said
    for attempt in (1, 2):
        assert "in hang" in stacks(run, attempt, 1)


def test_slow_evaluations_saves_and_first_steps_are_left_alone(tmp_path: Path) -> None:
    args = {**TRAINER_TOGETHER, "max_steps": 12, "eval-steps": 6, "save-steps": 9}
    run = Run(tmp_path, args=args, job={"recovery": SET})
    for point in ("begin", "substep-2", "evaluation-6", "save-9", "trained"):
        run.place(point, "slow 8")
    assert run.run() == 0, run.said()
    assert len(run.journal("attempt_started")) == 1
    assert run.journal("incident") == []


def test_of_two_nodes_both_tell_what_their_ranks_are_at(tmp_path: Path, together: Run) -> None:
    job = {"launch": {"processes_per_node": 1}, "checkpoint": {"snapshot": "1 step"}, "recovery": SET}
    run = Nodes(tmp_path, args=TOGETHER, job=job)
    run.place("substep-9")
    run.start().wait_at("substep-9")
    stop(run, 1)
    run.let_go("substep-9")
    run.wait_for_event("attempt_ended")
    host = os.uname().nodename
    assert f"rank 1 on {host} is stopped (SIGSTOP, state T) at step 8 while rank 0 waits in " in evidence(run)[0]
    assert "state T" in stacks(run, 1, 1)
    assert run.codes() == [0, 0], run.words()
    assert_same(run, together)
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == ["stalled", "finished"]
    assert run.journal("incident")[0].fields["nodes"] == [host]


def test_a_rank_that_is_always_slower_than_its_peer_is_reported_and_training_goes_on(tmp_path: Path) -> None:
    run = Run(tmp_path, args={"max_steps": 5000, "rows": 4096, "straggle": 0.1}).start()
    run.wait_for_step(20)
    [incident] = run.wait_for_event("incident")
    assert incident.fields["detail"].startswith("straggler: rank 1 takes ")
    assert (incident.fields["rank"], incident.fields["decision"]) == (1, "training goes on")
    status = json.loads(command("status", str(run.run_dir), "--json").stdout)
    assert status["state"] == "running"
    assert status["incidents"][0]["cause"] is None
    assert command("stop", str(run.run_dir)).returncode == 0
    assert run.wait() == 130
