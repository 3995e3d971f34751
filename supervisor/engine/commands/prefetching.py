"""`supervisor prefetch`: on a machine with network, what nodes without will need.

The work is done by a process of its own, since it needs transformers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from supervisor.engine.commands.sweeping import runs_of
from supervisor.engine.opening import Terms, check_terms, history, make_directory
from supervisor.errors import JobError
from supervisor.job import Job, check_program, is_ours, load_job, resolved_yaml
from supervisor.whole import write_whole

PREFETCHED = Path("control") / "prefetched.json"


def prefetch(path: Path, overrides: Sequence[str], sweeps: Sequence[str] = ()) -> list[Path]:
    """Bring model, tokenizer and tokens to where the nodes will look for them.

    Args:
        path: of the job file.
        overrides: `a.b=value` each.
        sweeps: `a.b=V1,V2,…` each, as they are to be submitted.

    Returns:
        The marker of each run, at which its job no longer asks the hub.

    Raises:
        JobError: the job cannot work, something is not to be had, or nobody here knows what the program needs.
    """
    job = load_job(path, overrides)
    if not is_ours(job.program):
        raise JobError(
            f"what {job.program} downloads cannot be known from here",
            "run it once where there is network, or fetch its model with `hf download`; then set "
            "`env: {HF_HUB_OFFLINE: 1}`",
        )
    return [_bring(run.job) for run in runs_of(job, path, overrides, sweeps)]


def _bring(job: Job) -> Path:
    """Bring what one run needs.

    Raises:
        JobError: something is not to be had.
    """
    check_terms(job, history(job.run_dir), Terms())
    check_program(job, Path.cwd())
    make_directory(job.run_dir)
    control = job.run_dir / "control"
    control.mkdir(mode=0o700, exist_ok=True)
    asked = control / "prefetch.yaml"
    write_whole(asked, resolved_yaml(job))
    command = [sys.executable, "-m", "jobs.lora_prefetch", str(asked)]
    # Its words are talk; stdout is for data.
    if subprocess.run(command, check=False, env={**os.environ, **job.env}, stdout=sys.stderr).returncode != 0:
        raise JobError("not everything was brought", "see the lines above")
    return job.run_dir / PREFETCHED


def is_prefetched(job: Job) -> bool | None:
    """Whether everything that a job needs was brought; None if nothing ever was."""
    try:
        marker: Any = json.loads((job.run_dir / PREFETCHED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    wanted = marker.get("args") if isinstance(marker, dict) else None
    if not isinstance(wanted, dict) or not isinstance(job.args, dict):
        return False
    return {key: job.args.get(key) for key in wanted} == wanted
