"""A run that was submitted to a SLURM of the test's own with slurm/run.sbatch, and how it is ended there."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.journal import Record, read_run
from tests.harness import Run, until
from tests.slurm.one_machine import Cluster

ROOT = Path(__file__).parents[2]
#: What a submission may wait for on a busy machine: imports of torch, twice [s].
START_S = 240.0
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "PREEMPTED")


@dataclass(frozen=True)
class Submitted:
    """A job, and the run that it is for."""

    cluster: Cluster
    run: Run
    job: str

    @staticmethod
    def submit(cluster: Cluster, run: Run, *options: str) -> Submitted:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        job = cluster.slurm(
            "sbatch",
            "--parsable",
            "--partition=low",
            f"--export=ALL,PYTHONPATH={ROOT},PATH={path}",
            f"--output={run.base}/slurm.log",
            *options,
            str(ROOT / "slurm" / "run.sbatch"),
            str(run.write_job()),
        )
        return Submitted(cluster, run, job)

    # -- what is seen of it

    def told(self, event: str) -> list[Record]:
        """The journal's, and what members without a leader wrote."""
        return [record for record in read_run(self.run.run_dir) if record.event == event]

    def step(self) -> int:
        """Newest step that every rank has traced; what stands in shared memory may be another machine's."""
        if not all((self.run.out / f"trace-{rank}.jsonl").exists() for rank in range(2)):
            return 0
        return min(max((line["step"] for line in self.run.trace(rank)), default=0) for rank in range(2))

    def shown(self, name: str) -> str:
        found = re.search(rf" {name}=(\S*)", self.cluster.tried("scontrol", "show", "job", "-o", self.job).stdout)
        return found[1] if found is not None else ""

    def verdict(self, restart: int = 0) -> dict[str, str]:
        path = self.run.run_dir / "verdicts" / f"{self.job}-{restart}.json"
        found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def processes(self, node: str) -> list[int]:
        """Workers of the run that live on a node."""
        mine = {f"SLURM_CONF={self.cluster.base}/slurm.conf".encode(), f"SLURMD_NODENAME={node}".encode()}
        found = []
        for pid in self.run.workers():
            try:
                if mine <= set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")):
                    found.append(pid)
            except OSError:
                continue
        return found

    def supervisor(self, node: str) -> int:
        """The process that leads there, or is a member."""
        mine = {f"SLURM_CONF={self.cluster.base}/slurm.conf".encode(), f"SLURMD_NODENAME={node}".encode()}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                environment = set((process / "environ").read_bytes().split(b"\0"))
            except OSError:
                continue
            step = not {b"SLURM_STEP_ID=0", f"SLURM_JOB_ID={self.job}".encode()} - environment
            if step and mine <= environment and words[1:2] and words[1].endswith(b"/supervisor"):
                return int(process.name)
        raise AssertionError(f"no supervisor on {node}")

    def nodes(self) -> list[str]:
        """Those that it runs on, the batch host first."""
        return self.cluster.slurm("scontrol", "show", "hostnames", self.shown("NodeList")).split()

    def log(self) -> str:
        return (self.run.base / "slurm.log").read_text(errors="replace")

    # -- what is waited for

    def at_step(self, step: int) -> None:
        self.until(lambda: self.step() >= step, f"step {step}", START_S)

    def left(self, restart: int = 0) -> dict[str, str]:
        """Until an incarnation has left its last word."""
        self.until(lambda: self.verdict(restart).get("requeue") in ("done", "no"), f"verdict {restart}", 400.0)
        return self.verdict(restart)

    def again(self, restart: int) -> None:
        """Until it has been requeued so often; started at once then."""
        self.cluster.now(self.job, restart)

    def over(self) -> str:
        """Until it is over for SLURM: its state."""
        self.until(lambda: self.shown("JobState") in OVER, "end of the job", START_S)
        return self.shown("JobState")

    def until(self, condition: Any, what: str, patience_s: float) -> None:
        try:
            until(condition, what, patience_s)
        except AssertionError as error:
            seen = self.cluster.tried("scontrol", "show", "job", "-o", self.job).stdout
            raise AssertionError(f"{error}\n{seen}\n{self.log()}") from None

    # -- what is done to it

    def preempt(self) -> None:
        """By a job that needs just these nodes."""
        nodes = self.nodes()
        count = str(len(nodes))
        words = ("-p", "high", "-w", ",".join(nodes), "-N", count, "-n", count, "--exclusive", "--mem=10")
        self.cluster.submit(*words, "--wrap", "true")

    def lose(self, node: str, others: list[str]) -> float:
        """A node fails; how long it took until no worker of the other nodes lived [s]."""
        began_s = time.monotonic()
        self.cluster.fail(node)
        self.until(lambda: not any(self.processes(other) for other in others), "end of the other nodes' workers", 60.0)
        return time.monotonic() - began_s
