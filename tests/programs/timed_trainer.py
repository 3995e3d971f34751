"""A stock Trainer script that writes down when each of its steps began; it knows nothing of a supervisor.

Usage: timed_trainer.py --times DIR --max-steps N --hidden H
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments


class Times(TrainerCallback):
    """One line a step: the clock at its beginning [monotonic s]."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_step_begin(self, args, state, control, **kwargs) -> None:  # type: ignore[no-untyped-def]
        with self.path.open("a") as file:
            file.write(f"{state.global_step} {time.perf_counter()}\n")


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--times", type=Path, required=True)
    arguments.add_argument("--max-steps", type=int, required=True)
    arguments.add_argument("--hidden", type=int, default=256)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=given.hidden,
        intermediate_size=2 * given.hidden,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
    )
    model = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=32, target_modules="all-linear"))
    ids = torch.randint(0, 256, (256, 128), generator=torch.Generator().manual_seed(1))
    rows = [{"input_ids": row, "labels": row} for row in ids]
    given.times.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=tempfile.mkdtemp(prefix="timed-"),
            max_steps=given.max_steps,
            per_device_train_batch_size=4,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_steps=10,
            disable_tqdm=True,
        ),
        train_dataset=rows,
        callbacks=[Times(given.times / f"rank-{os.environ.get('RANK', '0')}")],
    )
    trainer.train()


if __name__ == "__main__":
    main()
