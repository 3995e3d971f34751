"""From rows to batches: tokenise once, pad.

Nothing here draws a random number: which tokens an example has is a function of
the row, and which examples a batch has is the sampler's business.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from jobs.lora_cache import is_whole, key_of, scratch_dir, sweep, tokens_path, write_tokens
from jobs.lora_chat import IGNORED, Example, encode_chat, encode_text
from jobs.lora_load import BROKEN, Rows, Source, load_rows
from jobs.lora_rows import choose_field, row_problem
from supervisor.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from jobs.lora_args import LoraArgs

log = logging.getLogger("jobs.lora")

#: Part of every cache key; raise it when the same rows give other tokens than before.
ENCODING = 1
DEFAULT_LENGTH = 2048


@dataclass(frozen=True)
class Reading:
    """How rows become tokens, and where the tokens are kept.

    Attributes:
        args: the job section; its fields say which column.
        tokenizer: of the model.
        max_length: tokens per example.
        cache_dir: of the run.
    """

    args: LoraArgs
    tokenizer: Any
    max_length: int
    cache_dir: Path

    def key(self, source: Source) -> str:
        """Equal keys mean equal tokens."""
        return key_of(
            {
                "encoding": ENCODING,
                "name": None if source.pin.files else source.name,
                "revision": source.pin.revision,
                "files": dict(source.pin.files),
                "config": source.config,
                "split": source.split,
                "text_field": self.args.text_field,
                "messages_field": self.args.messages_field,
                "max_length": self.max_length,
                "tokenizer": self._tokenizer,
            }
        )

    @cached_property
    def _tokenizer(self) -> dict[str, Any]:
        return _tokenizer_facts(self.tokenizer)


def longest(asked: int | None, tokenizer: Any, positions: int | None) -> int:
    """Tokens per example.

    Args:
        asked: what the job file says.
        tokenizer: its `model_max_length` is a huge number where it has none.
        positions: how many the model can tell apart, if it says so.

    Raises:
        JobError: more are asked for than the model has positions.
    """
    if asked is None:
        return min(DEFAULT_LENGTH, int(tokenizer.model_max_length), positions or DEFAULT_LENGTH)
    if positions is not None and asked > positions:
        raise JobError(
            f"args.max_length: {asked} is more than the model's {positions} positions", f"at most {positions}"
        )
    return asked


def make_tokens(source: Source, reading: Reading) -> None:
    """Have the tokens of a source in the cache; one process of a node does it, the others wait.

    Raises:
        JobError: the data cannot be loaded or trained on; the message names file and line.
    """
    key = reading.key(source)
    path = tokens_path(reading.cache_dir, key)
    if is_whole(path):
        log.info("%s: tokens from the cache, %s", source.key, path.name)
        return
    reading.cache_dir.mkdir(parents=True, exist_ok=True)
    sweep(reading.cache_dir)
    scratch = scratch_dir(reading.cache_dir, key)
    try:
        rows = load_rows(source, reading.args, scratch)
        write_tokens(path, _examples(rows, reading))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def open_tokens(source: Source, reading: Reading) -> Any:
    """The examples of a source, which `make_tokens` has put into the cache.

    Returns:
        A memory-mapped `datasets.Dataset` with `input_ids` and `labels`, int32 lists.

    Raises:
        FileNotFoundError: there are none; the process that makes them says why.
    """
    import datasets

    return datasets.Dataset.from_file(str(tokens_path(reading.cache_dir, reading.key(source))))


def pad_batch(examples: Sequence[Mapping[str, Any]], pad_id: int, multiple: int = 1) -> dict[str, torch.Tensor]:
    """Pad examples on the right to the longest of them.

    Args:
        examples: `input_ids` and `labels`, of equal length within an example.
        pad_id: what to fill `input_ids` with; the mask hides it.
        multiple: round the length up to a multiple of this.

    Returns:
        `input_ids`, `labels` and `attention_mask`, each int64 (B, T).
    """
    import torch

    longest_here = max(len(example["input_ids"]) for example in examples)
    width = -(-longest_here // multiple) * multiple
    shape = (len(examples), width)
    input_ids = torch.full(shape, pad_id, dtype=torch.int64)
    labels = torch.full(shape, IGNORED, dtype=torch.int64)
    attention_mask = torch.zeros(shape, dtype=torch.int64)
    for row, example in enumerate(examples):
        length = len(example["input_ids"])
        input_ids[row, :length] = torch.tensor(example["input_ids"], dtype=torch.int64)
        labels[row, :length] = torch.tensor(example["labels"], dtype=torch.int64)
        attention_mask[row, :length] = 1
    return {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}


def padding_for(tokenizer: Any, multiple: int) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, torch.Tensor]]:
    """The collator for a tokenizer, also for one without a padding token."""
    pad_id = tokenizer.pad_token_id
    if pad_id is None:
        pad_id = tokenizer.eos_token_id
    return partial(pad_batch, pad_id=0 if pad_id is None else pad_id, multiple=multiple)


def _examples(rows: Rows, reading: Reading) -> Iterator[Example]:
    """Encode row by row, in their order; rows that teach nothing are left out and counted."""
    source, args, field = rows.source, reading.args, None
    counts: Counter[str] = Counter()
    for index, row in rows:
        counts["rows"] += 1
        field = field or choose_field(row if isinstance(row, Mapping) else (), args.text_field, args.messages_field)
        if field is None:
            columns = ", ".join(f"`{name}`" for name in row) if isinstance(row, Mapping) else "none"
            raise JobError(
                f"args.{source.key}: neither `messages` nor `text` among the columns {columns}",
                "name the column under text_field or messages_field",
                rows.place(index),
            )
        if problem := row_problem(row, field):
            raise JobError(problem, BROKEN, rows.place(index))
        try:
            examples = _encode(reading.tokenizer, row, field.kind, row[field.name])
        except ValueError as error:
            problem, _, remedy = str(error).partition("; ")
            raise JobError(problem, remedy or BROKEN, rows.place(index)) from error
        teaching = [cut for example in examples if (cut := example.cut(reading.max_length)).teaches]
        counts["cut"] += sum(len(example.input_ids) > reading.max_length for example in examples)
        counts["left out"] += not teaching
        for example in teaching:
            counts["examples"] += 1
            counts["tokens"] += len(example.input_ids)
            yield example
    if not counts["examples"]:
        raise JobError(
            f"args.{source.key}: none of the {counts['rows']} rows of {source.name} has a token to learn",
            "chats need an answer of the assistant within max_length, texts at least two tokens",
        )
    log.info("%s: tokenised, %s", source.key, ", ".join(f"{counts[name]} {name}" for name in _COUNTED))


_COUNTED = ("rows", "examples", "tokens", "cut", "left out")


def _encode(tokenizer: Any, row: Mapping[str, Any], kind: str, value: Any) -> list[Example]:
    if kind == "text":
        return [encode_text(tokenizer, value)]
    if not tokenizer.is_fast:
        raise ValueError("chat messages need a fast tokenizer, which knows where its tokens lie; use plain text")
    tools = row.get("tools")
    return encode_chat(tokenizer, value, json.loads(tools) if isinstance(tools, str) and tools else tools or None)


def _tokenizer_facts(tokenizer: Any) -> dict[str, Any]:
    facts: Any = tokenizer.get_vocab()
    if tokenizer.is_fast:
        facts = json.loads(tokenizer.backend_tokenizer.to_str())
        for state in ("truncation", "padding"):  # of its last call, not of its making
            facts.pop(state, None)
    return {
        "class": type(tokenizer).__name__,
        "backend": xxhash.xxh3_128_hexdigest(json.dumps(facts, sort_keys=True).encode()),
        "chat_template": tokenizer.chat_template,
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
    }
