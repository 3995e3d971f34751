"""kill -9 of the whole tree, supervisor included, at random moments; then the same command again.

Measured: a run of two ranks (see lives.py) is killed several times, the supervisor first, in
steps, evaluations, commits and while it sets up. The same command then goes on: half of the
times with the board as it was left in memory, half with the board wiped, as after a reboot,
from the newest intact checkpoint (one every five steps). A settled step counts as redone if
the training program's own trace shows that every rank had settled it; with the board wiped
what counts is that the run goes on from the newest checkpoint that verified. The results are
compared with an undisturbed run's, bit for bit. How long the workers outlived their
supervisor is told as well: those that a first sweep missed have to end by themselves.

Not shown: loss of power (unsynced pages), another machine adopting the run.

Run it (exit 1 if anything was lost or differs):
    python -m tests.bench.kill_trees --kills 20 --seed 2
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.lives import Moment, await_moment, completed, differences, fresh_run, moments, resumed, undisturbed
from tests.harness import Run, command, until

KINDS = {"step": 6, "evaluation": 2, "commit": 2, "setup": 1}


def main() -> None:
    arguments = argparse.ArgumentParser(description="kill -9 of whole trees")
    arguments.add_argument("--kills", type=int, default=20)
    arguments.add_argument("--per-run", type=int, default=5)
    arguments.add_argument("--seed", type=int, default=2)
    arguments.add_argument("--keep", type=Path, help="leave the runs here, to look at")
    given = arguments.parse_args()
    base = given.keep or Path(tempfile.mkdtemp(prefix="bench-kill-trees-"))
    expected = undisturbed(base / "undisturbed")
    lost, different, outlived_s, count = 0, [], [], 0
    for number, planned in enumerate(moments(given.seed, given.kills, KINDS, given.per_run)):
        run = fresh_run(base / str(number), standby=number % 2 == 1, checkpoint={"every": "5 steps"})
        run.start()
        for attempt, moment in enumerate(planned, 1):
            wiped = bool(count % 2)
            count += 1
            await_moment(run, moment, attempt)
            outlived_s.append(kill(run))
            resumable = wipe(run) if wiped else None
            run.start()
            lost += judge(run, moment, attempt + 1, wiped, resumable, number)
        code = run.wait()
        wrong = [f"exit code {code}"] if code else differences(run, expected)
        different += wrong
        print(f"run {number}: {'bit-identical' if not wrong else 'DIFFERENT: ' + ', '.join(wrong[:5])}", flush=True)
    same = "all bit-identical" if not different else "NOT ALL bit-identical"
    print(f"\n{count} kills, {lost} settled steps redone that need not be, {same}")
    print(f"processes outlived the kill by at most {max(outlived_s):.2f} s")
    if not given.keep:
        shutil.rmtree(base)
    sys.exit(bool(different or lost))


def kill(run: Run) -> float:
    """Kill everything that one look finds; seconds until nothing is left."""
    began_s = time.monotonic()
    run.kill_tree()
    until(lambda: not run.workers(), "end of the workers", 30.0)
    return time.monotonic() - began_s


def wipe(run: Run) -> int:
    """Take the board away; the step of the newest checkpoint that verifies, 0 for none."""
    shutil.rmtree(run.board(), ignore_errors=True)
    told = command("verify", str(run.run_dir), "--json")
    path = json.loads(told.stdout)["resume_from"]
    return int(path.rpartition("-")[2]) if path else 0


def judge(run: Run, moment: Moment, attempt: int, wiped: bool, resumable: int | None, number: int) -> int:
    """Wait until training goes on; steps that were lost and need not have been."""
    until(lambda: attempt in resumed(run) or len(run.journal("attempt_ended")) >= attempt, "training again")
    step, source = resumed(run)[attempt]
    due = resumable if resumable is not None else completed(run, attempt)
    lost = max(0, due - step)
    left = "board wiped" if wiped else "board kept"
    print(f"run {number}: {moment!s:14} {left:11} on from {source} {step}, {due} or newer wanted", flush=True)
    return lost


if __name__ == "__main__":
    main()
