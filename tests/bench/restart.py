"""A rank is killed: how long until training has a step that it did not have before.

Measured: the same tiny LoRA Trainer with two ranks on the CPU (see restarted.py), once under
our supervisor, once under `accelerate launch --max_restarts 3` with a stock Trainer that saves
at every step and resumes from its newest checkpoint; in turn, so many pairs. One rank gets
SIGKILL at the beginning of a step, with the step before it settled and saved; what a kill in
the middle of a stock save does is not the question here. The clock runs from the signal to the
end of the first step, on all ranks, that is newer than any step ended before. The ratio of each
pair is the figure. Some launches of accelerate are not back within three minutes: its ranks
find addresses of the dead ones in the store of the rendezvous ("Gloo connectFullMesh failed").
Those count as three minutes.

Ours has its workers stand by (`launch.standby: on`; with `auto` they do after half a minute of
training), and the kill comes when they are ready. `--standby off` shows a restart from nothing.

Not shown: loading a large model (the same for both), GPUs.

Run it (exit 1 unless ours is shorter every time):
    python -m tests.bench.restart --pairs 5
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from supervisor.launch.processes import free_port, marked
from tests.harness import Run, until

PROGRAM = Path(__file__).with_name("restarted.py")
KILL_AT = 100  # a step takes a tenth of a second: by then the workers that stand by have imported everything
RANKS = 2
#: What a launcher may take to give a rank up and start again; the stock one's own limit is 30 s.
PATIENCE_S = 180.0
MARKER = "BENCH_RESTART"


def main() -> None:
    arguments = argparse.ArgumentParser(description="restart of a killed rank, ours against accelerate's")
    arguments.add_argument("--pairs", type=int, default=5)
    arguments.add_argument("--standby", choices=["on", "off"], default="on")
    given = arguments.parse_args()
    ratios = []
    for pair in range(given.pairs):
        took = {}
        for one in (ours, stock) if pair % 2 else (stock, ours):
            base = Path(tempfile.mkdtemp(prefix=f"bench-restart-{one.__name__}-"))
            took[one.__name__] = one(base, pair % RANKS, given.standby)
            shutil.rmtree(base)
        never = "more than " if math.isinf(took["stock"]) else ""
        ratios.append(min(took["stock"], PATIENCE_S) / took["ours"])
        print(
            f"rank {pair % RANKS} killed: ours {took['ours']:5.1f} s, accelerate --max_restarts "
            f"{never}{min(took['stock'], PATIENCE_S):5.1f} s, {never}{ratios[-1]:.1f} times shorter",
            flush=True,
        )
    print(f"median {statistics.median(ratios):.1f} times shorter; worst pair {min(ratios):.1f}")
    sys.exit(min(ratios) <= 1.0)


def ours(base: Path, rank: int, standby: str) -> float:
    launch = {"processes_per_node": RANKS, "standby": standby}
    run = Run(base, program=str(PROGRAM), job={"checkpoint": {"every": "10 min"}, "launch": launch})
    run.start()
    try:
        return kill_and_wait(run.out, rank)
    finally:
        run.kill_tree()
        shutil.rmtree(run.board(), ignore_errors=True)  # nobody comes to adopt it
        until(lambda: not run.workers(), "end of the workers")


def stock(base: Path, rank: int, _standby: str) -> float:
    out = base / "out"
    launcher = Path(sys.executable).with_name("accelerate")
    command = [
        str(launcher),
        "launch",
        "--multi_gpu",
        "--num_processes",
        str(RANKS),
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        str(free_port()),
        "--max_restarts",
        "3",
        str(PROGRAM),
        "--out",
        str(out),
        "--stock",
    ]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", MARKER: str(base)}
    with (base / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        return kill_and_wait(out, rank)
    finally:
        for pid in marked(f"{MARKER}={base}"):  # the launcher and its ranks, which are in sessions of their own
            os.kill(pid, signal.SIGKILL)
        process.wait()


def kill_and_wait(out: Path, rank: int) -> float:
    """Kill a rank at the beginning of a step; seconds until a newer one is done on all ranks, infinite if never."""
    until(lambda: has_just_begun(out), f"step {KILL_AT}", 120.0)
    os.kill(notes(out, rank, "begun")[-1]["pid"], signal.SIGKILL)
    killed_s = time.time()
    newest = max(note["step"] for r in range(RANKS) for note in notes(out, r, "done"))

    def again() -> list[float] | None:
        first = [[n["time"] for n in notes(out, r, "done") if n["step"] > newest] for r in range(RANKS)]
        return [times[0] for times in first] if all(first) else None

    try:
        return max(until(again, "newer step", PATIENCE_S)) - killed_s
    except AssertionError:
        return math.inf


def has_just_begun(out: Path) -> bool:
    """Whether all ranks sleep at the beginning of the same step, with a while to go."""
    begun = [notes(out, r, "begun")[-1:] for r in range(RANKS)]
    if not all(begun):
        return False
    steps, times = {note["step"] for (note,) in begun}, [note["time"] for (note,) in begun]
    return len(steps) == 1 and min(steps) >= KILL_AT and time.time() - min(times) < 0.05


def notes(out: Path, rank: int, what: str) -> list[dict]:
    path = out / f"notes-{rank}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    told = [json.loads(line) for line in lines if line.endswith("}")]
    return [note for note in told if note["what"] == what]


if __name__ == "__main__":
    main()
