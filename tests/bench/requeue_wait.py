"""How long a job that gives its nodes back waits for the next ones, on a real cluster with free nodes, way by way.

Measured: seconds from the moment at which a job of an ordinary user asks for its way back until it
runs again, in a cluster of slurm/cluster where nothing else waits, all ways at once. SLURM keeps a requeued
job waiting for 120 s of its own (`Reason=BeginTime`); some ways are there to see whether a job can shorten
that without anybody's help. Whoever still waits after 150 s has not shortened it: "not in time".

Not shown: a full cluster, whose queue is longer than two minutes, and a site's bf_interval (30 s
by default, 5 s here), which adds to every way alike.

Run it as root, with the SLURM of slurm/README.md (exit 1 if a way that should work lost a job):
    python -m tests.bench.requeue_wait --repeats 5
"""

from __future__ import annotations

import argparse
import os
import pwd
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.harness import until

ROOT = Path(__file__).parents[2]
USER = "nobody"
PATIENCE_S = 150.0

#: How each way back is gone, in a batch script that knows its own path as $self; and what it loses.
WAYS = {
    "scontrol requeue": ("scontrol requeue $id; sleep 60", "age"),
    "  and starttime=now by the job": (
        "scontrol requeue $id; scontrol update jobid=$id starttime=now; sleep 60",
        "age",
    ),
    "  ... by the batch script after srun": (
        "trap : TERM; srun -n1 sleep 60 & (sleep 1; scontrol requeue $id) & wait %1; wait %1\n"
        "scontrol update jobid=$id starttime=now",
        "age",
    ),
    "  ... by an orphan of the job": (
        "(setsid bash -c 'for n in 1 2 3 4 5; do sleep 3; scontrol update jobid=$0 starttime=now; done' $id &)\n"
        "scontrol requeue $id; sleep 60",
        "age; killed by cgroup tracking",
    ),
    "  ... from outside, once it is pending": ("touch $outside/$id; scontrol requeue $id; sleep 60", "age"),
    "requeuehold, release by the job": ("scontrol requeuehold $id; scontrol release $id; sleep 60", "age"),
    "sbatch --dependency=afterany, then exit": (
        "SUPERVISOR_AFTER=$id sbatch --dependency=afterany:$id --output=/dev/null $self",
        "age, job id",
    ),
}
#: Those that no job may be lost by.
SOUND = ("scontrol requeue", "sbatch --dependency=afterany, then exit")

SCRIPT = """\
#!/bin/bash
self={self} outside={outside} id=$SLURM_JOB_ID
if [ -n "${{SLURM_RESTART_COUNT:-}}${{SUPERVISOR_AFTER:-}}" ]; then
    date +%s.%N > {self}.again
    exit 0
fi
date +%s.%N > {self}.asked
{way}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="how long each way back into the queue takes")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="bench-requeue-"))
    base.chmod(0o755)
    os.environ["SLURM_CONF"] = str(base / "cluster" / "slurm.conf")
    cluster(base, "up", "--nodes", "3", "--cpus", "2")
    try:
        shared(base / "cluster" / "slurm.conf", len(WAYS) * given.repeats)
        waited = measure(base, given.repeats)
    finally:
        cluster(base, "down")
        shutil.rmtree(base)
    print(f"{'way back':42}{'median s':>9}{'max s':>8}   lost besides the wait")
    for way, (_, lost) in WAYS.items():
        found = [s for s in waited[way] if s is not None]
        missing = given.repeats - len(found)
        figures = f"{statistics.median(found):9.1f}{max(found):8.1f}" if found else f"{'-':>9}{'-':>8}"
        print(f"{way:42}{figures}   {lost}{f'; {missing} not in time' if missing else ''}")
    sys.exit(any(s is None for way in SOUND for s in waited[way]))


def shared(conf: Path, jobs: int) -> None:
    """Let so many sleeping jobs share each CPU, that none waits for another."""
    low = "PartitionName=low "
    conf.write_text(conf.read_text().replace(low, f"{low}OverSubscribe=FORCE:{jobs} "))
    subprocess.run(["scontrol", "reconfigure"], check=True)


def measure(base: Path, repeats: int) -> dict[str, list[float | None]]:
    """Seconds waited for each repeat of each way; None for one that did not run again."""
    home = base / "jobs"
    outside = home / "outside"
    outside.mkdir(parents=True)
    user = pwd.getpwnam(USER)
    for directory in (home, outside):
        os.chown(directory, user.pw_uid, user.pw_gid)
    scripts: dict[str, list[Path]] = {way: [] for way in WAYS}
    for number, (way, (commands, _)) in enumerate(WAYS.items()):
        for repeat in range(repeats):
            script = home / f"{number}-{repeat}.sh"
            script.write_text(SCRIPT.format(self=script, outside=outside, way=commands))
            as_user("sbatch", "--parsable", "--requeue", "--output=/dev/null", f"--chdir={home}", str(script))
            scripts[way].append(script)
    everyone = [script for ways in scripts.values() for script in ways]
    until(lambda: all(stamp(script, "asked") for script in everyone), "first starts", 60)
    end_s = time.monotonic() + PATIENCE_S

    while time.monotonic() < end_s and not all(stamp(script, "again") for script in everyone):
        if waiting := ",".join(sorted(one.name for one in outside.iterdir())):
            for line in as_user("squeue", "-h", "-j", waiting, "-t", "PENDING", "-o", "%A %T").splitlines():
                as_user("scontrol", "update", f"jobid={line.split()[0]}", "starttime=now")
        time.sleep(1.0)  # as often as somebody outside may well ask
    for script in everyone:
        if stamp(script, "again") is None:
            said = as_user("squeue", "-h", "-t", "all", "-n", script.name, "-o", "%T, %r, to start at %S").strip()
            print(f"{script.name} waits still: {said}", flush=True)
    return {way: [waited(script) for script in ways] for way, ways in scripts.items()}


def waited(script: Path) -> float | None:
    asked, again = stamp(script, "asked"), stamp(script, "again")
    return again - asked if asked is not None and again is not None else None


def stamp(script: Path, what: str) -> float | None:
    path = script.with_name(f"{script.name}.{what}")
    text = path.read_text() if path.exists() else ""
    return float(text) if text.endswith("\n") else None


def as_user(*command: str) -> str:
    """Run it as somebody with no rights in the cluster; a refusal is part of what is measured."""
    switched = ["setpriv", f"--reuid={USER}", "--regid=nogroup", "--clear-groups", *command]
    return subprocess.run(switched, check=False, capture_output=True, text=True, cwd="/").stdout


def cluster(base: Path, *arguments: str) -> None:
    subprocess.run([str(ROOT / "slurm" / "cluster"), "--dir", str(base / "cluster"), *arguments], check=True)


if __name__ == "__main__":
    main()
