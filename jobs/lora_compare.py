"""Measures adapters on a file of new inputs: `supervisor compare --data` starts this.

    python -m jobs.lora_compare REQUEST.json

The base model is loaded once and each adapter put on it in turn. What is measured is the mean loss per token that
carries loss in training: of a chat the assistant's, of a text every one. Nothing is random, and nothing is written
but the answer.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jobs.lora_args import LoraArgs, parse
from supervisor.errors import JobError
from supervisor.worker.quiet import hush_advice

#: A batch is cut down when memory does not suffice for it, so it may begin large.
BATCH = 16


def main(argv: Sequence[str] | None = None) -> int:
    """Answer one request; 2 if it cannot be answered."""
    hush_advice()
    (path,) = sys.argv[1:] if argv is None else argv
    asked = json.loads(Path(path).read_text())
    try:
        answer = compare(asked["args"], asked["revision"], [Path(one) for one in asked["checkpoints"]])
    except JobError as error:
        # The section was made of options: they are what can be changed.
        said = str(error).replace("args.data", "--data").replace("args.model", "--model")
        sys.stderr.write(f"{said.replace('text_field or messages_field', '--text-field or --messages-field')}\n")
        return 2
    Path(asked["answer"]).write_text(json.dumps(answer))
    return 0


def compare(section: Mapping[str, Any], revision: str | None, checkpoints: Sequence[Path]) -> dict[str, Any]:
    """Measure the base model alone and with each adapter.

    Args:
        section: a job section whose `data` is the file of new inputs.
        revision: the commit of a model that comes from the hub.
        checkpoints: directories with an adapter in PEFT's form.

    Returns:
        Under `base`, and for each checkpoint's path under `checkpoints`: `loss` (mean per token) and `perplexity`;
        `tokens` that it is the mean of.

    Raises:
        JobError: model or data cannot be loaded, or have nothing to measure.
    """
    import torch
    from peft import PeftModel

    from jobs.lora_data import longest
    from jobs.lora_model import load_base, load_tokenizer, positions_of
    from jobs.lora_pins import Pin

    args = parse(section)
    pin = Pin(args.model, revision=revision)
    training = args.given_training()
    device = torch.device("cuda" if torch.cuda.is_available() and not training.get("use_cpu") else "cpu")
    settings = SimpleNamespace(bf16=bool(training.get("bf16")), fp16=bool(training.get("fp16")), device=device)
    tokenizer = load_tokenizer(args, pin)
    model = load_base(args, pin, settings)
    if args.quantization == "none":
        model = model.to(device)
    batches = _batches(args, tokenizer, longest(args.max_length, tokenizer, positions_of(model)))
    measured, tokens = {}, sum(_carrying(batch) for batch in batches)
    base = _mean_loss(model.eval(), batches, device)
    for number, checkpoint in enumerate(checkpoints):
        _say(f"{checkpoint.name}: adapter {number + 1} of {len(checkpoints)}")
        name = f"adapter-{number}"
        if number == 0:
            model = PeftModel.from_pretrained(model, str(checkpoint), adapter_name=name)
        else:
            model.load_adapter(str(checkpoint), adapter_name=name)
            model.set_adapter(name)
            model.delete_adapter(f"adapter-{number - 1}")
        measured[str(checkpoint)] = _mean_loss(model.eval(), batches, device)
    return {"base": base, "checkpoints": measured, "tokens": tokens}


def _batches(args: LoraArgs, tokenizer: Any, max_length: int) -> list[dict[str, Any]]:
    """The file's examples as padded batches, longest first, so that want of memory shows at once."""
    from jobs.lora_data import Reading, make_tokens, open_tokens, padding_for
    from jobs.lora_load import Source
    from jobs.lora_pins import Pin

    path = Path(args.data).resolve()
    status = path.stat()
    pin = Pin(str(path), files={path.name: f"{status.st_size} {status.st_mtime_ns}"})
    source = Source("data", str(path), args.data_config, args.data_split, pin)
    with tempfile.TemporaryDirectory(prefix="compare-") as cache:
        reading = Reading(args, tokenizer, max_length, Path(cache))
        make_tokens(source, reading)
        examples = sorted(open_tokens(source, reading).to_list(), key=lambda one: -len(one["input_ids"]))
    pad = padding_for(tokenizer, multiple=1)
    return [pad(examples[at : at + BATCH]) for at in range(0, len(examples), BATCH)]


def _carrying(batch: Mapping[str, Any]) -> int:
    from jobs.lora_chat import IGNORED

    return int((batch["labels"][:, 1:] != IGNORED).sum())


def _mean_loss(model: Any, batches: Sequence[Mapping[str, Any]], device: Any) -> dict[str, float]:
    import torch

    total, tokens = 0.0, 0
    with torch.inference_mode():
        for batch in batches:
            for part in _fitting(model, batch, device):
                total += part
            tokens += _carrying(batch)
    loss = total / tokens
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}


def _fitting(model: Any, batch: Mapping[str, Any], device: Any) -> Iterator[float]:
    """The summed loss of a batch, in halves where it does not fit into a GPU's memory."""
    import torch

    try:
        yield _summed_loss(model, {name: tensor.to(device) for name, tensor in batch.items()})
        return
    except torch.OutOfMemoryError:
        rows = len(batch["labels"])
        if rows == 1:
            raise JobError(
                "one example does not fit into the GPU's memory", "lower max_length in the job file"
            ) from None
        torch.cuda.empty_cache()
    for half in (slice(0, rows // 2), slice(rows // 2, rows)):
        yield from _fitting(model, {name: tensor[half] for name, tensor in batch.items()}, device)


def _summed_loss(model: Any, batch: Mapping[str, Any]) -> float:
    """In float32, whatever the model computes in."""
    import torch

    from jobs.lora_chat import IGNORED

    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    targets = batch["labels"][:, 1:]
    flat = logits.reshape(-1, logits.shape[-1]).float()
    summed = torch.nn.functional.cross_entropy(flat, targets.reshape(-1), ignore_index=IGNORED, reduction="sum")
    return float(summed)


def _say(words: str) -> None:
    sys.stderr.write(f"{words}\n")


if __name__ == "__main__":
    sys.exit(main())
