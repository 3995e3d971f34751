"""A loop of one's own on accelerate with everything that has broken resumes, for the options that ask for it.

Usage: own_loop.py --out DIR --max_steps N [--accumulate 2] [--optimizers 2] [--loader stateful] [--noise] ...

With `--model light` it starts twice as fast as what needs transformers and peft: for tests of what is around a program.
Named points (see places.py): `load`, `begin`, `substep-<n>`, `step-<n>`, `evaluation-<n>`, `trained`.
"""

from __future__ import annotations

import quick_start  # noqa: F401 # isort: skip

import argparse
import contextlib
import hashlib
import json
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs, GradientAccumulationPlugin
from places import Numbers, Places
from torch.utils.data import DataLoader, IterableDataset, default_collate

from supervisor.worker import Session, fitting_batch


class Stream(IterableDataset):
    """The same rows, one after the other."""

    def __init__(self, rows: Numbers) -> None:
        self.rows = rows

    def __iter__(self) -> Any:
        return (self.rows[i] for i in range(len(self.rows)))


class Average:
    """An average of the weights, as many programs keep one."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        self.parameters = parameters
        self.values = [p.detach().clone() for p in parameters]
        self.updates = 0

    def update(self) -> None:
        self.updates += 1
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 0.1)

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values, self.updates = [v.clone() for v in state["values"]], state["updates"]


def collate(rows: list[dict[str, torch.Tensor]], *, noise: bool) -> dict[str, torch.Tensor]:
    """As masking collators do, draw random numbers while making a batch."""
    made: dict[str, torch.Tensor] = default_collate(rows)
    if noise:
        masked = torch.rand(made["input_ids"].shape) < 0.2
        masked[0, random.randrange(masked.shape[1])] = True
        made["input_ids"] = made["input_ids"].masked_fill(masked, int(np.random.randint(60)))
    return made


@dataclass
class Output:
    """As models of transformers answer."""

    loss: torch.Tensor


class Light(torch.nn.Module):
    """Says a token after each token, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(64, 32)
        self.dropout = torch.nn.Dropout(0.1)
        self.head = torch.nn.Linear(32, 64)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> Output:
        scores = self.head(self.dropout(self.embedding(input_ids)))
        return Output(torch.nn.functional.cross_entropy(scores[:, :-1].flatten(0, 1), labels[:, 1:].flatten()))


def tiny_model(kind: str) -> torch.nn.Module:
    if kind == "light":
        return Light()
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        attention_dropout=0.1,
    )
    model: torch.nn.Module = LlamaForCausalLM(config)
    if kind == "whole":
        return model
    return get_peft_model(model, LoraConfig(r=4, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM"))


def digest(parameters: list[torch.nn.Parameter], average: Average) -> str:
    found = hashlib.sha256()
    for tensor in (*parameters, *average.values):
        found.update(tensor.detach().numpy().tobytes())
    return found.hexdigest()


def write_samples(path: Path, step: int, batch: torch.Tensor) -> None:
    rows = [":".join(map(str, row)) for row in batch.tolist()]
    with path.open("a") as file:
        file.write(json.dumps({"step": step, "life": os.environ.get("SUPERVISOR_ATTEMPT"), "rows": rows}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max_steps", "--steps", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--sleep", type=float, default=0.0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--by-hand", action="store_true", help="accumulate without accelerate")
    parser.add_argument("--optimizers", type=int, default=1)
    parser.add_argument("--loader", choices=("plain", "stateful", "stream", "seedable"), default="plain")
    parser.add_argument("--model", choices=("adapter", "whole", "light"), default="adapter")
    parser.add_argument("--noise", action="store_true", help="a collator that draws random numbers")
    parser.add_argument("--eval-steps", type=int, default=0)
    parser.add_argument("--wrong-at", type=int, default=-1, help="a step whose loss is no number")
    parser.add_argument("--find-unused", default="true")
    parser.add_argument("--samples", action="store_true", help="write down what each step is made of")
    parser.add_argument("--stubborn", action="store_true", help="accumulates as it likes")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rank = int(os.environ.get("RANK", "0"))
    places = Places(options.out / "places", rank)
    places.reach("load")
    torch.manual_seed(1)
    random.seed(2)
    np.random.seed(3)
    size, times = (2, options.accumulate) if options.stubborn else fitting_batch(2, options.accumulate)
    accelerator = Accelerator(
        cpu=True,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1 if options.by_hand else times),
        dataloader_config=DataLoaderConfiguration(
            use_stateful_dataloader=options.loader == "stateful", use_seedable_sampler=options.loader == "seedable"
        ),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=options.find_unused == "true")],
    )
    model = tiny_model(options.model)
    trained = [p for p in model.parameters() if p.requires_grad]
    shares = [trained[i :: options.optimizers] for i in range(options.optimizers)]
    optimizers = [torch.optim.AdamW(share, lr=1e-2 / (i + 1)) for i, share in enumerate(shares)]
    schedulers = [torch.optim.lr_scheduler.CosineAnnealingLR(one, 100) for one in optimizers]
    rows = Numbers(options.rows)
    loader = DataLoader(
        Stream(rows) if options.loader == "stream" else rows,
        batch_size=size,
        shuffle=options.loader != "stream",
        num_workers=options.workers,
        collate_fn=lambda batch: collate(batch, noise=options.noise),
    )
    model, loader = accelerator.prepare(model, loader)
    optimizers = [accelerator.prepare_optimizer(one) for one in optimizers]
    schedulers = [accelerator.prepare_scheduler(one) for one in schedulers]
    average = Average(trained)
    trace = options.out / f"trace-{rank}.jsonl"
    attempt = os.environ.get("SUPERVISOR_ATTEMPT")
    limits = {"max_steps": options.max_steps, "epochs": options.epochs}
    session = Session(accelerator, model, optimizers, schedulers, loader, **limits)
    session.register("average", average)
    model.train()
    places.reach("begin")
    with session:
        for number, batch in enumerate(session.batches(), 1):
            places.reach(f"substep-{session.step + 1}")
            if options.samples:
                write_samples(options.out / f"samples-{rank}.jsonl", session.step + 1, batch["input_ids"])
            whole = number % times == 0 or session.epoch_ends if options.by_hand else True
            with contextlib.nullcontext() if options.by_hand else accelerator.accumulate(model):
                loss = model(**batch).loss
                if session.step + 1 == options.wrong_at:
                    loss = loss * float("nan")
                accelerator.backward(loss)
                if whole:
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(trained, 1.0)
                    for one in (*optimizers, *schedulers):
                        one.step()
                    for one in optimizers:
                        one.zero_grad()
            if not session.step_done(loss):
                continue
            average.update()
            step = session.step
            with trace.open("a") as file:
                line = {"step": step, "digest": digest(trained, average), "attempt": attempt, "epoch": session.epoch}
                line["rate"] = schedulers[0].get_last_lr()[0]
                file.write(json.dumps(line) + "\n")
            if step % 3 == 0:
                mean = accelerator.gather(loss.detach()).mean().item()
                session.logged({"loss": mean, "learning_rate": schedulers[0].get_last_lr()[0]})
            places.reach(f"step-{step}")
            if options.sleep:
                time.sleep(options.sleep)
            if options.eval_steps and step % options.eval_steps == 0:
                with session.evaluating() as alive, torch.no_grad():
                    model.eval()
                    losses = []
                    for index in range(4):
                        row = Numbers(12)[index]["input_ids"][None]
                        losses.append(float(accelerator.unwrap_model(model)(input_ids=row, labels=row).loss))
                        torch.rand(1)  # an evaluation that draws
                        alive()
                        places.reach(f"evaluation-{step}")
                    model.train()
                session.evaluated({"eval_loss": sum(losses) / len(losses)})
    places.reach("trained")


if __name__ == "__main__":
    main()
