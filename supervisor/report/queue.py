"""What SLURM's queue says of runs: one question for all of them, and its silence costs nothing.

A run directory remembers its job in `control/slurm.json`, written by `supervisor submit` or by the batch script
that submitted a successor; of a script of the user's own the journal knows. Text forms are read, since the
JSON ones change with each release.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.journal import JOURNAL, read

RECORD = Path("control") / "slurm.json"

#: Who looks at a status does not wait for a busy slurmctld [s].
PATIENCE_S = 2.0
#: squeue(1), JOB STATE CODES: a job in one of these is not coming back by itself.
OVER = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"}
    | {"REVOKED", "TIMEOUT"}
)
_JOB = re.compile(r"\d+(?:_\d+)?", re.ASCII)
_ALLOCATION = re.compile(r"(\d+)-\d+", re.ASCII)
_FORMAT = "%i|%A|%T|%S|%r"


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that a run was submitted as.

    Attributes:
        job_id: of the job; of an array's task both numbers, as in `17_3`.
        submitted: when [unix s]; None where it is not known.
        cluster: where; None for the one that there is.
        script: what was submitted, for whoever has to do it once more; None where it is not known.
    """

    job_id: str
    submitted: float | None = None
    cluster: str | None = None
    script: str | None = None

    def encode(self) -> str:
        """The record as the file holds it."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__}) + "\n"

    @staticmethod
    def parse(text: str) -> Submitted | None:
        """Read back what `encode` gave; None for anything else.

        >>> Submitted.parse(Submitted("17_3", 5.0).encode())
        Submitted(job_id='17_3', submitted=5.0, cluster=None, script=None)
        >>> Submitted.parse('{"job_id": "--help"}') is None
        True
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(values, dict) or not _JOB.fullmatch(str(values.get("job_id"))):
            return None
        submitted, cluster = values.get("submitted"), values.get("cluster")
        return Submitted(
            str(values["job_id"]),
            float(submitted) if isinstance(submitted, int | float) else None,
            cluster if isinstance(cluster, str) and re.fullmatch(r"\w[\w.-]*", cluster, re.ASCII) else None,
            values["script"] if isinstance(values.get("script"), str) else None,
        )


@dataclass(frozen=True, slots=True)
class Queued:
    """A job as the queue shows it.

    Attributes:
        job_id: as a person would name it to SLURM.
        state: SLURM's word, such as PENDING.
        reason: why it waits; None where there is none.
        expected_start: of a job that waits, where SLURM foresees it [unix s].
    """

    job_id: str
    state: str
    reason: str | None = None
    expected_start: float | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended for good."""
        return self.state in OVER

    def as_json(self) -> dict[str, Any]:
        """As `status --json` has it."""
        return {name: getattr(self, name) for name in self.__slots__}


def jobs_of(run_dir: Path) -> list[Submitted]:
    """The jobs that a run may be in the queue as: the one it was submitted as, and that of its last allocation.

    Raises:
        DiskError: the journal cannot be read.
    """
    found = []
    try:
        record = Submitted.parse((run_dir / RECORD).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        record = None
    if record is not None:
        found.append(record)
    allocations = [r.text("allocation") for r in read(run_dir / JOURNAL) if r.event == "allocation_started"]
    if allocations and (match := _ALLOCATION.fullmatch(allocations[-1] or "")):
        found.append(Submitted(match[1], None, record.cluster if record is not None else None))
    return found


def ask(jobs: Iterable[Submitted], patience_s: float = PATIENCE_S) -> dict[str, Queued] | None:
    """What the queue shows of jobs, by every id that names them; a job that it has forgotten is missing.

    Args:
        jobs: all that are asked about; one question a cluster.
        patience_s: how long to wait for an answer [s].

    Returns:
        None if there is no SLURM here, or it did not answer.
    """
    clusters: dict[str | None, set[str]] = {}
    for job in jobs:
        clusters.setdefault(job.cluster, set()).add(job.job_id)
    found: dict[str, Queued] = {}
    for cluster, ids in clusters.items():
        where = ["-M", cluster] if cluster is not None else []
        command = ["squeue", *where, "-h", "-r", "-t", "all", "-o", _FORMAT, "-j", ",".join(sorted(ids))]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=patience_s,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        if done.returncode != 0 and "Invalid job id" not in done.stderr:
            return None  # of one job that it has forgotten squeue says so; of several it passes over it
        found |= parse(done.stdout)
    return found


def parse(text: str) -> dict[str, Queued]:
    """Read lines of `squeue -o '%i|%A|%T|%S|%r'`.

    >>> parse("21_2|23|PENDING|N/A|Priority")["23"]
    Queued(job_id='21_2', state='PENDING', reason='Priority', expected_start=None)
    """
    found = {}
    for line in text.splitlines():
        name, separator, rest = line.strip().partition("|")
        parts = rest.split("|", 3)
        if not separator or len(parts) != 4 or not _JOB.fullmatch(name):
            continue
        number, state, start, reason = parts
        waits = state == "PENDING"
        queued = Queued(name, state, None if reason == "None" else reason, _time(start) if waits else None)
        # The number of an array's last task is the array's own, so a name as it stands comes first.
        found[name] = queued
        found.setdefault(number, queued)
    return found


def queue_of(jobs: Sequence[Submitted], told: Mapping[str, Queued] | None) -> Queued | None:
    """Which of a run's jobs counts: the one that is not over, else the one that the run was submitted as.

    >>> told = {"7": Queued("7", "COMPLETED"), "9": Queued("9", "PENDING")}
    >>> queue_of([Submitted("7"), Submitted("9")], told)
    Queued(job_id='9', state='PENDING', reason=None, expected_start=None)
    """
    known = [told[job.job_id] for job in jobs if job.job_id in told] if told else []
    return next((one for one in known if not one.over), known[0] if known else None)


def _time(word: str) -> float | None:
    """SLURM prints local time without a zone."""
    try:
        return time.mktime(time.strptime(word, "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return None  # N/A
