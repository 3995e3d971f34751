"""The tokenizer, and the base model with the adapter on it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jobs.lora_check import local_path, need_package
from supervisor.errors import JobError

if TYPE_CHECKING:
    import torch

    from jobs.lora_args import LoraArgs
    from jobs.lora_pins import Pin

T = TypeVar("T")


def load_tokenizer(args: LoraArgs, pin: Pin) -> Any:
    """Load the model's tokenizer, with the job's chat template if it names one.

    Raises:
        JobError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    tokenizer = _from_hub_or_disk(args, pin, "tokenizer", AutoTokenizer.from_pretrained)
    if args.chat_template is not None:
        tokenizer.chat_template = Path(args.chat_template).expanduser().read_text()
    return tokenizer


def load_model(args: LoraArgs, pin: Pin, settings: Any) -> Any:
    """Load the base model and put a fresh adapter on it.

    The adapter's weights are random: seed before. The base model's commit is
    written into the adapter's configuration.

    Args:
        args: the job section.
        pin: what `args.model` stands for.
        settings: transformers' TrainingArguments.

    Raises:
        JobError: the model cannot be loaded, or `lora:` does not fit it.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    model = load_base(args, pin, settings)
    checkpointing = settings.gradient_checkpointing
    if args.quantization != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if checkpointing:
        model.enable_input_require_grads()  # with a frozen base nothing else would ask for a gradient
    try:
        config = LoraConfig(**{"task_type": "CAUSAL_LM", "target_modules": "all-linear", **args.given_lora()})
        adapted = get_peft_model(model, config, revision=pin.revision)
    except (TypeError, ValueError) as error:
        version = importlib.metadata.version("peft")
        raise JobError(
            f"args.lora: {_first_line(error)}", f"change it to what this model and peft {version} take"
        ) from error
    written = adapted.peft_config["default"]
    written.base_model_name_or_path = _found_again(args.model)
    for name in ("target_modules", "exclude_modules", "modules_to_save"):
        if isinstance(names := getattr(written, name, None), set):
            setattr(written, name, sorted(names))  # a set is written in another order by every process
    return adapted


def load_base(args: LoraArgs, pin: Pin, settings: Any) -> Any:
    """Load the base model alone; arguments and errors of `load_model`."""
    from transformers import AutoModelForCausalLM

    dtype = base_dtype(bf16=settings.bf16, fp16=settings.fp16, on_cpu=settings.device.type == "cpu")
    options: dict[str, Any] = {"dtype": dtype}
    if args.quantization != "none":
        options |= {"quantization_config": _quantization(args.quantization, dtype), "device_map": {"": settings.device}}
    return _from_hub_or_disk(args, pin, "model", AutoModelForCausalLM.from_pretrained, **options)


def base_dtype(*, bf16: bool, fp16: bool, on_cpu: bool) -> torch.dtype | str:
    """The dtype of the frozen weights; the adapter's own are float32 in any case (peft).

    What training computes in; where that is not said, float32 on a CPU, and on a GPU what
    the model was stored in.
    """
    import torch

    if bf16 or fp16:
        return torch.bfloat16 if bf16 else torch.float16
    return torch.float32 if on_cpu else "auto"


def positions_of(model: Any) -> int | None:
    """How many positions the model can tell apart, if its configuration says so."""
    limit = getattr(model.config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def _from_hub_or_disk(args: LoraArgs, pin: Pin, what: str, load: Callable[..., T], **options: Any) -> T:
    """Load by the pinned commit; when the hub does not answer, from the local cache alone.

    Raises:
        JobError: it cannot be loaded.
    """
    from safetensors import SafetensorError

    from supervisor.worker.hub import cached

    path = local_path(args.model, Path.cwd())
    try:
        if path is None:
            path = cached(args.model, pin.revision)
        if path is None:
            return load(args.model, revision=pin.revision, **options)
        return load(str(path), **options)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise JobError(
            f"args.model: the {what} of {args.model} cannot be loaded ({_first_line(error)})",
            "name a causal language model that the installed transformers knows, whole and readable",
        ) from error


def _quantization(kind: str, dtype: Any) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    need_package(("bitsandbytes",), f"quantization: {kind}")
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = dtype if isinstance(dtype, torch.dtype) else torch.bfloat16
    # QLoRA's own choice (arXiv:2305.14314): NormalFloat4, constants quantized again.
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def _found_again(model: str) -> str:
    """What to write into the adapter: the hub's name, or an absolute path."""
    path = local_path(model, Path.cwd())
    return model if path is None else str(path.resolve())


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
