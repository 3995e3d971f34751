"""How soon a stopped rank is noticed, and whether a slow run is ever taken for one that stands still.

Two ranks on CPUs, steps of about 0.2 s. `--repeats` stops a random rank (SIGSTOP) at a random moment and measures the
time to the journal's decision to restart, looking into the ranks included. `--minutes` trains for so long with steps
whose length is drawn from a heavy tail (log-normal, capped), with evaluations and saves of random length, and counts
the attempts that were ended: each is a false alarm.

Not shown: GPUs, several nodes, other filesystems than the one below the temporary directory.

Run it (exit 1 if a stop was noticed later than 15 s, or anything was ended wrongly):
    python -m tests.bench.stall --repeats 5
    python -m tests.bench.stall --minutes 30
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

from tests.harness import PROGRAMS, Run, until

#: What is allowed [s].
ALLOWED_S = 15.0
ARGS = {"max_steps": 100_000, "sleep": 0.15, "rows": 4096}
#: As people have it: patience learnt from the steps seen.
LEARNT = {"stall_after": "auto"}


def main() -> None:
    arguments = argparse.ArgumentParser(description="stalls")
    arguments.add_argument("--repeats", type=int, default=0)
    arguments.add_argument("--minutes", type=float, default=0.0)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--keep", type=Path, help="leave the runs here, to look at")
    given = arguments.parse_args()
    base = given.keep or Path(tempfile.mkdtemp(prefix="bench-stall-"))
    rng, wrong = random.Random(given.seed), 0
    found = [stop_a_rank(base / str(number), rng) for number in range(given.repeats)]
    if found:
        wrong += sum(one > ALLOWED_S for one in found)
        print(f"{len(found)} stops: median {statistics.median(found):.1f} s, most {max(found):.1f} s")
    if given.minutes:
        wrong += slow_run(base / "slow", given.minutes, given.seed)
    if not given.keep:
        shutil.rmtree(base)
    sys.exit(bool(wrong))


def stop_a_rank(base: Path, rng: random.Random) -> float:
    """Seconds from SIGSTOP to the decision."""
    run = Run(base, args=ARGS, job={"checkpoint": {"snapshot": "1 step"}, "recovery": LEARNT}).start()
    run.wait_for_step(rng.randrange(10, 30))
    time.sleep(rng.random() * 0.2)
    rank = rng.randrange(2)
    pace_s = run.beats()[rank].step_s
    os.kill(run.beats()[rank].pid, signal.SIGSTOP)
    stopped_s = time.time()
    decision = run.wait_for_event("decision")[0]
    evidence = str(run.journal("attempt_ended")[0].fields["evidence"])
    took_s = decision.time - stopped_s
    print(f"rank {rank}, steps of {pace_s:.2f} s: {took_s:.1f} s; {evidence}", flush=True)
    assert f"rank {rank} is stopped" in evidence, evidence
    run.kill_tree()
    return took_s


def slow_run(base: Path, minutes: float, seed: int) -> int:
    """False alarms of a run that is slow at random."""
    args = {**ARGS, "eval-steps": 40, "save-steps": 60, "slow-seed": seed}
    run = Run(base, args=args, job={"recovery": LEARNT}, program=str(PROGRAMS / "slow_at_random.py")).start()
    until_s = time.monotonic() + 60.0 * minutes
    until(lambda: time.monotonic() > until_s or run.process.poll() is not None, "end", 60.0 * minutes + 30.0)
    ended = len(run.journal("attempt_ended"))
    beats = run.beats()
    longest = [float(line.split()[1]) for line in (run.out / "slowness-0").read_text().splitlines()]
    print(
        f"{minutes:g} min: {ended} false alarms, {min((b.step for b in beats), default=-1)} steps, "
        f"{len(longest)} of them, evaluations and saves over 1 s, the longest {max(longest, default=0.0):.1f} s"
    )
    for end in run.journal("attempt_ended"):
        print(f"  {end.fields['cause']}: {end.fields['evidence']}")
    run.kill_tree()
    return ended


if __name__ == "__main__":
    main()
