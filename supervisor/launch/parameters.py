"""What a job file may say under `slurm:`. Pure: the names that there are come as an argument.

What this does *not* protect against: a typo in `additional_parameters`, whose names sbatch alone knows.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Collection, Mapping
from typing import Any

from supervisor.errors import JobError

#: Names the place of a key of the section.
Where = Callable[[str], str]

_TIME = re.compile(r"\d+|(\d+-)?\d+:\d\d?(:\d\d?)?|\d+-\d+|UNLIMITED|INFINITE", re.ASCII)
_OPTION = re.compile(r"[a-z][a-z0-9-]*", re.ASCII)
_LISTS = ("setup", "teardown", "srun_args")
#: Shell of the user's own, which may have several lines.
_SHELL = ("setup", "teardown")
_COUNTS = ("signal_delay_s", "array_parallelism", "nodes", "tasks_per_node", "ntasks_per_node")
#: What would change what is run, and not how.
_RESERVED = ("array", "wrap", "nodes", "ntasks", "ntasks-per-node", "chdir")


def read(given: Mapping[str, Any], allowed: Collection[str], same: Mapping[str, str], where: Where) -> dict[str, Any]:
    """Check names and values of the section, and give it back under SLURM's own names.

    Args:
        given: as in the job file; names may bear submitit's prefix `slurm_`.
        allowed: every name that there is.
        same: of a name that has another of the same meaning, the one to use.
        where: names the place of a key.

    >>> read({"slurm_timeout_min": 90, "qos": None}, ["timeout_min", "qos"], {"timeout_min": "time"}, str)
    {'time': 90}

    Raises:
        JobError: a name that there is not, the nearest one is named; or a value that cannot work.
    """
    found: dict[str, Any] = {}
    for key, value in given.items():
        name = key.removeprefix("slurm_")
        _check_name(name, allowed, key, where)
        own = same.get(name, name)
        if own in found:
            raise JobError(f"slurm.{key}: {own} is given twice", "keep one of the two", where(key))
        if value is not None:
            found[own] = _value(name, value, key, where)
    return found


def check_carried(what: str, value: Any, place: str | None = None) -> None:
    r"""Refuse what an `#SBATCH` line cannot hold: it ends with the line, and has no way to write `\` in quotes.

    Raises:
        JobError: the value is such.
    """
    text = str(value)
    if not text.isprintable() or "\\" in text:
        raise JobError(
            f"{what}: {text!r} cannot be carried by an #SBATCH line",
            "leave out backslashes, line breaks and control characters",
            place,
        )


def _check_name(name: str, allowed: Collection[str], key: str, where: Where) -> None:
    """Refuse a name that there is not.

    Raises:
        JobError: naming the nearest.
    """
    if name in allowed:
        return
    if name == "use_srun":
        problem = "slurm.use_srun: SLURM tells only the tasks of srun that a job is to end"
        raise JobError(problem, "remove the key", where(key))
    if name == "array":
        raise JobError("slurm.array: a job file has one run", "submit several with --sweep KEY=A,B,…", where(key))
    near = difflib.get_close_matches(name, allowed, n=1)
    hint = f"did you mean slurm.{near[0]}? " if near else "anything else of sbatch goes to additional_parameters; "
    raise JobError(f"unknown key slurm.{key}", f"{hint}allowed here: {', '.join(allowed)}", where(key))


def _value(name: str, value: Any, key: str, where: Where) -> Any:
    """A value as submitit takes it; None for what is not to be said.

    Raises:
        JobError: it cannot work.
    """
    if name == "additional_parameters":
        return _additional(value, where)
    if name in _LISTS:
        return _lines(name, value, key, where)
    if name in ("exclude", "nodelist") and isinstance(value, list):
        value = ",".join(str(one) for one in value)
    if (expected := _expected(name, value)) is not None:
        raise JobError(f"slurm.{key}: {value!r} cannot be used", expected, where(key))
    check_carried(f"slurm.{key}", value, where(key))
    if name == "mem_gb":
        return f"{round(value * 1024)}M"
    return None if value is False and name != "stderr_to_stdout" else value


def _expected(name: str, value: Any) -> str | None:
    """What a value should be; None if it is that."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else 0
    if name in ("time", "timeout_min"):
        right = not isinstance(value, bool) and _TIME.fullmatch(str(value))
        return None if right else "minutes, HH:MM:SS, or D-HH:MM:SS"
    if name == "mem_gb":
        return None if number > 0 else "a number of GB"
    if name in _COUNTS:
        return None if isinstance(value, int) and number >= 1 else "a whole number of at least 1"
    if name == "python":
        return None if isinstance(value, str) and _words(value) else "a command, as in a shell"
    return "a plain value" if isinstance(value, list | Mapping) or value == "" else None


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []  # a quote that is not closed


def _additional(given: Any, where: Where) -> dict[str, Any]:
    """Further options of sbatch.

    Raises:
        JobError: one that cannot be.
    """
    if not isinstance(given, Mapping):
        problem = f"slurm.additional_parameters: {given!r} cannot be used"
        raise JobError(problem, "a mapping, such as {reservation: x}", where("additional_parameters"))
    found = {}
    for key, value in given.items():
        option = str(key).replace("_", "-")
        place = where(f"additional_parameters.{key}")
        if not _OPTION.fullmatch(option):
            raise JobError(f"slurm.additional_parameters: {key!r} is no option of sbatch", "write its name", place)
        if option in _RESERVED:
            raise JobError(
                f"slurm.additional_parameters.{key} would change what is run",
                "use launch.nodes for several nodes, --sweep for arrays",
                place,
            )
        if isinstance(value, list | Mapping):
            raise JobError(f"slurm.additional_parameters.{key}: {value!r} cannot be used", "a plain value", place)
        check_carried(f"slurm.additional_parameters.{key}", value, place)
        found[option] = value
    return found


def _lines(name: str, value: Any, key: str, where: Where) -> list[str]:
    lines = [value] if isinstance(value, str) else value
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise JobError(f"slurm.{key}: {value!r} cannot be used", "a list of lines", where(key))
    if any("\r" in line or "\0" in line or (name not in _SHELL and "\n" in line) for line in lines):
        raise JobError(f"slurm.{key}: a line with control characters", "write it without", where(key))
    return [line.rstrip("\n") for line in lines]
