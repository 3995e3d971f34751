"""A Trainer script, or TRL's, that knows nothing of a supervisor, on a GPU with little memory, see small_gpu.py.

Rows are of different lengths, so that a loss that is not normalised over a whole step shows. With `--late`
the batch is set after the arguments are made; `--kill-loader-above N` has a data-loader worker be killed
for memory, as the kernel does it, where there are more than N of them.
"""

from __future__ import annotations

import quick_start  # noqa: F401 # isort: skip

import argparse
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from small_gpu import install
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments


class Rows(Dataset):
    """Token sequences of 4 to 16 tokens, a pure function of their index."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": row(index)}


def row(index: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(index)
    length = int(torch.randint(4, 17, (1,), generator=generator))
    return torch.randint(1, 64, (length,), generator=generator)


class Killer(TrainerCallback):
    """Kills one data-loader worker where there are too many; torch raises in the middle of whatever runs then."""

    def __init__(self, most: int | None) -> None:
        self.most = most

    def on_step_begin(self, args, state, control, **kwargs) -> None:  # type: ignore[no-untyped-def]
        if self.most is not None and args.dataloader_num_workers > self.most:
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
            while True:
                time.sleep(0.005)


def pad(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """A batch; padding bears no loss."""
    ids = torch.nn.utils.rnn.pad_sequence([one["input_ids"] for one in rows], batch_first=True, padding_value=0)
    labels = ids.masked_fill(ids == 0, -100)
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max_steps", type=int, default=8)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--kill-loader-above", type=int)
    parser.add_argument("--drop-last", action="store_true")
    parser.add_argument("--late", action="store_true")
    parser.add_argument("--find", action="store_true", help="auto_find_batch_size")
    parser.add_argument("--trl", action="store_true")
    options = parser.parse_args()
    install()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, max_position_embeddings=64, pad_token_id=0, **shape))
    lora = LoraConfig(r=4, lora_dropout=options.dropout, target_modules="all-linear", task_type="CAUSAL_LM")
    settings: dict[str, Any] = {
        "output_dir": str(options.out / "trainer"),
        "max_steps": options.max_steps,
        "gradient_accumulation_steps": options.accumulate,
        "learning_rate": 5e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "dataloader_num_workers": options.workers,
        "dataloader_drop_last": options.drop_last,
        "auto_find_batch_size": options.find,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 3,
        "label_names": ["labels"],
        "remove_unused_columns": False,
    }
    if not options.late:
        settings["per_device_train_batch_size"] = options.batch
    make = with_trl if options.trl else with_transformers
    make(get_peft_model(model, lora), settings, options).train()


def with_transformers(model: Any, settings: dict[str, Any], options: argparse.Namespace) -> Trainer:
    """A stock Trainer, its arguments given by place."""
    arguments = TrainingArguments(**settings)
    arguments.per_device_train_batch_size = options.batch if options.late else arguments.per_device_train_batch_size
    return Trainer(model, arguments, pad, Rows(options.rows), callbacks=[Killer(options.kill_loader_above)])


def with_trl(model: Any, settings: dict[str, Any], options: argparse.Namespace) -> Trainer:
    """TRL's SFTTrainer; of plain TrainingArguments it makes a configuration of its own."""
    from datasets import Dataset as Table
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import SFTTrainer

    words = {f"t{n}": n for n in range(64)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="t0")), pad_token="t0", eos_token="t1"
    )
    table = Table.from_dict({"input_ids": [row(index).tolist() for index in range(options.rows)]})
    return SFTTrainer(model, TrainingArguments(**settings), train_dataset=table, processing_class=tokenizer)


if __name__ == "__main__":
    main()
