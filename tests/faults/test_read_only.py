"""The run directory's file system turns read-only under a run, with everything of it open, and is mounted anew."""

from __future__ import annotations

import signal
from pathlib import Path

from disks import Ext4
from harness import Run, until
from undisturbed import ALONE, assert_nothing_repeated, assert_same

JOB = {"launch": {"processes_per_node": 1}, "checkpoint": {"every": "1 step", "snapshot": "1 step"}}


REFUSED = "read-only file system; have the file system mounted writable again"


def test_training_goes_on_and_who_leaves_says_what_is_on_no_disk_and_what_was_missed_is_written_later(
    tmp_path: Path, disk: Ext4, alone: Run
) -> None:
    run = Run(tmp_path / "base", args=ALONE, job={**JOB, "run_dir": str(disk.place / "run")})
    for step in (3, 4, 6, 9, 10, 11):
        run.place(f"step-{step}")
    run.start_committing(1, ranks=1)
    run.wait_at("step-3", ranks=1)
    run.wait_for_commit(2)
    disk.err()
    run.let_go("step-3")
    until(lambda: f"checkpoint-3: {REFUSED}" in run.said(), "commit in vain")
    run.let_go("step-4")
    run.wait_at("step-6", ranks=1)
    run.signal_tree(signal.SIGTERM)
    assert run.wait() == 75, run.said()
    assert (
        f"not on disk: the state of step 5, which {run.board()} holds: the same command goes on from it" in run.said()
    )
    assert "lines of the journal, which are lost" in run.said()
    assert [record.fields["step"] for record in run.journal("checkpoint_committed")] == [1, 2]
    disk.go()
    disk.come_back()

    run.let_go("step-6")
    run.start().wait_at("step-9", ranks=1)
    run.wait_for_commit(8)
    disk.err()
    run.let_go("step-9")
    until(lambda: f"checkpoint-9: {REFUSED}" in run.said(), "commit in vain")
    run.let_go("step-10")
    run.wait_at("step-11", ranks=1)
    disk.go()
    disk.come_back()
    run.let_go("step-11")
    assert run.wait() == 0, run.said()
    told = run.journal("incident")[-1].fields  # refused at first, like all that came after it
    assert (told["cause"], told["decision"], REFUSED in told["detail"]) == ("storage", "training goes on", True)
    assert run.journal("checkpoint_committed")[-1].fields["step"] == 12
    assert len(run.journal("run_finished")) == 1
    assert run.said().count("not on disk") == 1
    assert_nothing_repeated(run)
    assert_same(run, alone)
