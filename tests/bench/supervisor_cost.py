"""What the supervisor itself costs: its memory, its CPU time between commits, and `supervisor status`.

Measured: the supervisor of a two-rank run on the CPU, whose steps are slow (`--sleep`), so
that what the supervisor does with its time shows. Memory of its own is the private part (USS)
of its process alone; pages that others share, such as the board's, are not counted, and the
resident size less shared pages stands beside it. CPU seconds are read before and after a
stretch of steady training without a commit, as a share of one core. Afterwards one commit is
asked for by ending the run, which shows the highest memory that a commit needs; the state is
tiny here, tests/bench/commit.py writes a large one. `status` is asked while the run is alive,
in turn with a bare `python -c pass`.

Not shown: many ranks, a run directory on a slow network file system, terminals with the live display.

Run it:
    python -m tests.bench.supervisor_cost --seconds 40 --repeats 10
"""

from __future__ import annotations

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.harness import Run

OWN_BYTES, SHARE, STATUS_S = 60e6, 0.005, 0.4


def main() -> None:
    arguments = argparse.ArgumentParser(description="memory, CPU time and answers of the supervisor")
    arguments.add_argument("--seconds", type=float, default=40.0, help="of steady training to watch")
    arguments.add_argument("--sleep", type=float, default=0.5, help="added to every step [s]")
    arguments.add_argument("--repeats", type=int, default=10, help="of `status`")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-supervisor-") as base:
        run = Run(Path(base), args={"steps": 100_000, "sleep": given.sleep}, job={"checkpoint": {"every": "10 min"}})
        run.start()
        try:
            run.wait_for_step(3)
            reached = measure(run, given.seconds, given.repeats)
        finally:
            run.kill_tree()
    sys.exit(not reached)


def measure(run: Run, seconds: float, repeats: int) -> bool:
    assert run.process is not None
    process = psutil.Process(run.process.pid)
    before, began_s, step = process.cpu_times(), time.monotonic(), run.beats()[0].step
    switches = process.num_ctx_switches().voluntary
    own = []
    while time.monotonic() - began_s < seconds:
        own.append(process.memory_full_info().uss)
        time.sleep(seconds / 4)
    after, took_s = process.cpu_times(), time.monotonic() - began_s
    wakes = (process.num_ctx_switches().voluntary - switches) / took_s
    busy_s = after.user + after.system - before.user - before.system
    steps = run.beats()[0].step - step
    memory = process.memory_info()
    status_s, python_s = answers(run, repeats)
    run.process.send_signal(signal.SIGTERM)
    last_bytes = 0
    while run.process.poll() is None:
        try:
            last_bytes = max(last_bytes, process.memory_full_info().uss)
        except psutil.Error:
            break
        time.sleep(0.002)
    run.wait()
    print(f"{steps} steps in {took_s:.0f} s, {len(run.journal('checkpoint_committed'))} commit (after them)")
    shared = f"resident {memory.rss / 1e6:.1f} MB, of it shared {memory.shared / 1e6:.1f} MB"
    used = f"{busy_s:.3f} s in {took_s:.0f} s, {wakes:.1f} wakes a second"
    status, python = statistics.median(status_s), statistics.median(python_s)
    bare = f"{min(status_s):.3f} to {max(status_s):.3f}; `python -c pass` {python:.3f}, ratio {status / python:.1f}"
    rows = [
        ("memory of its own", max(own) / 1e6, OWN_BYTES / 1e6, "MB", shared),
        ("  while it commits", last_bytes / 1e6, OWN_BYTES / 1e6, "MB", "the highest of a drain"),
        ("CPU between commits", 100 * busy_s / took_s, 100 * SHARE, "%", used),
        ("`supervisor status`", status, STATUS_S, "s", bare),
    ]
    for what, value, limit, unit, more in rows:
        verdict = "reached" if value < limit else "MISSED"
        print(f"{what:20} {value:8.3f} {unit:2}  {verdict:7} (under {limit:g} {unit}); {more}")
    return all(value < limit for _, value, limit, _, _ in rows)


def answers(run: Run, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of `supervisor status` on the run, and of a bare interpreter."""
    ours, bare = [], []
    installed = Path(sys.executable).with_name("supervisor")
    status = [str(installed)] if installed.exists() else [sys.executable, "-m", "supervisor"]
    for _ in range(repeats):
        for command, took in (([*status, "status", str(run.run_dir)], ours), ([sys.executable, "-c", "pass"], bare)):
            began_s = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            took.append(time.perf_counter() - began_s)
    return ours, bare


if __name__ == "__main__":
    main()
