"""The batch script of a run, and its way into SLURM's queue: the only door to submitit.

submitit gives the names of the parameters and the `#SBATCH` lines made from them, no more. Nothing
of its way of running functions is used: no pickle, no result, no signal, no requeue. What runs on the nodes is
`batch.sh`, the same text that ends slurm/run.sbatch.

Nothing of a job file reaches a shell unquoted, except `setup` and `teardown`, which are shell by their nature.

What this does *not* protect against: a typo in `additional_parameters`, whose names sbatch alone knows.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from supervisor.errors import JobError, MachineError
from supervisor.launch.parameters import Where, check_carried, read
from supervisor.launch.resubmit import AFTER

#: An answer of sbatch that takes longer is none [s]; a site's submit plugin may take its time.
PATIENCE_S = 60.0
_LISTS = ("setup", "teardown", "srun_args")
#: What submitit sets unasked: its own signal, a limit of 5 minutes, its key, a second log.
_UNASKED = ("signal", "time", "wckey", "error")
#: How sbatch calls in its environment what it reads there before the script; the others are called as the option is.
_SBATCH = {"time": ("TIMELIMIT",), "requeue": ("REQUEUE", "NO_REQUEUE"), "mem": ("MEM_PER_NODE",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What is to be submitted.

    Attributes:
        name: of the job in the queue.
        nodes: how many take part.
        command: what runs on each node.
        run_dir: where the leader leaves its verdict; of a sweep, the directory that holds its runs.
        cwd: where the command is started.
        log: of the batch script; `%j` is the job's id, `%a` a sweep's task.
        offline: the hub is not to be asked.
        tasks: of a sweep, a file with a line for each run: its directory and the words that follow `command`,
            with a tab between.
        count: how many lines that file has.
        once: words that the command gets at the first start of this submission only.
        begun: a directory that marks that start.
    """

    name: str
    nodes: int
    command: tuple[str, ...]
    run_dir: Path
    cwd: Path
    log: str
    offline: bool = False
    tasks: Path | None = None
    count: int = 0
    once: tuple[str, ...] = ()
    begun: Path | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What SLURM has taken.

    Attributes:
        job_id: of the job, or of the whole array.
        cluster: where it was submitted to; None where there is only one.
    """

    job_id: str
    cluster: str | None = None


def names() -> list[str]:
    """The names that `slurm:` takes: submitit's."""
    from submitit import SlurmExecutor

    same = set(SlurmExecutor._equivalence_dict())
    return sorted((SlurmExecutor._valid_parameters() | same | {"python"}) - {"use_srun"})


def checked(given: Mapping[str, Any], nodes: int, where: Where) -> dict[str, Any]:
    """Hold the section `slurm:` against submitit's names, and give it back under SLURM's own.

    Args:
        given: as in the job file; names may bear submitit's prefix `slurm_`.
        nodes: what `launch.nodes` says.
        where: names the place of a key.

    Raises:
        JobError: a name that there is not (the nearest one is named), or a value that cannot work.
    """
    from submitit import SlurmExecutor

    found = read(given, names(), SlurmExecutor._equivalence_dict(), where)
    for name, only, instead in (
        ("nodes", nodes, "set launch.nodes"),
        ("ntasks_per_node", 1, "one supervisor runs per node: set launch.processes_per_node"),
    ):
        if found.pop(name, only) != only:
            raise JobError(f"slurm.{name} is not {only}", instead, where(name))
    return found


def script(batch: Batch, parameters: Mapping[str, Any]) -> str:
    """The batch script, byte for byte as it is submitted.

    Args:
        batch: what is to run.
        parameters: what `checked` gave back.

    Raises:
        JobError: SLURM has no way to write a value down.
    """
    kept = dict(parameters)
    own = {name: kept.pop(name, []) for name in _LISTS}
    command = [*shlex.split(kept.pop("python", shlex.quote(sys.executable))), *batch.command]
    lines = ["#!/bin/bash", "# Written by `supervisor submit`; slurm/run.sbatch says why it is as it is."]
    options = _options(batch, kept)
    lines += options
    if "#SBATCH --no-kill" in options:
        lines += ["export SLURM_NO_KILL=set"]  # srun is not told otherwise
    lines += ["", *own["setup"], f"cd -- {shlex.quote(str(batch.cwd))} || exit 1"]
    if batch.tasks is None:
        lines += [f"command=({shlex.join(command)})", f"run_dir={shlex.quote(str(batch.run_dir))}"]
    else:
        lines += [
            f"tasks={shlex.quote(str(batch.tasks))}",
            'IFS=$\'\\t\' read -r -a task < <(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" "$tasks")',
            '[ "${#task[@]}" -gt 1 ] || { echo "no line $((SLURM_ARRAY_TASK_ID + 1)) in $tasks" >&2; exit 1; }',
            f'command=({shlex.join(command)} "${{task[@]:1}}")',
            "run_dir=${task[0]}",
        ]
    if batch.once and batch.begun is not None:
        lines += ["# At the first start only: whichever way the job comes back, it goes on with what it has by then."]
        lines += [f"mkdir {shlex.quote(str(batch.begun))} 2>/dev/null && command+=({shlex.join(batch.once)})"]
    lines += [f"offline={1 if batch.offline else ''}", f"srun_args=({shlex.join(own['srun_args'])})"]
    lines += ["teardown() { :; }"] if not own["teardown"] else ["teardown() {", *own["teardown"], "}"]
    return "\n".join([*lines, "", body()])


def body() -> str:
    """What every batch script does once it knows what to run."""
    return (files("supervisor.launch") / "batch.sh").read_text(encoding="utf-8")


def send(path: Path, environment: Mapping[str, str]) -> Receipt:
    """Submit a batch script.

    Args:
        path: of the script.
        environment: of this process. What it says of a job that it runs in is kept from the new
            one, and what the script says itself is not overruled by it.

    Raises:
        MachineError: there is no SLURM here, or it refuses.
    """
    told = re.findall(r"^#SBATCH --([a-z-]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    try:
        done = subprocess.run(
            ["sbatch", "--parsable", str(path)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_S,
            check=False,
            stdin=subprocess.DEVNULL,
            env=_without_job(environment, told),
        )
    except FileNotFoundError as error:
        raise MachineError("there is no sbatch here", "submit on a login node of a SLURM cluster") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"sbatch: {error}", "see with `squeue --me` whether the job was taken") from error
    job_id, _, cluster = done.stdout.strip().partition(";")
    if done.returncode != 0 or not job_id.isdigit():
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        unset = "configuration source" in said  # slurm, src/common/read_config.c
        remedy = "submit on a login node of a SLURM cluster" if unset else "change the section `slurm` of the job file"
        raise MachineError(f"SLURM refuses the job ({said})", remedy)
    return Receipt(job_id, cluster or None)


def _options(batch: Batch, parameters: dict[str, Any]) -> list[str]:
    """The `#SBATCH` lines, made by submitit; its own wishes are left out.

    Raises:
        JobError: the log's path cannot be written there.
    """
    # The text alone is wanted. The executor that wraps this function asks for srun on this machine, and pickles.
    from submitit.slurm.slurm import _make_sbatch_string

    check_carried("run_dir", batch.log)
    ours: dict[str, Any] = {"requeue": True, "output": batch.log}
    given: Mapping[str, Any] = parameters.pop("additional_parameters", {})
    additional = {**ours, **{key: value for key, value in given.items() if value is not None}}
    if "no-requeue" in additional or additional["requeue"] is False:
        additional = {**additional, "requeue": False, "no-requeue": True}
    if parameters.get("stderr_to_stdout") is False and "error" not in additional:
        additional["error"] = f"{batch.log.removesuffix('.log')}.err"
    settings = {"job_name": batch.name, "nodes": batch.nodes, "ntasks_per_node": 1, **parameters}
    settings.setdefault("comment", f"supervisor run in {batch.run_dir}")
    for option in [one for one in additional if one.replace("-", "_") in names()]:
        settings[option.replace("-", "_")] = additional.pop(option)  # or it would stand there twice
    if "signal_delay_s" in parameters:
        additional.setdefault("signal", f"USR2@{parameters['signal_delay_s']}")
    text = _make_sbatch_string(
        command="",
        folder=batch.run_dir,
        use_srun=False,
        map_count=batch.count if batch.tasks is not None else None,
        additional_parameters={key: value for key, value in additional.items() if value is not False},
        **{key: value for key, value in settings.items() if value is not None},
    )
    asked = {key.replace("_", "-") for key in (*additional, *settings)}
    dropped = tuple(f"#SBATCH --{key}=" for key in _UNASKED if key not in asked)
    return [line for line in text.splitlines() if line.startswith("#SBATCH ") and not line.startswith(dropped)]


def _without_job(environment: Mapping[str, str], told: Sequence[str]) -> dict[str, str]:
    """The environment without what it says of a job around this process, and without what the script says.

    Source: sbatch(1), INPUT ENVIRONMENT VARIABLES: they override options set in a batch script.
    """
    overruling = {f"SBATCH_{word}" for key in told for word in _SBATCH.get(key, (key.upper().replace("-", "_"),))}
    return {
        key: value
        for key, value in environment.items()
        if key not in {*overruling, AFTER}
        and (not key.startswith(("SLURM_", "SLURMD_", "SRUN_")) or key in ("SLURM_CONF", "SLURM_JWT"))
    }
