"""A disk that fills up, on a real file system of a few megabytes."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from harness import Run, fill, until
from undisturbed import ALONE, TRAINER_ALONE, assert_same

from supervisor.journal import Record

ONE_PROCESS = {"launch": {"processes_per_node": 1}}


def test_training_goes_on_while_the_disk_is_full_and_what_was_missed_is_written_later(
    tmp_path: Path, small_disk: Path, alone: Run
) -> None:
    run_dir = small_disk / "run"
    job = {**ONE_PROCESS, "run_dir": str(run_dir), "checkpoint": {"every": "1 step", "snapshot": "1 step"}}
    run = Run(tmp_path / "base", args=ALONE, job=job)
    for point in ("step-3", "step-4", "step-8"):
        run.place(point)
    run.start().wait_at("step-3", ranks=1)
    run.wait_for_commit(2)
    ballast = fill(small_disk)
    run.let_go("step-3")
    until(lambda: "checkpoint of step 3 failed" in run.said(), "commit in vain")
    run.let_go("step-4")
    run.wait_at("step-8", ranks=1)
    ballast.unlink()
    run.let_go("step-8")
    assert run.wait() == 0, run.said()
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == ["finished"]
    incidents: list[Record] = run.journal("incident")
    assert {r.fields["cause"] for r in incidents} == {"disk_full"}
    assert "the periodic checkpoint of step 3 failed" in incidents[0].fields["detail"]
    assert_same(run, alone)


def test_a_first_start_is_refused_where_two_checkpoints_have_no_room(tmp_path: Path, small_disk: Path) -> None:
    run_dir = small_disk / "run"
    run = Run(tmp_path / "base", args={**TRAINER_ALONE, "lora-rank": 512}, job={**ONE_PROCESS, "run_dir": str(run_dir)})
    assert run.run() == 2, run.said()
    assert f"{run_dir} has " in run.said()
    assert "two checkpoints need" in run.said()
    assert not run.board().exists()
    assert run.workers() == []


def test_an_emergency_on_a_full_disk_takes_the_room_of_what_the_run_can_do_without(
    tmp_path: Path, small_disk: Path, alone: Run
) -> None:
    checkpoint = {"every": "2 steps", "snapshot": "1 step", "keep_last": 200}
    job = {**ONE_PROCESS, "run_dir": str(small_disk / "run"), "checkpoint": checkpoint}
    run = Run(tmp_path / "base", args=ALONE, job=job)
    run.place("step-10")
    run.start_committing(2, 4, 6, 8, ranks=1)
    run.wait_at("step-10", ranks=1)
    ballast = fill(small_disk)
    run.signal_tree(signal.SIGTERM)
    assert run.wait() == 75, run.said()
    ballast.unlink()
    assert names(run) == ["checkpoint-6", "checkpoint-8", "checkpoint-9"]
    assert run.journal("checkpoint_committed")[-1].fields["reason"] == "emergency"
    assert "200 checkpoints of 0 MB and the next one need " in run.journal("incident")[0].fields["detail"]
    events = [record.event for record in run.journal()]
    assert events.index("incident") < events.index("checkpoint_committed"), "it is foreseen"
    told = run.journal("incident")[-1].fields
    assert told["cause"] == "disk_full"
    assert told["detail"] == ("the disk was full: checkpoint-2, checkpoint-4 had to go for the checkpoint of step 9")
    shutil.rmtree(run.board(), ignore_errors=True)
    run.let_go("step-10")
    assert run.run() == 0, run.said()
    assert run.journal("training_started")[-1].fields["step"] == 9
    assert_same(run, alone)


def names(run: Run) -> list[str]:
    return sorted(path.name for path in (run.run_dir / "checkpoints").glob("checkpoint-*"))
