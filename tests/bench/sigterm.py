"""SIGTERM to every process of the tree, one to three times, at random moments; 15 s of grace.

Measured: a run of two ranks (see lives.py, a checkpoint every ten steps) is told to go several
times: while it sets up, in its first step, in steps, in evaluations, in commits, while it
restarts after a killed rank, and in the pause before that restart. Each time the supervisor
has to leave with 75 within 5 s of the first signal, every process with it, and the newest
step that every rank had settled when the signal came, as the ranks published and traced it, has to
stand in a checkpoint that verifies. The same command then goes on; the result is compared with an
undisturbed run's, bit for bit.

Not shown: a scheduler that kills earlier than it says, a disk that takes seconds to sync.

Run it (exit 1 if a limit was missed, anything was lost or differs):
    python -m tests.bench.sigterm --times 20 --seed 3
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.lives import Moment, await_moment, completed, differences, fresh_run, moments, undisturbed
from tests.harness import Run, command, until

KINDS = {"setup": 3, "first": 3, "step": 4, "evaluation": 3, "commit": 3, "restart": 3, "back-off": 2}
HANDED_BACK, LIMIT_S = 75, 5.0


def main() -> None:
    arguments = argparse.ArgumentParser(description="SIGTERM to whole trees")
    arguments.add_argument("--times", type=int, default=20)
    arguments.add_argument("--per-run", type=int, default=5)
    arguments.add_argument("--seed", type=int, default=3)
    arguments.add_argument("--keep", type=Path, help="leave the runs here, to look at")
    given = arguments.parse_args()
    base = given.keep or Path(tempfile.mkdtemp(prefix="bench-sigterm-"))
    expected = undisturbed(base / "undisturbed")
    rng, wrong, took_s = random.Random(given.seed), [], []
    for number, planned in enumerate(moments(given.seed, given.times, KINDS, given.per_run)):
        run = fresh_run(base / str(number), standby=number % 2 == 1, checkpoint={"every": "10 steps"})
        for moment in planned:
            run.start()
            arrange(run, moment)
            settled = newest_settled(run)
            signals = rng.randrange(1, 4)
            leave_s, code = tell(run, signals, rng)
            took_s.append(leave_s)
            stands = newest_intact(run)
            left = run.workers()
            good = code == HANDED_BACK and leave_s <= LIMIT_S and stands >= settled and not left
            wrong += [] if good else [f"run {number}: {moment}"]
            print(
                f"run {number}: {moment!s:14} {signals} × SIGTERM: exit {code} after {leave_s:4.2f} s; settled "
                f"{settled}, intact {stands}, {len(left)} processes left{'' if good else '  WRONG'}",
                flush=True,
            )
        code = run.run()
        differs = [f"exit code {code}"] if code else differences(run, expected)
        wrong += differs
        print(f"run {number}: {'bit-identical' if not differs else 'DIFFERENT: ' + ', '.join(differs[:5])}", flush=True)
    print(f"\n{len(took_s)} times: exit after {statistics.mean(took_s):.2f} s on average, {max(took_s):.2f} s at most")
    print("all as it should be" if not wrong else f"{len(wrong)} WRONG: {'; '.join(wrong[:10])}")
    if not given.keep:
        shutil.rmtree(base)
    sys.exit(bool(wrong))


def arrange(run: Run, moment: Moment) -> None:
    """Bring the run, which has just been started, into the situation."""
    until(lambda: run.run_dir.is_dir() and run.journal("run_started"), "start")
    attempt = len(run.wait_for_event("attempt_started", 1 + len(run.journal("attempt_ended"))))
    match moment.kind:
        case "first":
            run.wait_for_event("training_started", 1 + len(trained_before(run, attempt)))
            time.sleep(0.2 * moment.share)
        case "restart":
            run.wait_for_step(moment.step, attempt=attempt)
            run.kill_rank(moment.step % 2)
            time.sleep(2.0 * moment.share)
        case "back-off":
            until(lambda: run.beats() and all(b.pid for b in run.beats()), "ranks")
            run.kill_rank(moment.step % 2)  # no newer step was settled, so a pause follows
            run.wait_for_event("attempt_ended", attempt)
            time.sleep(2.0 * moment.share)
        case _:
            await_moment(run, moment, attempt)


def trained_before(run: Run, attempt: int) -> list:
    return [r for r in run.journal("training_started") if (r.attempt or 0) < attempt]


def newest_settled(run: Run) -> int:
    """Of all ranks and attempts, as they published and traced it; 0 while there is none."""
    published = min((b.step for b in run.beats()), default=0)
    return max(0, published, completed(run, 1 + len(run.journal("attempt_started"))))


def newest_intact(run: Run) -> int:
    """Step of the checkpoint that a resume would take, 0 for none."""
    path = json.loads(command("verify", str(run.run_dir), "--json").stdout)["resume_from"]
    return int(path.rpartition("-")[2]) if path else 0


def tell(run: Run, signals: int, rng: random.Random) -> tuple[float, int]:
    """SIGTERM to all, so many times within a second; seconds until the supervisor left, and its exit code."""
    began_s = time.monotonic()
    run.signal_tree(signal.SIGTERM)
    for _ in range(signals - 1):
        time.sleep(rng.uniform(0.0, 0.5))
        if run.process is not None and run.process.poll() is None:
            run.signal_tree(signal.SIGTERM)
    code = run.wait(30)
    return time.monotonic() - began_s, code


if __name__ == "__main__":
    main()
