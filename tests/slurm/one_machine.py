"""A SLURM of the test's own, and SLURM's commands as it sees them."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness import until

SCRIPT = Path(__file__).parents[2] / "slurm" / "cluster"
INSTALL = "apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sinfo")
GRACE_S = 6


@dataclass(frozen=True)
class Cluster:
    """A cluster in `base`, and SLURM's commands as they see it."""

    base: Path

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(SCRIPT), "--dir", str(self.base), *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)

    def do(self, *arguments: str) -> str:
        done = self.call(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    # -- the verbs of slurm/cluster

    def up(self, *arguments: str) -> Cluster:
        self.do("up", *arguments)
        return self

    def down(self) -> None:
        self.do("down")

    def mode(self, wanted: str, grace_s: int | None = None) -> None:
        """Switch PreemptMode, and GraceTime if one is given; in force when this returns."""
        self.do("mode", wanted, *([] if grace_s is None else ["--grace-time", str(grace_s)]))

    def away(self) -> None:
        """Stop slurmctld alone; its state is saved."""
        self.do("away")

    def come_back(self) -> None:
        """Start slurmctld again with what it knew; it has heard of its nodes when this returns."""
        self.do("return")

    def fail(self, node: str) -> None:
        self.do("fail", node)

    def back(self, node: str) -> None:
        self.do("back", node)

    def now(self, job: str, restart: int = 0) -> None:
        """Start a requeued job, once it was requeued so many times; it has started when this returns."""
        self.do("now", job, "--restart", str(restart))

    # -- what SLURM says

    def slurm(self, *command: str) -> str:
        done = self.tried(*command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def tried(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "SLURM_CONF": str(self.base / "slurm.conf")}
        return subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=180)

    def submit(self, *arguments: str) -> str:
        return self.slurm("sbatch", "--parsable", "--output=/dev/null", *arguments)

    def job(self, job: str) -> str:
        return self.slurm("scontrol", "show", "job", "-o", job)

    def state(self, job: str) -> str:
        """As SLURM writes it: RUNNING, PENDING, OUT_OF_MEMORY, …"""
        return self.job(job).partition(" JobState=")[2].partition(" ")[0]

    def states(self) -> list[str]:
        return self.slurm("sinfo", "-h", "-N", "-p", "low", "-o", "%t").split()

    def nodes(self) -> list[str]:
        return self.slurm("sinfo", "-h", "-N", "-p", "low", "-o", "%N").split()

    def limits_memory(self) -> bool:
        """Whether a job is held to its --mem here."""
        return (self.base / "cgroup" / "memory").exists()

    def empty(self) -> Cluster:
        """Without jobs, and every node idle."""
        for partition in ("low", "high"):
            self.slurm("scancel", "-p", partition)
        until(lambda: set(self.states()) == {"idle"}, "idle nodes")
        return self


def require() -> None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if any(shutil.which(program, path=path) is None for program in PROGRAMS):
        pytest.skip(f"no SLURM here: {INSTALL}")
    if os.getuid() != 0:
        pytest.skip("slurm/cluster needs root")


def processes(word: str) -> list[int]:
    """Of this word in their command line, this program aside."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if word.encode() in words and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


def left(base: Path) -> list[str]:
    """What still runs with the cluster's slurm.conf in its environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"SLURM_CONF={base}/slurm.conf".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "comm").read_text())
        except OSError:
            continue
    return found


def script(directory: Path, body: str) -> str:
    path = directory / "batch.sh"
    path.write_text(f"#!/bin/bash\n{body}\n")
    return str(path)


def words(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []
