"""SLURM, through `scontrol`: what is seen of our own job, and its way back into the queue.

The only door to it at run time. Text forms are read, since they hold from 21.08 to 25.11,
while the JSON ones change with each release. Nothing is asked in a loop: once at the start, for
the real end of the allocation, and once when the end is near, to learn why.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

from supervisor.policy.scheduler import JobSeen

#: slurmctld may be busy, but whoever asks has little time left [s].
ASK_S = 5.0
_FIELD = re.compile(r"(?:^|\s)([A-Za-z]+)=(\S*)")
_LIMIT = re.compile(r"(?:(\d+)-)?(\d+):(\d+):(\d+)")


@dataclass(frozen=True, slots=True)
class Incarnation:
    """One stay of a job with its nodes.

    Attributes:
        job_id: of the job; for an array's task the task's own id.
        restart: how often it was requeued before.
    """

    job_id: str
    restart: int

    @property
    def name(self) -> str:
        """As the verdict's file is called.

        >>> Incarnation("17", 2).name
        '17-2'
        """
        return f"{self.job_id}-{self.restart}"


def incarnation(environment: Mapping[str, str]) -> Incarnation | None:
    """The job that this process belongs to; None outside of one.

    >>> incarnation({"SLURM_JOB_ID": "17"}), incarnation({"SLURM_JOB_ID": "x; rm"})
    (Incarnation(job_id='17', restart=0), None)
    """
    job_id, restart = environment.get("SLURM_JOB_ID", ""), environment.get("SLURM_RESTART_COUNT", "0")
    if not job_id.isascii() or not job_id.isdigit():
        return None
    return Incarnation(job_id, int(restart) if restart.isascii() and restart.isdigit() else 0)


def ask(job_id: str) -> JobSeen | None:
    """What SLURM shows of a job; None if it cannot be asked."""
    try:
        done = _scontrol("show", "job", "-o", job_id)
    except (OSError, subprocess.TimeoutExpired):
        return None
    # Asked from a thread, the loop may have reaped it first, and its exit code is lost: then the text decides.
    return parse(done.stdout) if done.returncode == 0 else None


def requeue(job_id: str) -> str | None:
    """Put the job back into the queue; None if that was done, else why not."""
    try:
        done = _scontrol("requeue", job_id)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"scontrol requeue: {error}"
    if done.returncode == 0:
        return None
    said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
    return f"scontrol requeue: {said}"


def parse(text: str) -> JobSeen | None:
    """Read one line of `scontrol show job -o`; None if it is none.

    >>> parse("JobId=5 JobName=a JobState=RUNNING Requeue=1 Restarts=2 TimeLimit=1-00:00:10 PreemptTime=None").limit_s
    86410.0
    """
    # A job's name may hold anything, even `JobState=`; it comes first, the user's comments come last.
    fields = dict(reversed(_FIELD.findall(text.partition(" UserId=")[2] or text)))
    if "JobState" not in fields:
        return None
    restarts = fields.get("Restarts", "")
    return JobSeen(
        state=fields["JobState"].partition("+")[0],
        restarts=int(restarts) if restarts.isdigit() else None,
        may_requeue={"1": True, "0": False}.get(fields.get("Requeue", "")),
        start_s=_time(fields.get("StartTime")),
        end_s=_time(fields.get("EndTime")),
        limit_s=_duration(fields.get("TimeLimit")),
        preempted_s=_time(fields.get("PreemptTime")),
    )


def _scontrol(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["scontrol", *arguments],
        capture_output=True,
        text=True,
        timeout=ASK_S,
        check=False,
        stdin=subprocess.DEVNULL,
        errors="replace",
    )


def _time(word: str | None) -> float | None:
    """SLURM prints local time without a zone."""
    try:
        return time.mktime(time.strptime(word or "", "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return None  # None, Unknown, N/A


def _duration(word: str | None) -> float | None:
    match = _LIMIT.fullmatch(word or "")
    if match is None:
        return None  # UNLIMITED, Partition_Limit
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
