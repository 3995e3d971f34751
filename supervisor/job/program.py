"""The program that a job names: is it there, what does it take, how is it called.

Nothing is imported to find a module, since the module may import torch; what a
module needs to run is found out by running it.
"""

from __future__ import annotations

import importlib.util
import json
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from supervisor.errors import JobError
from supervisor.job.complaints import nearest
from supervisor.job.file import KeyPath
from supervisor.job.schema import Job

_LORA = "jobs.lora"


def is_script(program: str) -> bool:
    """Whether ``program`` is a path rather than a module.

    >>> is_script("train.py"), is_script("jobs.lora")
    (True, False)
    """
    return program.endswith(".py") or "/" in program


def is_ours(program: str) -> bool:
    """Whether ``program`` reads a job section of its own instead of `--key value` options."""
    return program == _LORA


def find_program(program: str, where: str, cwd: Path) -> None:
    """Make sure that ``program`` is there.

    Args:
        program: a module, or a path to a .py file.
        where: the key's place, for the message.
        cwd: the directory that a relative path starts from; modules are looked for there, too.

    Raises:
        JobError: no such file or module; the nearest name is offered.
    """
    if is_script(program):
        path = cwd / program
        if not path.is_file():
            near = nearest(path.name, _names_in(path.parent))
            hint = f"did you mean {path.parent / near}?" if near else f"a relative path starts from {cwd}"
            raise JobError(f"program: there is no file {program}", hint, where)
        return
    if not all(part.isidentifier() for part in program.split(".")):
        raise JobError(
            f"program: {program!r} is no module", "give a module such as jobs.lora, or a path to a .py file", where
        )
    _find_module(program, where, cwd)


def program_args(
    program: str, args: Mapping[str, Any] | Sequence[Any], where: Callable[[KeyPath], str]
) -> BaseModel | None:
    """Read ``args`` as the program's own job section.

    Args:
        program: as in the job file.
        args: as in the job file.
        where: names the place of a key path of the job file.

    Returns:
        The section, or None for a program that has none: a script's options are its own affair.

    Raises:
        JobError: the section cannot work; the message names key, line and nearest key.
    """
    if not is_ours(program):
        return None
    if not isinstance(args, Mapping):
        raise JobError(
            f"args: {program} takes a mapping, not a list", "write keys such as model and data", where(("args",))
        )
    from jobs.lora_args import parse

    return parse(args, lambda path: where(("args", *path)))


def check_program(job: Job, cwd: Path) -> None:
    """Look at what the program's section names: model, data, packages. Reads data, so a moment is spent.

    Raises:
        JobError: something is missing or broken; a broken line of data is numbered.
    """
    if is_ours(job.program) and isinstance(job.args, dict):
        from jobs.lora_args import check, parse

        check(parse(job.args), cwd)


def base_doubt(run_dir: Path, base: Path) -> str | None:
    """Why a base model of which no revision is known may be another one than a run was trained on.

    None where its files are those that `jobs.lora` wrote down when the run began.
    """
    from jobs.lora_pins import Pin, difference, fingerprint, read_pins

    try:
        held = read_pins(run_dir / "pins.json").get("model")
        found = Pin(str(base), files=fingerprint(base, "model"))
    except (JobError, OSError):
        held = None
    if held is None or held.revision or not held.files:
        return f"no revision of {base} is known"
    change = difference(held, found)
    return f"{change} since the run began" if change else None


def args_schema() -> dict[str, Any]:
    """The JSON schema of what `jobs.lora` takes under `args`."""
    from jobs.lora_args import LoraArgs

    return LoraArgs.model_json_schema(ref_template="#/$defs/{model}")


def program_argv(job: Job) -> list[str]:
    """The options that the program is called with.

    A list is passed as it is. Of a mapping, `key: value` becomes `--key value`,
    `true` the bare `--key`, `false` and `null` nothing (write 'False' in quotes
    for a program that reads the word), a list several values, a mapping its
    JSON. A program of ours reads its section from the run directory's job.yaml
    and gets no options.

    >>> program_argv(Job(program="train.py", args={"lr": 0.1, "fp16": True, "ids": [1, 2]}))
    ['--lr', '0.1', '--fp16', '--ids', '1', '2']
    """
    if isinstance(job.args, list):
        return [_word(value) for value in job.args]
    if is_ours(job.program):
        return []
    return [word for key, value in job.args.items() for word in _option(key, value)]


def _option(key: str, value: Any) -> list[str]:
    if value is None or value is False:
        return []
    if value is True:
        return [f"--{key}"]
    values = value if isinstance(value, list) else [value]
    return [f"--{key}", *(_word(item) for item in values)]


def _word(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _find_module(program: str, where: str, cwd: Path) -> None:
    """Follow the dots through the packages' directories, importing none of them."""
    parts = program.split(".")
    places: Sequence[str] | None = [str(cwd), *sys.path]
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        spec = _spec(name, places, top=depth == 1)
        if spec is None:
            near = nearest(parts[depth - 1], (found.name for found in pkgutil.iter_modules(places)))
            hint = f"did you mean {'.'.join([*parts[: depth - 1], near])}?" if near else _where_to_look(parts, depth)
            raise JobError(f"program: there is no module {name}", hint, where)
        places = spec.submodule_search_locations
        if places is None and depth < len(parts):
            raise JobError(f"program: {name} is a module, not a package", f"give {name} itself", where)
    if places is not None and _spec(f"{program}.__main__", places, top=False) is None:
        raise JobError(f"program: {program} is a package without __main__", "give the module in it that trains", where)


def _spec(name: str, places: Sequence[str] | None, *, top: bool) -> ModuleSpec | None:
    found = PathFinder.find_spec(name, list(places or ()))
    if found is None and top:  # editable installs are found by finders of their own; of a top level nothing is imported
        try:
            return importlib.util.find_spec(name)
        except (ValueError, ImportError):
            return None
    return found


def _where_to_look(parts: Sequence[str], depth: int) -> str:
    if depth > 1:
        return f"the package {'.'.join(parts[: depth - 1])} is there, but not this module in it"
    return "is it installed in this environment? a path to a script ends in .py"


def _names_in(directory: Path) -> Iterable[str]:
    try:
        return [path.name for path in directory.iterdir() if path.suffix == ".py"]
    except OSError:
        return []
