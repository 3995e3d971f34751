"""A run that goes on from the middle ends where it would have ended, though its random state is lost."""

from pathlib import Path
from typing import Any

from jobs.lora_args import LoraArgs
from jobs.lora_data import Reading, make_tokens, open_tokens, padding_for
from jobs.lora_load import sources_of
from jobs.lora_model import load_model, load_tokenizer
from jobs.lora_pins import Pin, fingerprint
from jobs.lora_seeding import SeedEveryStep
from jobs.lora_settings import training_arguments

STEPS, SAVED = 9, 4  # three to an epoch: neither begins one


def trained(base: Path, data: Path, run_dir: Path, resume_from: Path | None, seeding: bool) -> dict[str, Any]:
    """The adapter after the last step."""
    import torch
    from transformers import Trainer, set_seed

    torch.set_num_threads(1)  # more of them cost more than they bring on a model of this size
    args = LoraArgs.model_validate(
        {
            "model": str(base),
            "data": str(data),
            "lora": {"r": 4, "lora_dropout": 0.5},
            "training": {
                "max_steps": STEPS,
                "per_device_train_batch_size": 2,
                "gradient_accumulation_steps": 2,
                "save_strategy": "steps",
                "save_steps": SAVED,
                "learning_rate": 1e-2,
            },
        }
    )
    settings = training_arguments(args, run_dir, "exact", resuming=resume_from is not None)
    set_seed(settings.seed)
    pins = {"model": Pin(str(base), files={"x": "1"}), "data": Pin(str(data), files=fingerprint(data, "dataset"))}
    tokenizer = load_tokenizer(args, pins["model"])
    model = load_model(args, pins["model"], settings)
    [source] = sources_of(args, pins)
    reading = Reading(args, tokenizer, 64, run_dir / "cache")
    make_tokens(source, reading)
    trainer = Trainer(
        model=model,
        args=settings,
        train_dataset=open_tokens(source, reading),
        data_collator=padding_for(tokenizer, 1),
        callbacks=[SeedEveryStep(settings.seed, 0)] if seeding else [],
    )
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    return {name: value.clone() for name, value in model.state_dict().items() if "lora_" in name}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    import torch

    return all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())


def test_dropout_of_a_step_is_the_same_in_every_life(tiny_base: Path, chat_file: Path, tmp_path: Path) -> None:
    outcomes = {}
    for seeding in (True, False):
        run_dir = tmp_path / str(seeding)
        whole = trained(tiny_base, chat_file, run_dir, None, seeding)
        checkpoint = run_dir / "trainer" / f"checkpoint-{SAVED}"
        (checkpoint / "rng_state.pth").unlink()
        outcomes[seeding] = same(whole, trained(tiny_base, chat_file, run_dir, checkpoint, seeding))
    assert outcomes == {True: True, False: False}  # without the seeding the loss of the state shows
