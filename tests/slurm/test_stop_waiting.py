"""A run that only waits in the queue is stopped by taking its job out of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml
from harness import PROGRAMS, until
from one_machine import Cluster


def test_stop_takes_a_job_out_of_the_queue_that_has_not_begun(cluster: Cluster, tmp_path: Path) -> None:
    job = {
        "program": str(PROGRAMS / "gives_back.py"),
        "run_dir": str(tmp_path / "run"),
        "slurm": {"partition": "low", "time": 10, "additional_parameters": {"hold": True}},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))

    def supervisor(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "SLURM_CONF": str(cluster.base / "slurm.conf")}
        command = [sys.executable, "-m", "supervisor", *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)

    submitted = supervisor("submit", str(tmp_path / "job.yaml"))
    assert submitted.returncode == 0, submitted.stderr
    number = submitted.stdout.strip()
    stopped = supervisor("stop", str(tmp_path / "run"))
    assert stopped.returncode == 0, stopped.stderr
    assert f"job {number}, which waited in the queue, is cancelled" in stopped.stderr
    until(lambda: "JobState=CANCELLED" in cluster.job(number), "cancelled job")
    again = supervisor("stop", str(tmp_path / "run"))
    assert again.returncode == 2
    assert "nobody runs" in again.stderr
