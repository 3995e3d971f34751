"""`supervisor stop`: ask the owner of a run to drain and stay stopped, from any machine that sees it."""

from __future__ import annotations

import time
from pathlib import Path

from supervisor.errors import OwnedError
from supervisor.launch.slurm import cancel
from supervisor.lease import read_lease
from supervisor.owner import Life, life, this_process
from supervisor.report.find import check_run
from supervisor.report.queue import ask, jobs_of, queue_of
from supervisor.watch.requests import ask_stop

#: A drain takes at most a few seconds; an owner that is silent for longer is reported.
PATIENCE_S = 60.0


def stop(run_dir: Path, *, wait: bool) -> str:
    """Leave the request, and wait until the owner has obeyed.

    Args:
        run_dir: of the run.
        wait: until the run has stopped.

    Returns:
        What happened, for people.

    Raises:
        JobError: the directory holds no run.
        OwnedError: nobody runs it and no job of it waits, or its owner does not answer.
    """
    check_run(run_dir)
    if not _owned(run_dir):
        return _cancel(run_dir)
    ask_stop(run_dir, time.time())
    if not wait:
        return f"{run_dir} was asked to stop"
    until_s = time.monotonic() + PATIENCE_S
    while _owned(run_dir):
        if time.monotonic() > until_s:
            raise OwnedError(
                f"the owner of {run_dir} has not stopped within {PATIENCE_S:.0f} s", "see `supervisor status`"
            )
        time.sleep(0.1)
    job = run_dir / "job.yaml"  # as the run last had it, whatever the file is called that it was started with
    same = f", or `supervisor run {job}`," if job.is_file() else ""
    return f"{run_dir} has stopped; the same command as before{same} goes on from there"


def _cancel(run_dir: Path) -> str:
    """Take the job of a run that only waits in the queue out of it.

    Raises:
        OwnedError: it does not wait there, or may not be taken out.
    """
    jobs = jobs_of(run_dir)
    waiting = queue_of(jobs, ask(jobs)) if jobs else None
    if waiting is None or waiting.over:
        raise OwnedError(f"nobody runs {run_dir} now", "`supervisor status` tells where it stands")
    cluster = next((job.cluster for job in jobs if job.job_id == waiting.job_id), None)
    said = cancel(waiting.job_id, cluster)
    if not said.ok:
        raise OwnedError(
            f"job {waiting.job_id} waits in the queue and was not cancelled: {said.words}", "try `scancel`"
        )
    return f"job {waiting.job_id}, which waited in the queue, is cancelled; `supervisor submit` goes on with {run_dir}"


def _owned(run_dir: Path) -> bool:
    """Whether somebody owns the run; on another machine that cannot be asked, whoever stands there."""
    record = read_lease(run_dir)
    if record is None or record.owner is None:
        return False
    return life(record.owner, this_process()) is not Life.DEAD
