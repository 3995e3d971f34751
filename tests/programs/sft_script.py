"""A stock TRL script for supervised fine-tuning, without one line of ours.

Usage: sft_script.py --out DIR --assets DIR --max_steps N, where the assets are those of jobs.demo_assets.
"""

import argparse
from pathlib import Path

from datasets import load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--assets", type=Path, required=True)
parser.add_argument("--max_steps", type=int, default=16)
options = parser.parse_args()

rows = load_dataset("json", data_files=str(options.assets / "train.jsonl"), split="train")
trainer = SFTTrainer(
    model=str(options.assets / "base"),
    args=SFTConfig(
        output_dir=str(options.out / "trainer"),
        max_steps=options.max_steps,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        logging_steps=3,
        eval_strategy="steps",
        eval_steps=5,
        save_strategy="no",
        max_length=64,
        report_to="none",
        use_cpu=True,
        bf16=False,
    ),
    train_dataset=rows.select(range(40)),
    eval_dataset=rows.select(range(40, 48)),
    peft_config=LoraConfig(r=4, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM"),
)
trainer.train()
