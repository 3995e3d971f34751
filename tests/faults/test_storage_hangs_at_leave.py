"""The run directory hangs, a commit with it, and just then the machine is wanted back."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from harness import BUSY_S, Run, until
from undisturbed import ALONE, assert_same

from supervisor.engine.loop import CLOSE_S
from supervisor.engine.seeing import HUNG_S

#: Besides the patience with the commit: a pause, the end of the ranks, and twice a thread that does not come back.
LEAVE_S = HUNG_S + 2 * CLOSE_S + 5.0 + BUSY_S


@pytest.fixture
def library(tmp_path: Path) -> Path:
    made = tmp_path / "hanging.so"
    if shutil.which("cc") is None:
        pytest.skip("no C compiler, so nothing can be made to hang")
    source = Path(__file__).parents[1] / "hanging.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(made), str(source), "-ldl"], check=True)
    return made


def test_a_commit_that_hangs_keeps_nobody_and_what_memory_holds_is_gone_on_from(
    tmp_path: Path, library: Path, alone: Run
) -> None:
    hangs = tmp_path / "hangs"
    job = {
        "launch": {"processes_per_node": 1},
        "checkpoint": {"every": "2 steps", "snapshot": "1 step"},
        "recovery": {"grace": "5 s"},
    }
    run = Run(tmp_path / "base", args=ALONE, job=job)
    run.environment = {"LD_PRELOAD": str(library), "HANG_BELOW": str(run.run_dir), "HANG_WHILE": str(hangs)}
    run.place("step-4")
    run.place("step-8")
    run.start().wait_at("step-4", ranks=1)
    run.wait_for_event("checkpoint_committed", 1)
    hangs.touch()
    run.let_go("step-4")
    run.wait_at("step-8", ranks=1)  # training goes on, and the commit of step 4 hangs
    assert len(run.journal("checkpoint_committed")) == 1
    began_s = time.monotonic()
    run.signal_tree(signal.SIGTERM)
    assert run.wait(LEAVE_S) == 75, run.said()
    assert time.monotonic() - began_s > HUNG_S, "the commit was given time"
    until(lambda: not run.workers(), "end of the ranks")
    hangs.unlink()
    run.let_go("step-8")
    assert run.run() == 0, run.said()
    started = run.journal("training_started")[-1].fields
    assert (started["source"], started["step"]) == ("snapshot", 7)
    assert_same(run, alone)
