"""What a run may and may not change between attempts, and sums of more than two ranks."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from harness import BUSY_S, Run, command
from undisturbed import assert_nothing_repeated, assert_same

SNAPSHOTS = {"snapshot": "1 step"}


def test_four_ranks_that_lose_one_sum_as_if_nothing_had_been(tmp_path: Path) -> None:
    # Without the throw-away backward pass of `worker/warmup.py` this differs: buckets are packed anew.
    args: dict[str, Any] = {"max_steps": 6, "find-unused": "false"}
    job = {"launch": {"processes_per_node": 4}, "checkpoint": SNAPSHOTS}
    quiet = Run(tmp_path / "quiet", args=args, job=job)
    assert quiet.run() == 0, quiet.said()
    run = Run(tmp_path / "hurt", args=args, job=job)
    run.place("step-3")
    run.start().wait_at("step-3", ranks=4)
    run.kill_rank(2)
    run.let_go("step-3")
    assert run.wait() == 0, run.said()
    assert_same(run, quiet)
    assert_nothing_repeated(run)


def test_a_finished_run_goes_on_only_as_it_is_asked_to(tmp_path: Path) -> None:
    run = Run(tmp_path, args={"max_steps": 4}, job={"launch": {"processes_per_node": 1}, "checkpoint": SNAPSHOTS})
    assert run.run() == 0, run.said()
    assert run.run() == 0
    assert "finished already" in run.said()
    assert len(run.journal("attempt_started")) == 1

    assert run.run("--set", "args.optim=sgd", "--set", "args.max_steps=6") == 2
    assert "changes the mathematics of the run in" in run.said()
    assert 'args.optim (absent) → "sgd"' in run.said()
    assert "max_steps" not in run.said()

    assert run.run("--set", "args.max_steps=6", "--set", "launch.processes_per_node=2") == 2
    told = "step 4 was reached with 1 processes, 2 are to be launched, and its steps of 1 micro-batches do not divide"
    assert told in run.said()

    assert run.run("--set", "args.max_steps=6", "--set", "checkpoint.keep_last=2") == 0, run.said()
    assert "it had finished at step 4, and more are asked for" in run.said()
    assert [line["step"] for line in run.trace()] == [1, 2, 3, 4, 5, 6]
    assert run.journal("training_started")[-1].fields == {"step": 4, "source": "checkpoint", "max_steps": 6}

    told = json.loads(command("status", str(run.run_dir), "--json").stdout)
    assert (told["state"], told["step"], told["max_steps"]) == ("finished", 6, 6)

    run.start("--set", "args.max_steps=7", "--set", "args.rows=32", "--accept-changes")
    run.wait_for_event("attempt_started", 3)
    run.signal_tree(signal.SIGTERM)
    assert run.wait(5.0 + BUSY_S) == 75
    assert "goes on although the job file changes what is computed: args.rows (absent) → 32\n" in run.said()
    assert run.journal("run_started")[-1].fields["accept_changes"] is True
    assert run.journal("run_started")[-1].fields["changes"] == ["args.rows (absent) → 32"]
    assert run.journal("attempt_started")[-1].fields["resume_step"] == 6
    assert run.run("--set", "args.max_steps=7") == 2  # the change is the run's mathematics now
    assert "args.rows 32 → (absent)" in run.said()
