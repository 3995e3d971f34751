"""The runs that a command is about: the one of the job file, or those of a sweep over it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from supervisor.errors import JobError
from supervisor.job import Job, load_job
from supervisor.job.sweep import combinations
from supervisor.journal import JOURNAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run.

    Attributes:
        job: checked.
        words: what its command line has beyond the job file.
    """

    job: Job
    words: tuple[str, ...]


def runs_of(first: Job, path: Path, overrides: Sequence[str], sweeps: Sequence[str]) -> list[Run]:
    """The job's own run; of a sweep, a run for each combination, with a directory of its own in that of the job.

    Args:
        first: the job without the sweep.
        path: of the job file.
        overrides: `a.b=value` each.
        sweeps: `a.b=V1,V2,…` each.

    Raises:
        JobError: one of them cannot work, or the directory is a run's.
    """
    if not sweeps:
        return [Run(job=first, words=())]
    found = combinations(sweeps)
    if (first.run_dir / JOURNAL).exists():
        raise JobError(f"{first.run_dir} holds a run", "give the sweep a name of its own: --set name=…")
    runs = []
    for index, chosen in enumerate(found):
        name = f"{first.name}-{index}"
        directory = first.run_dir / name
        own = (*chosen, f"name={name}", f"run_dir={json.dumps(str(directory), ensure_ascii=False)}")
        job = load_job(path, [*overrides, *own])
        if job.run_dir != directory or not str(directory).isprintable():
            raise JobError(f"{directory} cannot be written into a list of runs", "choose another `run_dir`")
        runs.append(Run(job=job, words=tuple(word for one in own for word in ("--set", one))))
    return runs
