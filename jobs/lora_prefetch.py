"""Brings what a job of `jobs.lora` needs to where compute nodes without internet find it.

    python -m jobs.lora_prefetch JOB.yaml         # called by `supervisor prefetch`

The model's files go to the hub's cache, the tokens of the data to the run's; model and data are pinned, as
the first attempt would have done. No weight is loaded into memory and no GPU touched. What was brought
stands in `control/prefetched.json`.

What it does *not* see: whether the nodes share the file systems of both caches, and have the same `HF_HOME`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.lora_args import LoraArgs, parse
from jobs.lora_check import local_path
from supervisor.errors import JobError, SupervisorError

if TYPE_CHECKING:
    from jobs.lora_pins import Pin

log = logging.getLogger("jobs.lora")

#: What decides which files are needed; as long as these stay, what was brought holds.
DECIDING = (
    *("model", "model_revision", "data", "data_config", "data_split", "data_revision"),
    *("eval_data", "eval_config", "eval_split", "eval_revision"),
    *("text_field", "messages_field", "chat_template", "max_length"),
)
_SMALL = (".json", ".txt", ".model", ".jinja", ".py", ".tiktoken")


def main(argv: Sequence[str] | None = None) -> None:
    """Bring what the job file that the command line names needs.

    Raises:
        JobError: the job cannot work, or something it needs is not to be had.
    """
    from supervisor.job.load import load_job

    words = sys.argv[1:] if argv is None else list(argv)
    if len(words) != 1:
        raise JobError(f"{len(words)} arguments were given", "call it as python -m jobs.lora_prefetch JOB.yaml")
    job = load_job(Path(words[0]))
    if not isinstance(job.args, dict):
        raise JobError("args is a list", "jobs.lora takes a mapping: model, data, …", words[0])
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prefetch(parse(job.args), job.run_dir, {key: job.args.get(key) for key in DECIDING})


def prefetch(args: LoraArgs, run_dir: Path, deciding: dict[str, Any]) -> None:
    """Pin, download, tokenise, and write down what was brought.

    Args:
        args: the job section.
        run_dir: of the run; its directory `control` exists.
        deciding: what of the section decides which files are needed.

    Raises:
        JobError: something cannot be had.
    """
    from transformers.utils.logging import disable_progress_bar

    from jobs.lora_data import Reading, longest, make_tokens
    from jobs.lora_load import sources_of
    from jobs.lora_model import load_tokenizer, positions_of
    from jobs.lora_pins import ask_hub, hold_pins

    disable_progress_bar()
    pins = hold_pins(args, run_dir, ask_hub, accept_changes=False)
    place = fetch_model(args, pins["model"])
    log.info("model: %s", place)
    tokenizer = load_tokenizer(args, pins["model"])
    reading = Reading(
        args, tokenizer, longest(args.max_length, tokenizer, positions_of(_shape_of(place))), run_dir / "cache"
    )
    tokens = []
    for source in sources_of(args, pins):
        make_tokens(source, reading)
        tokens.append(reading.key(source))
        log.info("%s: tokens of %s", source.key, source.name)
    _write(run_dir / "control" / "prefetched.json", {"model": str(place), "tokens": tokens, "args": deciding})


def fetch_model(args: LoraArgs, pin: Pin) -> Path:
    """Have the files of the model here that transformers loads, and no others.

    A repository often holds the same weights several times: for other libraries, or in an older format.

    Returns:
        The directory that holds them.

    Raises:
        JobError: the hub does not give them.
    """
    from huggingface_hub import HfApi, hf_hub_download

    from supervisor.worker.hub import cached

    path = local_path(args.model, Path.cwd())
    if path is not None:
        return path
    try:
        path = cached(args.model, pin.revision)
        if path is not None:
            return path
        names = [file.rfilename for file in HfApi().model_info(args.model, revision=pin.revision).siblings or []]
        # One by one: snapshot_download would note what the repository has besides, and afterwards find that missing.
        places = [Path(hf_hub_download(args.model, name, revision=pin.revision)) for name in needed(names)]
    except Exception as error:  # no route, a proxy's page, an outage: each raises something else
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise JobError(
            f"args.model: {args.model} cannot be fetched ({reason})", "try again when the hub answers"
        ) from error
    if "config.json" not in names:
        raise JobError(f"args.model: {args.model} has no config.json", "name a model that transformers knows")
    return next(place.parent for place in places if place.name == "config.json")


def needed(names: Sequence[str]) -> list[str]:
    """Which files of a model's repository transformers reads.

    >>> needed(["config.json", "model.safetensors", "pytorch_model.bin", "original/a.safetensors", "m.gguf"])
    ['config.json', 'model.safetensors']
    """
    top = [name for name in names if "/" not in name or name.startswith("additional_chat_templates/")]
    weights = [n for n in top if n.endswith(".safetensors") and not n.startswith("consolidated")]
    return [n for n in top if n.endswith(_SMALL)] + (weights or [n for n in top if n.endswith(".bin")])


def _shape_of(place: Path) -> Any:
    """The model without its weights, to ask for what its configuration says once a model is made of it.

    Raises:
        JobError: transformers knows no such model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(place)))
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise JobError(f"args.model: {place} is no model ({reason})", "name a causal language model") from error


def _write(path: Path, facts: dict[str, Any]) -> None:
    """Replace the marker as a whole: whoever sees it goes without the hub."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps({"v": 1, "time": time.time(), **facts}, indent=1) + "\n")
    partial.chmod(0o600)
    partial.replace(path)


if __name__ == "__main__":
    try:
        main()
    except SupervisorError as error:
        sys.exit(f"supervisor: {error}")
