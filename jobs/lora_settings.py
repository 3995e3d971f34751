"""From the keys of `training:` to transformers' TrainingArguments, and what belongs in the environment.

The defaults are those of a LoRA run under a supervisor: it makes the
checkpoints, so the Trainer saves nothing by itself.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supervisor.errors import JobError

if TYPE_CHECKING:
    from jobs.lora_args import LoraArgs


def prepare_environment(run_dir: Path, name: str, environ: MutableMapping[str, str]) -> None:
    """Have trackers go on in the same run, and compile caches outlive an attempt.

    To be called before torch is imported. What the user has set stays.

    Args:
        run_dir: the run's directory.
        name: of the job.
        environ: changed in place.

    Source:
        docs.wandb.ai, "Environment variables"; transformers/integrations/integration_utils.py,
        TensorBoardCallback; torch/_inductor/runtime/cache_dir_utils.py; triton/knobs.py.
    """
    run_id = environ.get("SUPERVISOR_RUN_ID") or hashlib.blake2b(str(run_dir).encode(), digest_size=8).hexdigest()
    wanted = {
        "WANDB_RUN_ID": re.sub(r"[^A-Za-z0-9_-]", "-", f"{name}-{run_id}")[-128:],
        "WANDB_RESUME": "allow",
        "WANDB_DIR": str(run_dir),
        "TENSORBOARD_LOGGING_DIR": str(run_dir / "tensorboard"),
        "TORCHINDUCTOR_CACHE_DIR": str(run_dir / "cache" / "inductor"),
        "TRITON_CACHE_DIR": str(run_dir / "cache" / "triton"),
    }
    for key, value in wanted.items():
        environ.setdefault(key, value)


def training_arguments(args: LoraArgs, run_dir: Path, name: str, *, resuming: bool) -> Any:
    """Make the TrainingArguments of a job; this brings up torch.distributed.

    Args:
        args: the job section.
        run_dir: the run's directory.
        name: of the job, for trackers.
        resuming: this attempt goes on from a step.

    Raises:
        JobError: transformers does not take them.
    """
    import torch
    from transformers import TrainingArguments

    given = args.given_training()
    defaults: dict[str, Any] = {
        "output_dir": str(run_dir / "trainer"),
        "run_name": name,
        "learning_rate": 2e-4,  # LoRA takes ten times what full fine-tuning does (arXiv:2305.14314)
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 10,
        "disable_tqdm": True,  # logs go to files
        "remove_unused_columns": False,
        "label_names": ["labels"],  # a PeftModel's forward does not say
        "use_cpu": not torch.accelerator.is_available(),
        # Every adapter weight is used in every step. Its price, another rounding in the first
        # step after a restart, is paid by SupervisorCallback.
        "ddp_find_unused_parameters": False,
        # One process of a node tokenises while the others wait in a barrier.
        "ddp_timeout": 3 * 3600,
    }
    if args.eval_data is not None:
        defaults["eval_strategy"] = "steps"
        if given.get("eval_strategy", "steps") == "steps":
            defaults["eval_steps"] = 0.1  # a share of all steps
        if size := given.get("per_device_train_batch_size"):
            defaults["per_device_eval_batch_size"] = size  # what fits for training fits for evaluation
    if given.get("gradient_checkpointing") or given.get("activation_checkpointing"):
        kind = "activation" if "activation_checkpointing" in given else "gradient"
        defaults[f"{kind}_checkpointing_kwargs"] = {"use_reentrant": False}  # the other kind breaks under DDP
    chosen = {**defaults, **given}
    if resuming:
        chosen["eval_on_start"] = False  # it was done when the run began
    try:
        return TrainingArguments(**chosen)
    except (TypeError, ValueError, ImportError) as error:
        version = importlib.metadata.version("transformers")
        message = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise JobError(f"args.training: {message}", f"change it to what transformers {version} takes") from error
