"""Exit 0 means that training reached its end and that its adapter is there, and nothing else does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from harness import PROGRAMS, Run
from undisturbed import ALONE, TRAINER_ALONE

from supervisor.journal import JOURNAL

ONE_PROCESS: dict[str, Any] = {"launch": {"processes_per_node": 1}, "checkpoint": {"snapshot": "1 step"}}


def test_a_run_that_died_before_its_adapter_was_written_writes_it_and_trains_no_step_again(
    tmp_path: Path, alone: Run
) -> None:
    run = Run(tmp_path, args=ALONE, job=ONE_PROCESS)
    assert run.run() == 0, run.said()
    journal = run.run_dir / JOURNAL
    lines = journal.read_text().splitlines(keepends=True)
    committed = max(number for number, line in enumerate(lines) if '"reason":"final"' in line)
    journal.write_text("".join(lines[: committed + 1]))  # killed right after the rename of the last checkpoint
    shutil.rmtree(run.run_dir / "final")
    steps = len(run.trace())

    assert run.run() == 0, run.said()
    assert run.digests() == alone.digests()
    assert len(run.trace()) == steps


def test_a_program_that_returns_before_the_end_of_training_has_not_finished(tmp_path: Path) -> None:
    job = {**ONE_PROCESS, "recovery": {"max_barren": 1}}
    run = Run(tmp_path, args=TRAINER_ALONE, job=job, program=str(PROGRAMS / "swallows.py"))
    assert run.run() == 3, run.said()
    ends = [r.fields for r in run.journal("attempt_ended")]
    assert [end["cause"] for end in ends] == ["crashed", "crashed"]
    assert ends[0]["evidence"] == "the program returned at step 2 of 12, before the end of training"
    assert not (run.run_dir / "final").exists()


def test_without_snapshots_a_run_still_ends_but_has_no_checkpoints(tmp_path: Path) -> None:
    run = Run(tmp_path, args=ALONE, job={**ONE_PROCESS, "checkpoint": {"snapshot": "off"}})
    assert run.run() == 0, run.said()
    assert list((run.run_dir / "checkpoints").iterdir()) == []
    assert run.journal("run_finished")[-1].fields["final"] is None
