"""What the commands say of a run that was killed, of one that goes on, and of one that has finished."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness import Run, command
from undisturbed import ALONE

STATUS = {
    "name", "state", "step", "max_steps", "attempt", "allocation", "resumed_from", "last_checkpoint", "steps_per_s",
    "eta_s", "goodput", "steps_redone", "incidents", "loss", "queue", "adapted", "pace",
    "mirrored",
}  # fmt: skip


def said(*arguments: str) -> Any:
    """A command's JSON, and nothing else on its standard output."""
    answer = command(*arguments, "--json")
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_the_commands_tell_what_a_killed_supervisor_left_and_what_became_of_it(tmp_path: Path) -> None:
    job = {"launch": {"processes_per_node": 1}, "checkpoint": {"every": "2 steps", "snapshot": "1 step"}}
    run = Run(tmp_path, args=ALONE, job=job)
    run_dir, job_file = str(run.run_dir), str(run.write_job())
    plan = said("plan", job_file)
    assert (plan["resume_from"], plan["resume_step"], plan["finished"], plan["processes"]) == (None, 0, False, 1)
    assert plan["command"][1:3] == ["-m", "accelerate.commands.launch"]
    assert not run.run_dir.exists()  # it does nothing

    run.place("step-6")
    run.start_committing(2, 4, ranks=1)
    run.wait_at("step-6", ranks=1)
    watching = subprocess.Popen(
        [sys.executable, "-m", "supervisor", "watch", run_dir], stdout=subprocess.PIPE, text=True
    )
    alive = said("status", run_dir)
    assert (set(alive), alive["state"], alive["last_checkpoint"]["step"]) == (STATUS, "running", 4)
    run.kill_tree()

    watched, _ = watching.communicate(timeout=240)  # ends by itself, since nobody runs it any more
    assert "interrupted" in watched
    left = said("status", run_dir)
    assert (set(left), left["state"], left["attempt"], left["max_steps"]) == (STATUS, "interrupted", 1, 12)
    assert set(left["last_checkpoint"]) == {"step", "path", "age_s"}
    assert f"left in memory by a killed supervisor: {run.board()}" in command("status", run_dir).stdout
    assert "interrupted" in command("status", cwd=tmp_path).stdout
    plan = said("plan", job_file)
    assert plan["resume_from"] == str(run.run_dir / "checkpoints" / "checkpoint-4")
    assert plan["resume_step"] == 5  # memory holds a newer one
    assert plan["environment"]["SUPERVISOR_RESUME_FROM"] == plan["resume_from"]
    found = said("verify", run_dir)
    assert set(found) == {"checkpoints", "resume_from"}
    assert all(set(c) == {"path", "step", "state", "reason", "bytes"} for c in found["checkpoints"])
    assert [(c["step"], c["state"]) for c in found["checkpoints"]] == [(4, "intact"), (2, "intact")]

    run.let_go("step-6")
    assert run.run() == 0, run.said()
    assert run.journal("allocation_started")[-1].fields["board_adopted"] is True
    assert not run.board().exists()
    done = said("status", run_dir)
    assert (done["state"], done["step"], done["steps_redone"]) == ("finished", 12, 0)
    assert done["resumed_from"] == {"step": 5, "source": "snapshot"}
    assert 0 < done["goodput"] <= 1
    why = said("why", run_dir)
    assert [a["cause"] for a in why["attempts"]] == ["unknown", "finished"]
    assert "its supervisor ended without a word" in command("why", run_dir).stdout
    assert said("plan", job_file)["finished"] is True
    assert "has finished" in command("plan", job_file).stdout
    assert command("watch", run_dir).returncode == 0
    schema = json.loads(command("schema").stdout)
    assert "checkpoint" in schema["properties"]


def test_a_directory_without_a_run_is_named(tmp_path: Path) -> None:
    for what in ("status", "why", "verify", "stop"):
        answer = command(what, str(tmp_path))
        assert (answer.returncode, answer.stdout) == (2, "")
        assert str(tmp_path) in answer.stderr


def test_plan_tells_what_a_run_would_begin_with_or_why_it_cannot(tmp_path: Path) -> None:
    run = Run(tmp_path, job={"start_from": str(tmp_path / "checkpoint-7"), "hooks": "auto"})
    (tmp_path / "checkpoint-7").mkdir()
    (tmp_path / "checkpoint-7" / "trainer_state.json").write_text('{"global_step": 7}')
    answer = command("plan", str(run.write_job()))
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "optimizer.pt, scheduler.pt, rng_state.pth" in answer.stderr
