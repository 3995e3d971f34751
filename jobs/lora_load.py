"""From a name in the job file to rows, each with a place that a person can find.

Local files and hub names go through the same `datasets.load_dataset`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.lora_check import check_lines, local_path
from jobs.lora_rows import JSON_LINES, PARQUET, is_json_array, parse_line
from supervisor.errors import JobError

if TYPE_CHECKING:
    from jobs.lora_args import LoraArgs
    from jobs.lora_pins import Pin

BROKEN = "mend the row, or remove it"
_LOAD_REMEDY = "check the name, the split and the access to it"


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from.

    Attributes:
        key: the job file's key, `data` or `eval_data`.
        name: its value.
        config: of a hub data set.
        split: in the language of `datasets`.
        pin: what `name` was when the run began.
    """

    key: str
    name: str
    config: str | None
    split: str
    pin: Pin


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that have been loaded.

    Attributes:
        dataset: a `datasets.Dataset`; of a file of JSON lines it has one string a line.
        file: that file of JSON lines, or None.
        source: where they come from.
    """

    dataset: Any
    file: Path | None
    source: Source

    def place(self, index: int) -> str:
        """Name a row for a person: `data.jsonl:7`."""
        if self.file is not None and self.source.split == "train":
            return f"{self.file}:{index + 1}"
        return f"{self.source.name}, row {index + 1} of {self.source.split}"

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        for index, row in enumerate(self.dataset):
            if self.file is None:
                yield index, _without_nulls(row)
            elif row["text"].strip():
                try:
                    yield index, parse_line(row["text"])
                except ValueError as error:
                    raise JobError(str(error), BROKEN, self.place(index)) from error


def sources_of(args: LoraArgs, pins: Mapping[str, Pin]) -> list[Source]:
    """The training data, then the evaluation data if there is any."""
    sources = [Source("data", args.data, args.data_config, args.data_split, pins["data"])]
    if args.eval_data is not None:
        split = args.eval_split or ("train" if pins["eval_data"].files else "validation")
        sources.append(Source("eval_data", args.eval_data, args.eval_config, split, pins["eval_data"]))
    return sources


def load_rows(source: Source, args: LoraArgs, scratch: Path) -> Rows:
    """Load a source with `datasets`.

    Files of JSON lines are loaded as text and parsed row by row: conversations differ in
    their keys, which a columnar reader refuses or fills with nulls, and a broken line
    keeps its number.

    Raises:
        JobError: it cannot be loaded.
    """
    import datasets

    datasets.disable_progress_bars()
    path = local_path(source.name, Path.cwd())
    lines = path if path is not None and path.name.endswith(JSON_LINES) and not is_json_array(path) else None
    try:
        if path is None:
            loaded = datasets.load_dataset(source.name, source.config, revision=source.pin.revision, split=source.split)
        elif (path / "dataset_info.json").is_file():
            loaded = datasets.load_from_disk(str(path))
            loaded = loaded[source.split] if isinstance(loaded, datasets.DatasetDict) else loaded
        elif path.is_dir():
            loaded = datasets.load_dataset(str(path), split=source.split, cache_dir=str(scratch))
        else:
            kind = "text" if lines else "parquet" if path.name.endswith(PARQUET) else "json"
            loaded = datasets.load_dataset(kind, data_files=str(path), split=source.split, cache_dir=str(scratch))
    except Exception as error:  # datasets lets through what pyarrow, pandas, fsspec and the hub raise
        if lines is not None:
            check_lines(lines, args)
        cause = error.__cause__ or error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise JobError(f"args.{source.key}: {source.name} cannot be loaded ({reason})", _LOAD_REMEDY) from error
    return Rows(loaded, lines, source)


def _without_nulls(value: Any) -> Any:
    """Undo what a columnar file adds: a key that one row has, every row has, with null.

    >>> _without_nulls({"role": "user", "content": "hi", "tool_calls": None})
    {'role': 'user', 'content': 'hi'}
    """
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
