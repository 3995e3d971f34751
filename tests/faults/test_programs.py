"""Programs that fail by themselves: what is worth another try gets one, what is not stops at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import PROGRAMS, Run, command
from undisturbed import TRAINER_ALONE, assert_nothing_repeated, assert_same

ONE_PROCESS: dict[str, Any] = {"launch": {"processes_per_node": 1}, "checkpoint": {"snapshot": "1 step"}}


def failing(base: Path, args: dict[str, Any]) -> Run:
    job = {**ONE_PROCESS, "recovery": {"max_barren": 2}}
    return Run(base, args=args, job=job, program=str(PROGRAMS / "fails.py"))


def test_a_program_that_never_settles_a_step_is_given_up_and_stays_so_until_it_is_forgiven(tmp_path: Path) -> None:
    run = failing(tmp_path, {})
    assert run.run() == 3
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == ["crashed", "crashed"]
    first, last = (r.fields for r in run.journal("decision"))
    assert (first["decision"], last["decision"]) == ("restart", "give_up")
    assert 3.75 <= first["delay_s"] <= 6.25
    started = [r.time for r in run.journal("attempt_started")]
    assert started[1] - started[0] >= first["delay_s"]
    reason = "crashed: 2 attempts in a row settled no newer step; the last one: rank 0 raised builtins.RuntimeError: "
    assert run.journal("run_gave_up")[-1].fields["reason"] == reason + "it never works"
    assert not run.board().exists()

    assert run.run() == 3
    assert f"this run gave up: {reason}" in run.said()
    assert len(run.journal("attempt_started")) == 2

    assert run.run("--forgive", "--set", "recovery.max_barren=1") == 3
    assert len(run.journal("attempt_started")) == 3
    told = json.loads(command("status", str(run.run_dir), "--json").stdout)
    assert (told["state"], told["step"], len(told["incidents"])) == ("gave_up", None, 3)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"how": "import"}, "No module named 'a_module_that_nobody_has'"),
        ({"no-such-option": 1}, "refused its command line"),
    ],
)
def test_what_can_never_work_is_not_tried_twice(tmp_path: Path, args: dict[str, Any], said: str) -> None:
    run = failing(tmp_path, args)
    assert run.run() == 3
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == ["user_error"]
    assert said in run.said()


def test_a_crash_in_a_step_is_survived_and_one_after_training_repeats_no_step(
    tmp_path: Path, trainer_alone: Run
) -> None:
    run = Run(tmp_path, args={**TRAINER_ALONE, "plain": True}, job=ONE_PROCESS)  # the hooks alone have to do
    run.place("step-3", "raise")
    run.place("trained", "raise")
    assert run.run() == 0, run.said()
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == ["crashed", "crashed", "finished"]
    assert [r.fields["step"] for r in run.journal("training_started")] == [0, 2, 12]
    assert {line["attempt"] for line in run.trace()} == {"1", "2"}
    assert [(r.fields["step"], r.fields["reason"]) for r in run.journal("checkpoint_committed")] == [(12, "final")]
    assert_same(run, trainer_alone)
    assert_nothing_repeated(run)


def test_a_program_that_begins_at_step_zero_again_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, args={**TRAINER_ALONE, "stubborn": True}, job=ONE_PROCESS)
    run.place("step-3")
    run.start().wait_at("step-3", ranks=1)
    run.place("step-1")  # further it gets only if nobody minds
    run.kill_rank(0)
    assert run.wait() == 3
    ended = run.journal("attempt_ended")
    assert [r.fields["cause"] for r in ended] == ["crashed", "user_error"]
    assert "was to go on from step 2, but the program began at step 0; pass resume_point()" in run.said()
    assert [line["step"] for line in run.trace() if line["attempt"] == "2"] in ([], [1])
