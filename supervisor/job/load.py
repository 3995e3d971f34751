"""From a job file and its overrides to a job that can be run, or to the reason why not."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from supervisor.errors import JobError
from supervisor.job.complaints import complaint
from supervisor.job.file import Document, apply_override, dump, read_document
from supervisor.job.notify import check_urls
from supervisor.job.parallelism import check_parallelism
from supervisor.job.program import args_schema, find_program, is_ours, program_args
from supervisor.job.schema import Job

_SECTIONS = ("args", "env", "launch", "checkpoint", "recovery", "slurm", "notify")
#: Set in everything that a supervisor starts.
_SUPERVISED = "SUPERVISOR_RUN_DIR"
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)


def load_job(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Job:
    """Read, check and complete a job file.

    Args:
        path: the job file.
        overrides: `a.b=value` each, as given to `--set`; checked like the file.
        cwd: where relative paths start from; default: the current directory.
        environ: for `~` and `$NAME` in `run_dir`; default: the environment.

    Returns:
        The job, with `run_dir` absolute. Nothing has been written, and no data been read.

    Raises:
        JobError: the job cannot work; the message names file, line, key, nearest key and what is allowed.
    """
    document = read_document(path)
    for override in overrides:
        apply_override(document, override)
    base = Path.cwd() if cwd is None else cwd
    _complete(document, Path(path), base, os.environ if environ is None else environ)
    try:
        job = Job.model_validate(document.values)
    except ValidationError as error:
        raise complaint(error, Job, document) from error
    check_parallelism(job.launch.accelerate, document.where)
    find_program(job.program, document.where(("program",)), base)
    program_args(job.program, job.args, document.where)
    if _SUPERVISED not in (os.environ if environ is None else environ):  # else it has been done
        check_urls(
            [(entry, document.where(("notify", n))) for n, entry in enumerate(job.notify) if isinstance(entry, str)]
        )
    return job


def resolved_yaml(job: Job) -> str:
    """Write ``job`` as a job file with every default filled in; `load_job` reads it back as the same job."""
    return dump(job.model_dump())


def read_resolved(path: Path) -> dict[str, Any]:
    """Read a resolved job file as plain values, to compare a new job with it.

    Raises:
        JobError: there is none, or it is damaged.
    """
    return read_document(path).values


def resolved_job(path: Path) -> Job:
    """The job that a run's own job file tells, whether or not its program is still there.

    Raises:
        JobError: there is none, or it is damaged.
    """
    document = read_document(path)
    try:
        return Job.model_validate(document.values)
    except ValidationError as error:
        raise complaint(error, Job, document) from error


def schema() -> dict[str, Any]:
    """The JSON schema of the job file, with what `jobs.lora` takes under `args` as `$defs.LoraArgs`."""
    whole = Job.model_json_schema()
    lora = args_schema()
    definitions = {**whole.get("$defs", {}), **lora.pop("$defs", {}), "LoraArgs": lora}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **whole,
        "$defs": definitions,
        "if": {"properties": {"program": {"const": "jobs.lora"}}, "required": ["program"]},
        "then": {"properties": {"args": {"$ref": "#/$defs/LoraArgs"}}},
    }


def _complete(document: Document, path: Path, cwd: Path, environ: Mapping[str, str]) -> None:
    """Fill in what pydantic cannot: the name, the run directory, sections left empty, the environment's text."""
    values = document.values
    for section in _SECTIONS:
        if values.get(section, ...) is None:  # every line of it is a comment
            del values[section]
    if values.get("name") is None:
        values["name"] = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-")[:64] or "run"
    if isinstance(environment := values.get("env"), dict):
        values["env"] = {key: _as_written(document, key, value) for key, value in environment.items()}
    if values.get("run_dir") is None:
        values["run_dir"] = "runs/{name}"
    if isinstance(values["run_dir"], str) and isinstance(values["name"], str):
        where = document.where(("run_dir",))
        values["run_dir"] = _run_dir(values["run_dir"], values["name"], cwd, environ, where)
    if is_ours(str(values.get("program"))) and "args" not in values:
        values["args"] = {}


def _as_written(document: Document, key: str, value: Any) -> Any:
    """A variable's text as it stands in the file: `false`, `1.10` and `010` mean just that to a program."""
    if isinstance(value, bool | int | float):
        return document.texts.get(("env", key), str(value))
    return value


def _run_dir(text: str, name: str, cwd: Path, environ: Mapping[str, str], where: str) -> str:
    """Fill in `{name}`, `~` and `$NAME`, and make the path absolute.

    Raises:
        JobError: it is empty, or names something that is not set.
    """

    def variable(match: re.Match[str]) -> str:
        key = match[1] or match[2]
        if not environ.get(key):
            raise JobError(f"run_dir: ${key} is not set", "set it, or write the path out", where)
        return environ[key]

    if not text.strip() or "\0" in text:
        raise JobError(
            "run_dir: an empty path" if not text.strip() else "run_dir: a NUL byte", "give a directory", where
        )
    expanded = _VARIABLE.sub(variable, text)
    if expanded == "~" or expanded.startswith("~/"):
        if not environ.get("HOME"):
            raise JobError("run_dir: ~ without $HOME", "write the path out", where)
        expanded = environ["HOME"] + expanded[1:]
    expanded = expanded.replace("{name}", name)
    if unknown := re.search(r"\{(\w+)\}", expanded):
        raise JobError(f"run_dir: {{{unknown[1]}}} stands for nothing", "only {name} is filled in", where)
    return os.path.normpath(cwd / expanded)
