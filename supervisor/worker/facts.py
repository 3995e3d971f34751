"""What a snapshot tells of its program besides the state: libraries, base model, how a step is made up."""

from __future__ import annotations

import json
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import TrainerState, TrainingArguments


def batch_of(args: TrainingArguments | None) -> dict[str, int]:
    """How a step is made up, so that other numbers of ranks, or smaller micro-batches, can make up the same."""
    if args is None:
        return {}
    made = {"micro_batch": args.per_device_train_batch_size, "accumulation": args.gradient_accumulation_steps}
    own = {f"own_{name}": getattr(args, f"supervisor_own_{name}", value) for name, value in made.items()}
    return {**made, **own, "world_size": args.world_size}


def base_of(model: Any) -> dict[str, Any]:
    """Which base model was trained, as far as its configuration tells."""
    config = getattr(model, "config", None)
    method = getattr(getattr(config, "quantization_config", None), "quant_method", None)
    return {
        "name": getattr(config, "_name_or_path", None),
        "revision": getattr(config, "_commit_hash", None),
        "quantization": None if method is None else str(getattr(method, "value", method)),
    }


def libraries() -> dict[str, str]:
    """Releases of the libraries that a resume depends on."""
    found = {}
    for name in ("torch", "transformers", "peft", "accelerate", "lora-supervisor"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def trainer_state(state: TrainerState, trainer: Any) -> dict[str, Any]:
    """trainer_state.json without the log history, which is kept apart since it only grows."""
    from transformers.trainer_callback import ExportableState

    told = {f.name: getattr(state, f.name) for f in fields(state) if f.name != "log_history"}
    callbacks: dict[str, Any] = {}
    handler = getattr(trainer, "callback_handler", None)
    stateful = [c for c in handler.callbacks if isinstance(c, ExportableState)] if handler else []
    for one in [*stateful, *([trainer.control] if handler else [])]:
        name, known = type(one).__name__, callbacks.get(type(one).__name__)
        earlier = known if isinstance(known, list) else [known]
        callbacks[name] = one.state() if known is None else [*earlier, one.state()]
    told["stateful_callbacks"] = callbacks or told.get("stateful_callbacks")
    plain: dict[str, Any] = json.loads(json.dumps(told, default=float))
    return plain
