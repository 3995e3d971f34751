"""A job's own script, submitted once more: the way back for a job that may not be requeued.

The new job starts when this one has ended. What its script says in `#SBATCH` lines it says again; what was
said on the command line is read from SLURM's own record of the job, unless whoever submitted it has left the words
in `control/slurm.json`.

What this does *not* bring along: options that SLURM's record does not show in one word (`--signal`,
`--no-kill`, mail), and arguments of the script that hold spaces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.launch.slurm import Incarnation, run
from supervisor.launch.slurm_text import fields_of
from supervisor.policy.handback import Answer, Said

#: Set in a job that was submitted to start once others are over: their ids, with commas. No lease of theirs is watched.
AFTER = "SUPERVISOR_AFTER"
#: How long a submission may take: a plugin of the site may look at it [s].
SUBMIT_S = 15.0
#: A job's fields, and the options that ask for the same.
_OPTIONS = {
    "Partition": "--partition",
    "Account": "--account",
    "QOS": "--qos",
    "Reservation": "--reservation",
    "TimeLimit": "--time",
    "NumNodes": "--nodes",
    "NumTasks": "--ntasks",
    "CPUs/Task": "--cpus-per-task",
    "MinMemoryNode": "--mem",
    "MinMemoryCPU": "--mem-per-cpu",
    "TresPerNode": "--gres",
    "TresPerJob": "--gpus",
    "Features": "--constraint",
    "Licenses": "--licenses",
    "ReqNodeList": "--nodelist",
}
#: What stands there for nothing.
_NOTHING = ("", "0", "(null)", "N/A", "UNLIMITED", "Partition_Limit", "INVALID")
#: Of this job and its step, and wrong in the next one. Which cluster it is stays.
_STALE = ("SLURM_", "SLURMD_", "SRUN_", "PMI_", "PMIX_", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_")
_KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT")


@dataclass(frozen=True, slots=True)
class Script:
    """What is to be submitted.

    Attributes:
        path: of the script.
        options: for `sbatch`.
        arguments: for the script.
    """

    path: Path
    options: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()


def resubmit(
    at: Incarnation, run_dir: Path, excluded: Sequence[str], environment: Mapping[str, str], timeout_s: float
) -> Said:
    """Submit the job's own script, to start when the job has ended.

    Args:
        at: the job.
        run_dir: its run's directory.
        excluded: nodes that the new job is not to get.
        environment: of this process; the new job gets it without what belongs to this one.
        timeout_s: how long this may take [s].

    Returns:
        The new job as SLURM is asked for it, or why there is none.
    """
    script = recorded(run_dir, at) or _from_slurm(at, run_dir, timeout_s)
    if isinstance(script, Said):
        return script
    told = {key: value for key, value in environment.items() if key in _KEPT or not key.startswith(_STALE)}
    said = run(
        "sbatch",
        *command(script, at.task, excluded, environment),
        timeout_s=min(SUBMIT_S, timeout_s),
        environment={**told, AFTER: at.job_id},
    )
    if isinstance(said, Said):
        return said
    new = said.strip().splitlines()[-1].partition(";")[0] if said.strip() else ""
    if not new.isascii() or not new.isdigit():
        return Said(Answer.REFUSED, f"sbatch printed {said[:200]!r} instead of a job id")
    number = at.task.partition("_")[2]
    return Said(Answer.DONE, f"{new}_{number}" if number else new)


def command(script: Script, task: str, excluded: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The arguments of `sbatch`.

    >>> command(Script(Path("/r/run.sbatch"), arguments=("job.yaml",)), "7_4", ["n1"], {"SLURM_JOB_NAME": "a b"})
    ... # doctest: +NORMALIZE_WHITESPACE
    ['--parsable', '--dependency=afterany:7_4', '--open-mode=append', '--job-name=a b', '--array=4',
     '--exclude=n1', '/r/run.sbatch', 'job.yaml']
    """
    name, number = environment.get("SLURM_JOB_NAME"), task.partition("_")[2]
    return [
        "--parsable",
        f"--dependency=afterany:{task}",
        "--open-mode=append",
        *([f"--job-name={name}"] if name else []),
        *([f"--array={number}"] if number else []),
        *([f"--exclude={','.join(excluded)}"] if excluded else []),
        *script.options,
        str(script.path),
        *script.arguments,
    ]


def recorded(run_dir: Path, at: Incarnation) -> Script | None:
    """What whoever submitted this job has left in `control/slurm.json`; None if it tells of another job."""
    try:
        told: Any = json.loads((run_dir / "control" / "slurm.json").read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(told, dict) or str(told.get("job_id")) not in (at.job_id, at.task, at.task.partition("_")[0]):
        return None
    path = told.get("script")
    if not isinstance(path, str) or not Path(path).is_file():
        return None
    return Script(Path(path), _strings(told.get("options")), _strings(told.get("arguments")))


def record(run_dir: Path, new: str) -> None:
    """Let `control/slurm.json`, where there is one, name the job that now stands for the run."""
    path = run_dir / "control" / "slurm.json"
    try:
        told: Any = json.loads(path.read_text())
        partial = path.with_name(f".{path.name}.new")
        partial.write_text(json.dumps({**told, "job_id": new}) + "\n")
        partial.chmod(0o600)
        partial.replace(path)
    except (OSError, ValueError, TypeError):
        return  # a courtesy: the verdict and the journal name it, too


def described(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The options and the script's arguments in a job's line.

    >>> line = "JobId=7 JobName=a UserId=me(1) GroupId=me(1) TimeLimit=01:00:00 Partition=low NumNodes=2 NumTasks=2"
    >>> described(f"{line} TresPerNode=gres:gpu:1 Command=/r/run.sbatch job.yaml WorkDir=/r")
    (('--partition=low', '--time=01:00:00', '--nodes=2', '--ntasks=2', '--gres=gpu:1'), ('job.yaml',))
    """
    line = text.splitlines()[0] if text.count("\n") == 1 else text
    started = re.search(r" Command=(.*?) (?:SubmitLine=.*? )?WorkDir=", line)
    return tuple(_options(line)), tuple(started[1].split(" ")[1:]) if started else ()


def _options(line: str) -> Iterator[str]:
    fields = fields_of(line)
    for field, option in _OPTIONS.items():
        value = re.sub(r"^gres[:/]", "", fields.get(field, ""))
        if value not in _NOTHING:
            yield f"{option}={value.removeprefix('gpu:') if option == '--gpus' else value}"
    # Of a path with spaces only a piece would be read.
    output = re.search(r" StdOut=(\S+)(?= [A-Z]\w+=| *$)", line.rstrip("\n"))
    if output is not None:
        yield f"--output={output[1]}"


def _from_slurm(at: Incarnation, run_dir: Path, timeout_s: float) -> Script | Said:
    """The script as SLURM keeps it, laid beside the run; SLURM takes a copy of its own."""
    text = run("scontrol", "write", "batch_script", at.task, "-", timeout_s=timeout_s)
    shown = run("scontrol", "show", "job", "-o", at.task, timeout_s=timeout_s)
    if isinstance(text, Said):
        return text
    if isinstance(shown, Said):
        return shown
    if not text.startswith("#!"):
        return Said(Answer.REFUSED, "scontrol write batch_script: no script was printed")
    path = run_dir / "control" / f"again-{at.job_id}.sbatch"
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)
    except OSError as error:
        return Said(Answer.REFUSED, f"{path}: {error.strerror}")
    return Script(path, *described(shown))


def _strings(told: object) -> tuple[str, ...]:
    return tuple(str(one) for one in told) if isinstance(told, list) else ()
