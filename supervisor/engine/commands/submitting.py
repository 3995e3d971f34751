"""`supervisor submit`: from a job file to a job in SLURM's queue.

Whatever would refuse the run on its nodes refuses it here, before it has waited for them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.engine.commands.prefetching import is_prefetched
from supervisor.engine.commands.sweeping import Run, runs_of
from supervisor.engine.opening import Terms, check_terms, history, is_done, make_directory
from supervisor.errors import DiskError, JobError, OwnedError
from supervisor.job import Job, check_program, load_job
from supervisor.job.file import apply_override, read_document
from supervisor.journal import JOURNAL, read
from supervisor.launch.submission import Batch, checked, script, send
from supervisor.lease import RENEW_EVERY_S, read_lease
from supervisor.lock import locked
from supervisor.owner import Life, life, this_process
from supervisor.policy.request import board_bytes, least_bytes, memory_bytes
from supervisor.report.fold import fold
from supervisor.report.queue import RECORD, Submitted, ask, jobs_of, queue_of
from supervisor.whole import write_whole

#: What a submission may take; nobody waits for it in training [s].
PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What was submitted, or would be.

    Attributes:
        job_id: of the job, or of the whole array; None if nothing was submitted.
        run_dir: of the run; of a sweep, the directory that holds its runs.
        script: what SLURM got, byte for byte.
        runs: of a sweep: run directory and overrides of each.
        remarks: what a user should know.
    """

    job_id: str | None
    run_dir: Path
    script: str
    runs: tuple[Run, ...] = ()
    remarks: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """One JSON document."""
        told: dict[str, Any] = {"job_id": self.job_id, "run_dir": str(self.run_dir), "script": self.script}
        if self.runs:
            told["runs"] = [
                {
                    "job_id": None if self.job_id is None else f"{self.job_id}_{index}",
                    "run_dir": str(run.job.run_dir),
                    "set": list(run.words[1::2]),
                }
                for index, run in enumerate(self.runs)
            ]
        return told


def submit(
    path: Path,
    overrides: Sequence[str],
    sweeps: Sequence[str],
    terms: Terms,
    *,
    dry_run: bool,
    wait: Callable[[float], None],
) -> Submission:
    """Submit a job, or an array of them, unless it is in the queue or runs already.

    Args:
        path: of the job file.
        overrides: `a.b=value` each.
        sweeps: `a.b=V1,V2,…` each; a run for each combination.
        terms: how an earlier run is to be gone on with, at the first start of this submission.
        dry_run: say what would be submitted, and do nothing.
        wait: how to let seconds pass.

    Raises:
        JobError: the job cannot work.
        OwnedError: it is in the queue, or runs.
        MachineError: SLURM is not here, or refuses.
    """
    first = load_job(path, overrides)
    parameters = checked(first.slurm, first.launch.nodes, _places(path, overrides))
    runs = runs_of(first, path, overrides, sweeps)
    done = [_check(run.job, terms) for run in runs]
    if all(done):
        raise JobError(f"the run in {first.run_dir} has finished", "ask for more steps, or choose another `run_dir`")
    _refuse_queued([run.job.run_dir for run in runs], wait)
    batch = _batch(first, path, overrides, runs if sweeps else None, terms)
    text = script(batch, parameters)
    made = Submission(
        job_id=None,
        run_dir=first.run_dir,
        script=text,
        runs=tuple(runs) if sweeps else (),
        remarks=(*_remarks_on_memory(first, parameters), *_remarks_on_prefetch(runs)),
    )
    if dry_run:
        return made
    _make(first.run_dir)
    for run in runs:
        make_directory(run.job.run_dir)
        for name in ("control", "logs"):
            (run.job.run_dir / name).mkdir(mode=0o700, exist_ok=True)
    control = first.run_dir / "control"
    control.mkdir(mode=0o700, exist_ok=True)
    with locked(control / "submit.lock", this_process(), wait=wait):
        _refuse_queued([run.job.run_dir for run in runs], wait)
        if batch.tasks is not None:
            write_whole(batch.tasks, "".join("\t".join([str(r.job.run_dir), *r.words]) + "\n" for r in runs))
        for begun in control.glob("begun-*"):
            begun.rmdir()  # of a start that came no further, or long ago
        write_whole(control / "slurm.sbatch", text)
        receipt = send(control / "slurm.sbatch", os.environ)
        for index, run in enumerate(runs):
            job_id = f"{receipt.job_id}_{index}" if sweeps else receipt.job_id
            record = Submitted(job_id, time.time(), receipt.cluster, str(control / "slurm.sbatch"))
            write_whole(run.job.run_dir / RECORD, record.encode())
    return Submission(job_id=receipt.job_id, run_dir=made.run_dir, script=text, runs=made.runs, remarks=made.remarks)


def _make(directory: Path) -> None:
    """Make the directory of a run, or of a sweep's runs.

    Raises:
        DiskError: that is refused.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"{directory}: {error.strerror}", "choose another with `run_dir`") from error


def _check(job: Job, terms: Terms) -> bool:
    """Refuse what the run's first minute would refuse; whether it would find nothing to do.

    Raises:
        SupervisorError: as `supervisor run` would.
    """
    ledger = history(job.run_dir)
    check_terms(job, ledger, terms)
    check_program(job, Path.cwd())
    return is_done(job, ledger, terms)


def _refuse_queued(run_dirs: Sequence[Path], wait: Callable[[float], None]) -> None:
    """Refuse runs that are in the queue, or have a living owner. SLURM is asked once for all of them.

    Raises:
        OwnedError: one is, or that cannot be found out.
    """
    jobs = {run_dir: jobs_of(run_dir) for run_dir in run_dirs}
    every = [job for found in jobs.values() for job in found]
    told = ask(every, PATIENCE_S) if every else {}
    for run_dir, found in jobs.items():
        if found and told is None:
            raise OwnedError(
                f"whether job {found[0].job_id} of {run_dir} is still in the queue cannot be asked",
                "try again when squeue answers",
            )
        queued = queue_of(found, told)
        if queued is not None and not queued.over:
            raise OwnedError(
                f"{run_dir} is job {queued.job_id} already ({queued.state})",
                f"`supervisor status {run_dir}` shows it, `scancel {queued.job_id}` takes it away",
            )
        _refuse_owned(run_dir, wait, job_over=bool(found))


def _refuse_owned(run_dir: Path, wait: Callable[[float], None], *, job_over: bool) -> None:
    """Refuse a run that somebody leads.

    An owner elsewhere that did not release may be the job that is over; without a job it is watched
    while it would renew the lease.

    Raises:
        OwnedError: somebody does.
    """
    before = read_lease(run_dir)
    if before is None or before.owner is None:
        return
    lives = life(before.owner, this_process())
    if lives is Life.UNKNOWN and not job_over:
        wait(2 * RENEW_EVERY_S)
        lives = Life.DEAD if read_lease(run_dir) == before else Life.ALIVE
    if lives is Life.ALIVE:
        raise OwnedError(
            f"{run_dir} is being run by process {before.owner.pid} on {before.owner.host}",
            f"let it go on, or `supervisor stop {run_dir}` first",
        )


def _batch(job: Job, path: Path, overrides: Sequence[str], runs: Sequence[Run] | None, terms: Terms) -> Batch:
    if runs is not None and terms != Terms():
        raise JobError("a sweep's runs have no past", "give --fresh, --forgive or --accept-changes to one of them")
    for place in (path.absolute(), Path.cwd()):
        if not str(place).isprintable():
            raise JobError(f"{str(place)!r} cannot be written into a script", "rename it")
    starts = sum(record.event == "run_started" for record in read(job.run_dir / JOURNAL))
    command = ["-m", "supervisor", "run", str(path.absolute())]
    for override in overrides:
        command += ["--set", override]
    # Of a sweep, the task's number is in the name of its directory.
    home = job.run_dir if runs is None else job.run_dir / f"{job.name}-%a"
    log = str(job.run_dir).replace("%", "%%") + str(home)[len(str(job.run_dir)) :] + "/logs/slurm-%j.log"
    return Batch(
        name=job.name,
        nodes=job.launch.nodes,
        command=tuple(command),
        run_dir=job.run_dir,
        cwd=Path.cwd(),
        log=log,
        offline=all(is_prefetched(run.job) for run in runs or [Run(job=job, words=())]),
        tasks=None if runs is None else job.run_dir / "tasks.tsv",
        count=0 if runs is None else len(runs),
        once=tuple(f"--{name.replace('_', '-')}" for name in terms.__slots__ if getattr(terms, name)),
        begun=job.run_dir / "control" / f"begun-{starts}",
    )


def _remarks_on_prefetch(runs: Sequence[Run]) -> list[str]:
    if any(is_prefetched(run.job) is False for run in runs):
        return ["what was prefetched is for another model or other data, so the job will ask the hub"]
    return []


def _remarks_on_memory(job: Job, parameters: dict[str, Any]) -> list[str]:
    """What is to be said of the memory that is asked for: SLURM counts the board as the job's."""
    last = fold(read(job.run_dir / JOURNAL)).last_commit
    size = last.bytes if last is not None else None
    if not any(key in parameters for key in ("mem", "mem_per_cpu", "mem_per_gpu")):
        more = "" if size is None else f": {_mib(board_bytes(size))} for this run"
        return [f"no memory is asked for, so the partition's default holds; the board takes 4 times the state{more}"]
    asked = memory_bytes(parameters.get("mem"))
    processes = job.launch.processes_per_node
    if processes == "auto":
        gpus = parameters.get("gpus_per_node", 1)
        processes = gpus if isinstance(gpus, int) and gpus > 0 else 1
    if size is not None and asked is not None and asked < least_bytes(size, processes):
        least = f"{_mib(board_bytes(size))} for the board and 1 GiB for each of {processes} processes"
        return [f"slurm.mem is {_mib(asked)}, too little for {least}, the model not counted"]
    return []


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"


def _places(path: Path, overrides: Sequence[str]) -> Callable[[str], str]:
    """Where each key of the section `slurm` stands."""
    document = read_document(path)
    for override in overrides:
        apply_override(document, override)
    return lambda key: document.where(("slurm", *key.split(".")))
