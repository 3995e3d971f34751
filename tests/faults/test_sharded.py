"""Training whose state no rank has alone: FSDP2, on the CPU over gloo."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from harness import SHM, Run, until
from nodes import Nodes
from undisturbed import assert_same

from supervisor.board.store import PREFIX

#: A rank of 3 over two processes: pieces of two rows and of one. Evaluations leave some parameters whole.
SHARDED: dict[str, Any] = {"max_steps": 7, "eval-steps": 2, "accumulate": 3, "lora-rank": 3, "shards": 2}
JOB: dict[str, Any] = {"checkpoint": {"snapshot": "1 step", "every": "3 steps"}}


def test_a_sharded_run_that_was_killed_and_lost_all_memory_leaves_what_one_without_shards_does(tmp_path: Path) -> None:
    quiet = Run(tmp_path / "quiet", args={**SHARDED, "shards": 0}, job=JOB)
    assert quiet.run() == 0, quiet.said()
    run = Run(tmp_path / "hurt", args=SHARDED, job=JOB)
    run.place("step-3")
    run.start().wait_at("step-3")
    run.kill_rank(1)
    run.let_go("step-3")
    run.place("step-5")
    run.wait_at("step-5")
    run.wait_for_commit(3)
    run.kill_tree()
    shutil.rmtree(run.board())
    run.let_go("step-5")
    assert run.run() == 0, run.said()
    started = [(r.fields["step"], r.fields["source"]) for r in run.journal("training_started")]
    assert started == [(0, "fresh"), (2, "snapshot"), (3, "checkpoint")]
    assert_same(run, quiet)


def test_a_node_that_comes_back_without_its_memory_takes_its_pieces_with_it(tmp_path: Path) -> None:
    job = {"launch": {"processes_per_node": 1}, "checkpoint": {"snapshot": "1 step", "every": "3 steps"}}
    run = Nodes(tmp_path, args=SHARDED, job=job)
    run.place("step-5")
    run.place("step-6")
    run.start()
    for point, keeps_memory in (("step-5", True), ("step-6", False)):
        run.wait_at(point)
        until(lambda: len(run.journal("checkpoint_committed")) == 1, "checkpoint")
        run.kill_node(1)
        for board in SHM.glob(f"{PREFIX}{run.run_id()}-n1") if not keeps_memory else ():
            shutil.rmtree(board)
        run.members[1] = run.start_node(1)
        run.let_go(point)
    assert run.codes() == [0, 0], run.words()
    started = [(r.fields["step"], r.fields["source"]) for r in run.journal("training_started")]
    assert started == [(0, "fresh"), (4, "snapshot"), (3, "checkpoint")]
    ended = run.journal("attempt_ended")[1].fields
    assert ended["cause"] == "node_lost"
    assert ended["evidence"].endswith("; its pieces of the sharded state are gone unless it comes back with them")
    assert not any("stood_in" in r.fields for r in run.journal("checkpoint_committed"))
    assert len({(line["step"], line["digest"]) for line in run.trace()}) == 7


def test_the_rest_of_a_program_is_done_again_with_what_the_pieces_of_all_nodes_make_up(tmp_path: Path) -> None:
    job = {"launch": {"processes_per_node": 1}, "checkpoint": {"snapshot": "1 step"}}
    run = Nodes(tmp_path, args={**SHARDED, "max_steps": 2}, job=job)
    run.place("trained", "raise")
    assert run.start().codes() == [0, 0], run.words()
    started = [(r.fields["step"], r.fields["source"]) for r in run.journal("training_started")]
    assert started == [(0, "fresh"), (2, "snapshot")]
    ends = [json.loads(line) for rank in (0, 1) for line in (run.out / f"end-{rank}.jsonl").read_text().splitlines()]
    assert len(ends) == 4
    assert len(set(ends)) == 1


def test_fsdp1_is_refused_by_name_before_it_trains(tmp_path: Path) -> None:
    run = Run(tmp_path, args={**SHARDED, "shards": 1}, job=JOB)
    assert run.run() == 2
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == ["user_error"]
    assert "FSDP1 is not supported" in run.said()
    assert not run.journal("training_started")
