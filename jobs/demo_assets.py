"""Makes what the demo trains on, on the spot: data, a tokenizer and a tiny base model.

    python -m jobs.demo_assets DIR

DIR then holds `train.jsonl`, `eval.jsonl` and `base/`, a Llama of a few million
parameters that has read the standard library's source for half a minute. It
needs no network. What is there already and was made by the same recipe is kept,
what another made is replaced; DIR appears whole or not at all, so that a killed
build is simply done again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from jobs.demo_corpus import library_sources, pairs

RECIPE = "recipe.json"
_PARTIAL = ".partial-"
END, PAD = "<|end|>", "<|pad|>"
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>")

#: Each turn is `<|role|>`, a line break, the content, `<|end|>`, a line break.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What the assets are made of; equal recipes on one machine give equal bytes.

    Attributes:
        version: of this file's ways.
        python: whose library is read.
        train_pairs: rows of `train.jsonl`.
        eval_pairs: rows of `eval.jsonl`.
        vocabulary: tokens.
        hidden: width of the model.
        layers: of the model.
        steps: of pretraining; counted, not timed, so that the result is the same on a slow machine.
        batch: sequences in each.
        length: tokens in a sequence.
        threads: torch's; another number sums in another order.
    """

    version: int = 1
    python: str = platform.python_version()
    train_pairs: int = 2000
    eval_pairs: int = 200
    vocabulary: int = 2048
    hidden: int = 160
    layers: int = 2
    steps: int = 500
    batch: int = 8
    length: int = 128
    threads: int = 2


def main(argv: Sequence[str] | None = None) -> None:
    """Make the assets that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m jobs.demo_assets", description=str(__doc__).split("\n\n")[0])
    parser.add_argument("directory", type=Path, metavar="DIR")
    for name, default in asdict(Recipe()).items():
        if name not in {"version", "python"}:
            parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, metavar="N")
    options = vars(parser.parse_args(argv))
    _leave_tidily()
    make(options.pop("directory"), Recipe(**options))


def make(directory: Path, recipe: Recipe, fill: Callable[[Path, Recipe], None] | None = None) -> None:
    """Make the assets, unless they are there.

    Args:
        directory: where they are to be; replaced if another recipe made it.
        recipe: what of.
        fill: puts the assets into an empty directory.

    Raises:
        FileExistsError: there is something else in ``directory``.
        MachineError: this Python comes without its library's source.
    """
    directory = directory.absolute()
    _sweep(directory)
    before, asked = made_by(directory), asdict(recipe)
    if before == asked:
        _say(f"demo assets are in {directory}")
        return
    if directory.exists() and before is None and any(directory.iterdir()):
        raise FileExistsError(f"{directory} holds something that this did not make; name another directory")
    if before is not None:
        changed = (f"{key} {before.get(key)} → {value}" for key, value in asked.items() if before.get(key) != value)
        _say(f"demo assets in {directory} are made anew: {', '.join(changed)}")
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = directory.with_name(f"{_PARTIAL}{directory.name}-{os.getpid()}")
    partial.mkdir()
    try:
        (fill or fill_directory)(partial, recipe)
        (partial / RECIPE).write_text(json.dumps(asked, indent=1) + "\n")
        if directory.exists():
            shutil.rmtree(directory)
        partial.rename(directory)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _say(f"demo assets are in {directory}")


def made_by(directory: Path) -> dict[str, Any] | None:
    """The recipe by which ``directory`` was made, or None."""
    try:
        found = json.loads((directory / RECIPE).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def fill_directory(directory: Path, recipe: Recipe) -> None:
    """Make data, tokenizer and base model by a recipe.

    Raises:
        MachineError: this Python comes without its library's source.
    """
    from transformers.utils.logging import disable_progress_bar

    began_s = time.monotonic()
    sources = library_sources()
    found = pairs(sources)
    split = min(recipe.eval_pairs, len(found) // 4)
    _write_rows(directory / "eval.jsonl", [pair.messages() for pair in found[:split]])
    _write_rows(directory / "train.jsonl", [pair.messages() for pair in found[split : split + recipe.train_pairs]])
    _say(f"{len(found)} functions with a docstring in {len(sources)} modules")
    texts = [text for _, text in sources]
    tokenizer = _train_tokenizer(texts, recipe)
    _say(f"a tokenizer of {len(tokenizer)} tokens, {time.monotonic() - began_s:.0f} s")
    model = _pretrain(tokenizer, texts, recipe)
    disable_progress_bar()
    tokenizer.save_pretrained(directory / "base")
    model.save_pretrained(directory / "base")
    _say(f"a base model of {model.num_parameters():,} parameters, {time.monotonic() - began_s:.0f} s in all")


def _train_tokenizer(texts: Sequence[str], recipe: Recipe) -> Any:
    """A byte-level BPE tokenizer on a fixed part of the library."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[PAD, END, *_ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts[::4], trainer)  # a quarter has the words that matter
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=list(_ROLES),
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _pretrain(tokenizer: Any, texts: Sequence[str], recipe: Recipe) -> Any:
    """A tiny Llama that has read the library's source."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(recipe.threads)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden,
            intermediate_size=recipe.hidden * 8 // 3,
            num_hidden_layers=recipe.layers,
            num_attention_heads=max(1, recipe.hidden // 32),
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    blocks = _blocks(tokenizer, texts, recipe)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.95), fused=True)
    warmup = max(1, recipe.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (recipe.steps - step) / max(1, recipe.steps - warmup))
    )
    model.train()
    for step, block in enumerate(blocks, start=1):
        loss = model(input_ids=block, labels=block).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 50 == 0 or step == recipe.steps:
            _say(f"base model: step {step} of {recipe.steps}, loss {loss.item():.2f}")
    return model.eval()


def _blocks(tokenizer: Any, texts: Sequence[str], recipe: Recipe) -> Any:
    """Just enough of the library for every step, cut into sequences and shuffled: int64 (steps, B, T)."""
    import torch

    wanted = recipe.steps * recipe.batch * recipe.length
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
    ids: list[int] = []
    while len(ids) < wanted:
        for index in order:
            ids += [*tokenizer.backend_tokenizer.encode(texts[index]).ids, tokenizer.eos_token_id]
            if len(ids) >= wanted:
                break
    rows = torch.tensor(ids[:wanted]).view(-1, recipe.length)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))]
    return rows.view(recipe.steps, recipe.batch, recipe.length)


def _write_rows(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _leave_tidily() -> None:
    """Have the signals that end this process do so as an exception, which takes what is half made along.

    The terminal and `supervisor demo` may both send one: what comes after the first changes nothing.
    """

    def leave(signum: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, lambda signum, frame: None)
        raise SystemExit(128 + signum)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, leave)


def _sweep(directory: Path) -> None:
    """Remove what killed builds have left beside ``directory``; those that still run are let be."""
    for partial in directory.parent.glob(f"{_PARTIAL}{directory.name}-*"):
        pid = partial.name.rpartition("-")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(partial, ignore_errors=True)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
