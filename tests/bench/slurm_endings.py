"""Every way in which SLURM takes a job of one node away, on a real cluster, and what becomes of the run.

Measured: the run of lives.py (two ranks) is submitted with slurm/run.sbatch to a cluster of
slurm/cluster. In the middle of training it is preempted (with GraceTime, and with KillWait only),
requeued by an operator, cancelled, or comes near its time limit. Told are the time from the notice
to the last commit, the settled steps that the next incarnation did again, and whether the result is that
of an undisturbed run, bit for bit; a cancelled job has to stay away. SLURM's two minutes of
waiting are skipped from outside.

Not shown: several nodes, cgroup tracking, a slurmctld that is down.

Run it as root (exit 1 if anything was lost, differs, or came back that was cancelled):
    python -m tests.bench.slurm_endings --repeats 5
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.lives import differences, fresh_run, undisturbed
from tests.harness import Run, redone, until

ROOT = Path(__file__).parents[2]
KINDS = {"preempt": 15, "preempt without grace": 0, "requeue": 15, "time limit": 15, "scancel": 15}
#: The end comes when so many steps are settled.
STEP = 20
#: A step this slow [s], and a minute is too short for the run.
SLOW_S = 1.2


def main() -> None:
    arguments = argparse.ArgumentParser(description="every way a SLURM job ends")
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    given = arguments.parse_args()
    base = Path(tempfile.mkdtemp(prefix="bench-slurm-"))
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    os.environ["SLURM_CONF"] = str(base / "cluster" / "slurm.conf")
    expected = undisturbed(base / "undisturbed")
    wrong: list[str] = []
    for kind in given.kinds:
        cluster(base, "up", "--nodes", "2", "--grace-time", str(KINDS[kind]))
        try:
            for number in range(given.repeats):
                found = once(base, base / f"{kind}-{number}".replace(" ", "-"), kind, expected)
                wrong += [f"{kind} {number}: {one}" for one in found]
        finally:
            cluster(base, "down")
    shutil.rmtree(base)
    print("\nall as it should be" if not wrong else "\n" + "\n".join(wrong))
    sys.exit(bool(wrong))


def once(base: Path, home: Path, kind: str, expected: tuple[dict[str, str], dict[int, str]]) -> list[str]:
    """One run that is ended so; what is wrong with the outcome."""
    run = fresh_run(home)
    limited = kind == "time limit"
    if limited:
        run.args = {**run.args, "sleep": SLOW_S}
    job = submit(run, minutes=1 if limited else 60)
    until(lambda: at_step(run, STEP), f"step {STEP}")
    end(job, kind)
    run_ended = until(lambda: run.journal("requeued") or run.journal("run_stopped"), "end of the first incarnation", 90)
    notice_s = run.journal("notice")[-1].time
    committed_s = run.journal("checkpoint_committed")[-1].time
    said = f"{kind:22} committed {committed_s - notice_s:5.2f} s after the notice, {run_ended[-1].event}"
    if kind == "scancel":
        until(lambda: "CANCELLED" in slurm("scontrol", "show", "job", "-o", job), "the cancelled job")
        print(said, flush=True)
        return [] if not run.journal("requeued") else ["it was requeued"]
    cluster(base, "now", job)
    until(lambda: run.journal("run_finished"), "end of the run")
    again = sum(max(0, steps) for steps in redone(run))
    differ = differences(run, expected)
    cause = run.journal("attempt_ended")[0].fields["cause"]
    print(f"{said} ({cause}), {again} steps redone, {'bit-identical' if not differ else 'DIFFERENT'}", flush=True)
    return [*differ, *([f"{again} steps redone"] if again else [])]


def submit(run: Run, minutes: int) -> str:
    log = run.base / "slurm.log"
    script = [
        "sbatch",
        "--parsable",
        "-p",
        "low",
        f"--output={log}",
        f"--time={minutes}",
        str(ROOT / "slurm" / "run.sbatch"),
    ]
    path = run.write_job()
    done = subprocess.run([*script, str(path)], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def at_step(run: Run, step: int) -> bool:
    if not run.journal("training_started"):
        return False
    beats = run.beats()
    return bool(beats) and all(beat.step >= step for beat in beats)


def end(job: str, kind: str) -> None:
    match kind:
        case "requeue":
            slurm("scontrol", "requeue", job)
        case "scancel":
            slurm("scancel", job)
        case "time limit":
            pass  # it comes by itself
        case _:
            slurm("sbatch", "-p", "high", "-N2", "-n2", "-c2", "-o", "/dev/null", "--wrap", "true")


def slurm(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def cluster(base: Path, *arguments: str) -> None:
    subprocess.run([str(ROOT / "slurm" / "cluster"), "--dir", str(base / "cluster"), *arguments], check=True)


if __name__ == "__main__":
    main()
