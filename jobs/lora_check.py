"""What can be known to be wrong with a job before torch is imported.

Looks at the user's files only: no network, nothing loaded. What it does *not*
see: whether a hub has the model, the columns of Parquet files and of hub data
sets, and rows beyond the first 64 MiB of a file; the worker checks those when
it tokenises.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.lora_rows import JSON_LINES, PARQUET, find_bad_line, is_json_array
from supervisor.errors import JobError

if TYPE_CHECKING:
    from jobs.lora_args import LoraArgs

CHECKED_BYTES = 64 << 20  # about a second of JSON
DATA_FILES = (*JSON_LINES, *PARQUET)
#: huggingface_hub's rule for names, with at most one slash.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[\w.-]+)?", re.ASCII)
_ROW_REMEDY = (
    'a row is {"messages": [{"role": …, "content": …}, …]} or {"text": …}; '
    "text_field or messages_field names another column"
)
#: What a tracker of `report_to` imports, for those that people name most.
_TRACKERS = {
    "wandb": ("wandb",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
}


def check(args: LoraArgs, base_dir: Path) -> None:
    """Refuse a job that cannot work.

    Args:
        args: the job section.
        base_dir: what relative paths are relative to; the current directory of the run.

    Raises:
        JobError: a file is missing or broken (the line is numbered), a path that is no model,
            or a package that the job needs is not installed.
    """
    check_model(args.model, base_dir)
    for key, hub_only in (
        ("model", ("revision",)),
        ("data", ("config", "revision")),
        ("eval_data", ("config", "revision")),
    ):
        _check_hub_only(key, hub_only, args, base_dir)
    check_data("data", args.data, args, base_dir)
    if args.eval_data is not None:
        check_data("eval_data", args.eval_data, args, base_dir)
    if args.chat_template is not None:
        path = base_dir / Path(args.chat_template).expanduser()
        if not path.is_file():
            shown = _shown(args.chat_template, path)
            raise JobError(f"args.chat_template: there is no file {shown}", "name a Jinja template file")
    if args.quantization != "none":
        need_package(("bitsandbytes",), f"quantization: {args.quantization}")
    asked = args.given_training().get("report_to", [])
    for tracker in [asked] if isinstance(asked, str) else asked:
        if tracker in _TRACKERS:
            need_package(_TRACKERS[tracker], f"training.report_to: {tracker}")


def local_path(name: str, base_dir: Path) -> Path | None:
    """The path that ``name`` means, or None where it can only be a name of the hub.

    What exists is a path. What does not exist is one when it looks like one: it
    starts with `.`, `/` or `~`, ends like a data file, or no hub would take it.

    >>> local_path("org/model", Path("/nowhere")) is None
    True
    >>> local_path("runs/base/model", Path("/nowhere"))
    PosixPath('/nowhere/runs/base/model')
    """
    path = base_dir / Path(name).expanduser()
    if path.exists() or name.startswith((".", "/", "~")) or name.endswith(DATA_FILES):
        return path
    return None if _HUB_NAME.fullmatch(name) else path


def _shown(name: str, path: Path) -> str:
    """A path as the job file has it, and what it stands for here.

    >>> _shown("../train.jsonl", Path("/home/me/../train.jsonl")), _shown("/data/x", Path("/data/x"))
    ('../train.jsonl (/home/train.jsonl)', '/data/x')
    """
    return name if Path(name).is_absolute() else f"{name} ({os.path.normpath(path)})"


def check_model(name: str, base_dir: Path) -> None:
    """Refuse a local path that holds no model.

    Raises:
        JobError: there is nothing, no `config.json`, or no weights.
    """
    path = local_path(name, base_dir)
    if path is None:
        return
    shown = _shown(name, path)
    if not path.exists():
        raise JobError(f"args.model: there is no {shown}", "name a model directory, or a model of the hub as org/name")
    if not path.is_dir():
        raise JobError(f"args.model: {shown} is a file", "name the directory that holds config.json")
    if not (path / "config.json").is_file():
        if (path / "adapter_config.json").is_file():
            raise JobError(
                f"args.model: {shown} is an adapter, not a base model",
                f"name its base model {_base_of(path)}here, and the adapter's checkpoint under start_from",
            )
        raise JobError(
            f"args.model: {shown} is no model, it has no config.json", "name a directory made by save_pretrained"
        )
    try:
        json.loads((path / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise JobError(f"args.model: {path}/config.json is not readable JSON", "copy the model again") from error
    if not any(path.glob("*.safetensors")) and not any(path.glob("*.bin")):
        raise JobError(f"args.model: {shown} holds no weights", "it needs *.safetensors files beside config.json")


def check_data(key: str, name: str, args: LoraArgs, base_dir: Path) -> None:
    """Refuse local data that is missing or broken.

    Raises:
        JobError: there is nothing, or a line of it cannot be trained on; the line is numbered.
    """
    path = local_path(name, base_dir)
    if path is None:
        return
    shown = _shown(name, path)
    if not path.exists():
        raise JobError(
            f"args.{key}: there is no {shown}", "name a JSONL or Parquet file, or a data set of the hub as org/name"
        )
    if path.is_dir():
        if not any(file.is_file() for file in path.rglob("*")):
            raise JobError(f"args.{key}: {shown} is an empty directory", "put JSONL or Parquet files into it")
        return
    if not name.endswith(DATA_FILES):
        raise JobError(f"args.{key}: {shown} is no kind of file that is known", f"allowed are {', '.join(DATA_FILES)}")
    try:
        if name.endswith(PARQUET):
            _check_parquet(key, name, path)
        elif not is_json_array(path):
            check_lines(path, args, max_bytes=CHECKED_BYTES)
    except (OSError, EOFError) as error:  # EOFError: a gzip file that was cut off
        reason = getattr(error, "strerror", None) or error
        raise JobError(f"args.{key}: {shown} cannot be read ({reason})", "mend the file") from error


def check_lines(path: Path, args: LoraArgs, max_bytes: int | None = None) -> None:
    """Refuse a file of JSON lines that has a bad one.

    Raises:
        JobError: with `file:line` as its place.
        OSError: the file cannot be read.
    """
    bad = find_bad_line(path, args.text_field, args.messages_field, max_bytes)
    if bad is not None:
        raise JobError(bad.problem, _ROW_REMEDY, f"{path}:{bad.number}")


def need_package(names: tuple[str, ...], what: str) -> None:
    """Refuse a key whose package is not installed; any of ``names`` will do.

    Raises:
        JobError: none is.
    """
    if not any(importlib.util.find_spec(name) for name in names):
        raise JobError(
            f"args.{what} needs {names[0]}, which is not installed", f"pip install {names[0]}, or remove the key"
        )


def _check_hub_only(key: str, hub_only: tuple[str, ...], args: LoraArgs, base_dir: Path) -> None:
    """Refuse a revision or a configuration of what is a local path: it would be ignored."""
    name = getattr(args, key)
    for part in hub_only:
        also = f"{key.removesuffix('_data')}_{part}"
        if name is not None and getattr(args, also) is not None and local_path(name, base_dir) is not None:
            raise JobError(f"args.{also}: {name} is a local path, which has no {part}", f"remove {also}")


def _check_parquet(key: str, name: str, path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(-4, 2) if head else None
        whole = head == b"PAR1" and file.read(4) == b"PAR1"
    if not whole:
        raise JobError(f"args.{key}: {name} is no Parquet file, or was cut off", "write it again", str(path))


def _base_of(adapter: Path) -> str:
    try:
        config: Any = json.loads((adapter / "adapter_config.json").read_bytes())
        return f"({config['base_model_name_or_path']}) "
    except (OSError, ValueError, KeyError, TypeError):
        return ""
