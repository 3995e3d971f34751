"""kill -9 of a random rank at random moments of a run: what is lost, and is the result the same.

Measured: a run of two ranks (see lives.py) is hit several times, in steps, in evaluations and
while it sets up; the supervisor brings it to its end; the next run follows until so many kills
are done. A settled step counts as redone if the training program's own trace shows that every
rank had settled it in an earlier life, and the next life went on from before it. The final
adapter, the optimizer's state and the adapter after every step are compared with those of an
undisturbed run, bit for bit. Moments are drawn from a seed; where in the program they fall
still depends on the machine. In every other run a second set of workers stands by.

Not shown: GPUs, several nodes, and whether it holds where nobody struck.

Run it (exit 1 if anything was lost or differs):
    python -m tests.bench.kill_ranks --kills 20 --seed 1
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.lives import Moment, await_moment, completed, differences, fresh_run, moments, resumed, undisturbed
from tests.harness import Run

KINDS = {"step": 7, "evaluation": 3, "setup": 1}


def main() -> None:
    arguments = argparse.ArgumentParser(description="kill -9 of ranks")
    arguments.add_argument("--kills", type=int, default=20)
    arguments.add_argument("--per-run", type=int, default=5)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--keep", type=Path, help="leave the runs here, to look at")
    given = arguments.parse_args()
    base = given.keep or Path(tempfile.mkdtemp(prefix="bench-kill-ranks-"))
    expected = undisturbed(base / "undisturbed")
    rng, redone, different, back_s = random.Random(given.seed), [], [], []
    for number, planned in enumerate(moments(given.seed, given.kills, KINDS, given.per_run)):
        run = fresh_run(base / str(number), standby=number % 2 == 1)
        struck = [strike(run.start() if n == 1 else run, moment, n, rng) for n, moment in enumerate(planned, 1)]
        code = run.wait()
        starts = {r.attempt: r.time for r in run.journal("training_started")}
        for n, (moment, rank, killed_s) in enumerate(struck, 1):
            what = "the next life was killed before it trained"
            if n + 1 in starts:
                step, source = resumed(run)[n + 1]
                redone.append(max(0, completed(run, n + 1) - step))
                back_s.append(starts[n + 1] - killed_s)
                what = f"on from {source} {step}, {redone[-1]} settled steps redone"
            print(f"run {number}: {moment!s:14} rank {rank} killed; {what}")
        wrong = [f"exit code {code}"] if code else differences(run, expected)
        different += wrong
        print(f"run {number}: {'bit-identical' if not wrong else 'DIFFERENT: ' + ', '.join(wrong[:5])}", flush=True)
    same = "all bit-identical" if not different else "NOT ALL bit-identical"
    print(f"\n{given.kills} kills, {sum(redone)} settled steps redone, {same}")
    print(f"from the kill to training again: median {statistics.median(back_s):.1f} s, most {max(back_s):.1f} s")
    if not given.keep:
        shutil.rmtree(base)
    sys.exit(bool(different or sum(redone)))


def strike(run: Run, moment: Moment, attempt: int, rng: random.Random) -> tuple[Moment, int, float]:
    await_moment(run, moment, attempt)
    rank = rng.randrange(2)
    os.kill(run.beats()[rank].pid, signal.SIGKILL)
    killed_s = time.time()
    run.wait_for_event("attempt_ended", attempt)
    return moment, rank, killed_s


if __name__ == "__main__":
    main()
