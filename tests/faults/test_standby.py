"""Workers that stand by: they take over at once, the result is the same, and unneeded ones leave nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from harness import BUSY_S, Run, until
from undisturbed import TRAINER_TOGETHER, assert_nothing_repeated, assert_same

from supervisor.board.environment import MARKER
from supervisor.launch.processes import kill, marked


def at_gate(run: Run, attempt: int) -> list[int]:
    """Pids of the attempt's ranks that wait at the gate."""
    return [pid for pid in of_attempt(run, attempt) if any("/gate-" in target for target in open_files(pid))]


def of_attempt(run: Run, attempt: int) -> list[int]:
    return marked(f"{MARKER}={run.run_id()}/{attempt}")


def open_files(pid: int) -> list[str]:
    found = []
    for entry in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            found.append(os.readlink(entry))
        except OSError:
            continue
    return found


def test_workers_that_stand_by_take_over_and_nobody_can_tell_from_the_result(
    tmp_path: Path, trainer_together: Run
) -> None:
    run = Run(
        tmp_path,
        args=TRAINER_TOGETHER,
        job={
            "checkpoint": {"every": "7 steps", "snapshot": "1 step"},
            "launch": {"processes_per_node": 2, "standby": "on"},
        },
    )
    for point in ("substep-4", "substep-9", "substep-13", "substep-17"):
        run.place(point)
    run.start()

    run.wait_at("substep-4")
    waiting = until(lambda: set(found) if len(found := at_gate(run, 2)) == 2 else None, "standby at the gate")
    assert all(int(Path(f"/proc/{pid}/oom_score_adj").read_text()) == 900 for pid in waiting)
    assert [beat.step for beat in run.beats()] == [3, 3]  # they publish nothing
    run.kill_rank(1)
    run.let_go("substep-4")

    run.wait_at("substep-9")
    assert {beat.pid for beat in run.beats()} == waiting
    assert all(int(Path(f"/proc/{pid}/oom_score_adj").read_text()) == 0 for pid in waiting)
    until(lambda: len(at_gate(run, 3)) == 2, "next standby at the gate")
    kill(of_attempt(run, 3))  # it dies while it waits: no incident, the next attempt starts from nothing
    until(lambda: not of_attempt(run, 3), "end of the standby")
    run.kill_rank(0)
    run.let_go("substep-9")

    run.wait_at("substep-13")
    until(lambda: len(at_gate(run, 4)) == 2, "third standby at the gate")
    for _ in range(2):
        run.signal_tree(signal.SIGTERM)
    run.let_go("substep-13")
    assert run.wait(10.0 + BUSY_S) == 75
    assert run.workers() == []
    assert sorted(path.name for path in (run.run_dir / "logs").iterdir()) == ["attempt-1", "attempt-2", "attempt-3"]

    run.start()
    run.wait_at("substep-17")
    until(lambda: len(at_gate(run, 5)) == 2, "fourth standby at the gate")
    run.kill_tree()
    until(lambda: not run.workers(), "end of everything", 5.0 + BUSY_S)
    run.let_go("substep-17")

    assert run.run() == 0, run.said()
    assert_same(run, trainer_together)
    assert_nothing_repeated(run)
    assert [r.fields["stood_by"] for r in run.journal("workers_ready")] == [False, True, False, False, False]
    causes = [r.fields["cause"] for r in run.journal("attempt_ended")]
    assert causes == ["crashed", "crashed", "preempted", "unknown", "finished"]
    assert run.workers() == []
    assert not run.board().exists()
    assert sorted(path.name for path in (run.run_dir / "logs").iterdir()) == [f"attempt-{n}" for n in range(1, 6)]
