"""The run directory's file system hangs for longer than a node may be silent: no attempt ends for it.

`LONG_HANG_S=30` makes the hang so long; half a minute is what is promised.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from disks import Ext4
from harness import Run, until
from nodes import Nodes
from undisturbed import TOGETHER, assert_same

from supervisor.link.hub import PATIENCE_S

FROZEN_S = float(os.environ.get("LONG_HANG_S", 2 * PATIENCE_S))


def test_two_nodes_train_on_while_the_disk_hangs_and_what_was_missed_is_written_later(
    tmp_path: Path, disk: Ext4, together: Run
) -> None:
    job = {
        "run_dir": str(disk.place / "run"),
        "launch": {"processes_per_node": 1},
        "checkpoint": {"every": "1 step", "snapshot": "1 step"},
    }
    run = Nodes(tmp_path, args=TOGETHER, job=job)
    run.place("step-6")
    run.place("step-20")
    run.start().wait_at("step-6")
    run.wait_for_commit(5)
    disk.freeze()
    frozen_s = time.monotonic()
    written = len(run.journal())
    run.let_go("step-6")
    until(lambda: time.monotonic() > frozen_s + FROZEN_S, "end of the hang", 2 * FROZEN_S)
    assert len(run.journal()) == written, "nothing was frozen"
    disk.thaw()
    run.wait_at("step-20")
    before = len(run.journal("checkpoint_committed"))
    run.let_go("step-20")
    assert run.codes() == [0, 0], run.words()
    assert len(run.journal("checkpoint_committed")) > before
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == ["finished"]
    assert run.journal("incident") == []
    assert_same(run, together)


def test_ranks_that_print_train_on_while_the_disk_hangs_and_their_logs_are_whole_afterwards(
    tmp_path: Path, disk: Ext4
) -> None:
    job = {"run_dir": str(disk.place / "run"), "checkpoint": {"snapshot": "1 step"}}
    run = Run(tmp_path, args={"max_steps": 24}, job=job)  # it prints at every third step
    run.place("step-6")
    run.place("step-20")
    run.start().wait_at("step-6")
    disk.freeze()
    run.let_go("step-6")
    run.wait_at("step-20")  # all that was printed on the way did not wait
    disk.thaw()
    run.let_go("step-20")
    assert run.wait() == 0, run.said()
    printed = (run.run_dir / "logs" / "attempt-1" / "rank-0.log").read_text()
    assert printed.count("'loss'") + printed.count('"loss"') == 24 // 3
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == ["finished"]
