"""The program that restart.py runs: a tiny LoRA Trainer, under our supervisor or the stock way.

With `--stock` it saves at every step and resumes from its newest checkpoint, as its manual
says; without, the supervisor does both. It notes the pid of every rank, and when each step
began and ended.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint


class Notes(TrainerCallback):
    """A line at the begin and at the end of every step, with the time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, what: str, step: int) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"what": what, "step": step, "pid": os.getpid(), "time": time.time()}) + "\n")

    def on_step_begin(self, args, state, control, **kwargs) -> None:  # type: ignore[no-untyped-def]
        self.note("begun", state.global_step + 1)
        time.sleep(0.1)  # room to be killed in, with everything of the step before settled and saved

    def on_step_end(self, args, state, control, **kwargs) -> None:  # type: ignore[no-untyped-def]
        self.note("done", state.global_step)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--stock", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    model = get_peft_model(
        LlamaForCausalLM(config), LoraConfig(r=4, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    arguments = TrainingArguments(
        output_dir=str(options.out / "trainer"),
        max_steps=options.steps,
        per_device_train_batch_size=2,
        save_strategy="steps" if options.stock else "no",
        save_steps=1,
        save_total_limit=2,
        ddp_find_unused_parameters=False,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    rows = [{"input_ids": torch.arange(16) + i % 40, "labels": torch.arange(16) + i % 40} for i in range(64)]
    notes = Notes(options.out / f"notes-{os.environ.get('RANK', '0')}.jsonl")
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[notes])
    output = Path(arguments.output_dir)
    last = get_last_checkpoint(str(output)) if options.stock and output.is_dir() else None
    trainer.train(resume_from_checkpoint=last)


if __name__ == "__main__":
    main()
