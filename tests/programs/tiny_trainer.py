"""A Trainer script with everything that has broken resumes: dropout, evaluation, loader workers, accumulation.

Usage: tiny_trainer.py --out DIR --max_steps N [--sleep SECONDS] ...

At named points (`load`, `begin`, `substep-<n>`, `step-<n>`, `evaluation-<n>`, `save-<n>`, `trained`) it does what it
is asked to, see places.py.
"""

from __future__ import annotations

import quick_start  # noqa: F401 # isort: skip

import argparse
import hashlib
import json
import os
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from places import POISON, Numbers, Places
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from supervisor.worker import SupervisorCallback, resume_point


class PlacesOfTrainer(Places, TrainerCallback):
    """Those that a Trainer calls at."""

    def on_train_begin(self, args, state, control, **kwargs) -> None:  # type: ignore[no-untyped-def]
        self.reach("begin")

    def on_substep_end(self, args, state, control, **kwargs) -> None:  # type: ignore[no-untyped-def]
        self.reach(f"substep-{state.global_step + 1}")

    def on_step_end(self, args, state, control, **kwargs) -> None:  # type: ignore[no-untyped-def]
        self.reach(f"step-{state.global_step}")

    def on_prediction_step(self, args, state, control, **kwargs) -> None:  # type: ignore[no-untyped-def]
        self.reach(f"evaluation-{state.global_step}")


def digest(model: torch.nn.Module) -> str:
    """Of what is trained of a model, whole."""
    found = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
            found.update(name.encode() + whole.detach().numpy().tobytes())
    return found.hexdigest()


class Trace(TrainerCallback):
    """Writes a digest of the adapter after every step: what must be the same in every life."""

    def __init__(self, path: Path, sleep_s: float) -> None:
        self.path, self.sleep_s = path, sleep_s

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs) -> None:  # type: ignore[no-untyped-def]
        line = {
            "step": state.global_step,
            "digest": digest(model),
            "attempt": os.environ.get("SUPERVISOR_ATTEMPT"),
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.sleep_s:
            time.sleep(self.sleep_s)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs) -> None:  # type: ignore[no-untyped-def]
        line = {"step": state.global_step, "attempt": os.environ.get("SUPERVISOR_ATTEMPT")}
        with self.path.with_name(f"evaluations-{self.path.stem}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


class Placed(Trainer):
    """Whose saving is a named point, too."""

    places: Places

    def _save(self, output_dir=None, state_dict=None):  # type: ignore[no-untyped-def]
        self.places.reach(f"save-{self.state.global_step}")
        super()._save(output_dir, state_dict)


class Stubborn(Placed):
    """Overrides `train` and does not call up, so nothing that is put in the place of `Trainer.train` reaches it."""

    def train(self, resume_from_checkpoint=None, **kwargs):  # type: ignore[no-untyped-def]
        return self._inner_training_loop(batch_size=self.args.train_batch_size, args=self.args)


class Fragile(Placed):
    """Meets data on which its loss is no number, or parameters from which it is none, and leaves a step out if told."""

    leave_out = wrong_from = high_from = -9
    samples: Path | None = None

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):  # type: ignore[no-untyped-def]
        poisoned = bool((inputs["input_ids"] == POISON).all(dim=1).any())
        found = super().compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)
        if model.training and (poisoned or 0 <= self.wrong_from <= self.state.global_step):
            return found * float("nan")
        return found * 100 if self.high_from <= self.state.global_step + 1 < self.high_from + 5 else found

    def training_step(self, model, inputs, *args, **kwargs):  # type: ignore[no-untyped-def]
        if self.samples is not None:
            rows = [":".join(map(str, row)) for row in inputs["input_ids"].tolist()]
            with self.samples.open("a") as file:
                line = {"step": self.state.global_step + 1, "life": os.environ.get("SUPERVISOR_ATTEMPT"), "rows": rows}
                file.write(json.dumps(line) + "\n")
        if self.state.global_step + 1 == self.leave_out:
            return torch.zeros(())  # without gradients AdamW changes nothing
        return super().training_step(model, inputs, *args, **kwargs)


def shard_on_cpu(arguments: TrainingArguments) -> None:
    """Have accelerate shard on a CPU, where it passes FSDP over without a word: it does for what it takes for GPUs."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    assert arguments.device.type == "cpu"
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def mix_on_cpu(trainer: Trainer, scale: float) -> None:
    """Have accelerate mix 16 and 32 bits, with losses scaled, on a CPU, where it makes no scaler."""
    trainer.accelerator.state._mixed_precision = "fp16"
    trainer.accelerator.native_amp = True
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=3)


def quantised(base: LlamaForCausalLM, kind: str, place: Path) -> LlamaForCausalLM:
    """The same base as bitsandbytes loads it."""
    from peft import prepare_model_for_kbit_training
    from transformers import BitsAndBytesConfig

    if not place.exists():
        base.save_pretrained(place)
    how = BitsAndBytesConfig(load_in_4bit=kind == "4bit", load_in_8bit=kind == "8bit", llm_int8_skip_modules=[])
    model = LlamaForCausalLM.from_pretrained(place, quantization_config=how, device_map={"": "cpu"})
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max_steps", "--steps", type=int, default=20)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--sleep", type=float, default=0.0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--straggle", type=float, default=0.0, help="seconds that rank 1 takes for each row")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--eval-steps", type=int, default=0)
    parser.add_argument("--save-steps", type=int, default=0)
    parser.add_argument("--find-unused", default="false")
    parser.add_argument("--optim", default="adamw_torch")
    parser.add_argument("--lora-rank", type=int, default=4)
    parser.add_argument("--poison", type=int, default=-1, help="index of a sample on which the loss is no number")
    parser.add_argument("--wrong-from", type=int, default=-1, help="after so many steps every loss is no number")
    parser.add_argument(
        "--high-from", type=int, default=-9, help="a step from which five losses are a hundred times as high"
    )
    parser.add_argument("--leave-out", type=int, default=-1, help="a step that is passed over by the program itself")
    parser.add_argument("--quantise", choices=["4bit", "8bit"], help="the base, by bitsandbytes")
    parser.add_argument("--scale", type=float, help="scale losses, from so much on and up again every third step")
    parser.add_argument("--samples", action="store_true", help="write down what each step is made of")
    parser.add_argument("--shards", type=int, help="FSDP of this version")
    parser.add_argument("--plain", action="store_true", help="a script that knows nothing of a supervisor")
    parser.add_argument("--resume", help="with --plain: a stock checkpoint to go on from")
    parser.add_argument("--stubborn", action="store_true", help="always trains from its own beginning")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rank = int(os.environ.get("RANK", "0"))
    places = PlacesOfTrainer(options.out / "places", rank)
    places.reach("load")
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
    base = LlamaForCausalLM(config)
    model = get_peft_model(
        quantised(base, options.quantise, options.out / "base") if options.quantise else base,
        LoraConfig(r=options.lora_rank, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    arguments = TrainingArguments(
        output_dir=str(options.out / "trainer"),
        max_steps=options.max_steps,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=options.accumulate,
        learning_rate=1e-2,
        lr_scheduler_type="cosine",
        logging_steps=3,
        save_strategy="steps" if options.save_steps else "no",
        save_steps=options.save_steps or 500,
        eval_strategy="steps" if options.eval_steps else "no",
        eval_steps=options.eval_steps or None,
        dataloader_num_workers=options.workers,
        ddp_find_unused_parameters=options.find_unused == "true",
        optim=options.optim,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=3,
        **(
            {"fsdp": True, "fsdp_config": {"version": options.shards, "sync_module_states": False}}
            if options.shards
            else {}
        ),
    )
    if options.shards:
        shard_on_cpu(arguments)
    trace = Trace(options.out / f"trace-{rank}.jsonl", options.sleep)
    Fragile.leave_out, Fragile.wrong_from = options.leave_out, options.wrong_from
    Fragile.high_from = options.high_from
    trainer = (Stubborn if options.stubborn else Fragile)(
        model=model,
        args=arguments,
        train_dataset=Numbers(options.rows, options.poison, options.straggle if rank == 1 else 0.0),
        eval_dataset=Numbers(12),
        callbacks=[trace, places, *([] if options.plain else [SupervisorCallback()])],
    )
    if options.scale:
        mix_on_cpu(trainer, options.scale)
    trainer.places = places
    trainer.samples = options.out / f"samples-{rank}.jsonl" if options.samples else None
    trainer.train(resume_from_checkpoint=options.resume if options.plain else resume_point())
    with (options.out / f"end-{rank}.jsonl").open("a") as file:
        file.write(json.dumps(digest(model)) + "\n")
    places.reach("trained")


if __name__ == "__main__":
    main()
