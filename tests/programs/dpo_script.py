"""A stock TRL script for preference optimisation, without one line of ours.

Usage: dpo_script.py --out DIR --assets DIR --max_steps N [--whole], where the assets are those of jobs.demo_assets.
With an adapter the reference is the base below it, with a whole model it is a copy of that model as it began.
"""

import argparse
from pathlib import Path

from datasets import load_dataset
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--assets", type=Path, required=True)
parser.add_argument("--max_steps", type=int, default=16)
parser.add_argument("--whole", action="store_true", help="train all weights, not an adapter")
options = parser.parse_args()


def preference(row):  # type: ignore[no-untyped-def]
    """The documented answer is preferred to the same one backwards."""
    question, answer = row["messages"]
    worse = {**answer, "content": answer["content"][::-1]}
    return {"prompt": [question], "chosen": [answer], "rejected": [worse]}


rows = load_dataset("json", data_files=str(options.assets / "train.jsonl"), split="train")
pairs = rows.select(range(48)).map(preference, remove_columns=rows.column_names)
adapter = LoraConfig(r=4, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM")
trainer = DPOTrainer(
    model=str(options.assets / "base"),
    args=DPOConfig(
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
    train_dataset=pairs.select(range(40)),
    eval_dataset=pairs.select(range(40, 48)),
    peft_config=None if options.whole else adapter,
)
trainer.train()
