"""The keys of `lora:` and `training:`, known without importing peft or transformers.

A typo has to be refused before a node is held, on machines where an import of
transformers takes ten seconds; so the names and types stand here, and a test
holds them against the installed libraries. What is listed here and the
installed release lacks is refused by the worker at load.

A key whose use would break the promise that a run resumes exactly is listed
too, with the reason why it is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model
from pydantic_core import PydanticCustomError

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Names = str | list[str]
Mapped = dict[str, Any]


def _off_is_no(value: Any) -> Any:
    """YAML 1.1 reads the bare word `no` as false."""
    return "no" if value is False else value


def refused(reason: str) -> Any:
    """The type of a key that exists in the library and must not be used here."""

    def refuse(value: Any) -> Any:
        if value:
            raise PydanticCustomError("refused", "refused: {reason}", {"reason": reason})
        return None  # `false` is the default: as if the key were not there

    return Annotated[Any, BeforeValidator(refuse), Field(description=f"refused: {reason}")]


def _checked(check: Callable[[Any], Any], kind: Any) -> Any:
    return Annotated[kind, BeforeValidator(check)]


#: Initialisations that leave the base model's weights alone, so that base and adapter suffice to go on.
PLAIN_INITS = ("gaussian", "orthogonal")


def _plain_init(value: Any) -> Any:
    if isinstance(value, bool) or value in PLAIN_INITS:
        return value
    reason = (
        f"{value!r} changes weights outside of the adapter when it starts, and a checkpoint holds the adapter only; "
        f"allowed are true, false, {', '.join(PLAIN_INITS)}"
    )
    raise PydanticCustomError("refused", "refused: {reason}", {"reason": reason})


def _seedable(value: Any) -> Any:
    if isinstance(value, dict) and value.get("use_seedable_sampler") is False:
        reason = "without the seedable sampler the order of the data is lost at a restart"
        raise PydanticCustomError("refused", "refused: use_seedable_sampler: false: {reason}", {"reason": reason})
    return value


def _repeatable_order(value: Any) -> Any:
    if value == "group_by_length":
        reason = "it draws the order from the global random state, which a restart within an epoch does not bring back"
        raise PydanticCustomError("refused", "refused: group_by_length: {reason}", {"reason": reason})
    return value


_Strategy = _checked(_off_is_no, Literal["no", "steps", "epoch"])
_SaveStrategy = _checked(_off_is_no, Literal["no", "steps", "epoch", "best"])
# transformers.trainer_utils.SchedulerType
_Schedule = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
    "reduce_lr_on_plateau", "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay", "greedy",
]  # fmt: skip
# transformers.training_args.OptimizerNames
_Optimizer = Literal[
    "adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused", "adafactor", "adamw_anyprecision",
    "adamw_torch_4bit", "adamw_torch_8bit", "ademamix", "sgd", "adagrad", "adamw_bnb_8bit", "adamw_8bit",
    "ademamix_8bit", "lion_8bit", "lion_32bit", "paged_adamw_32bit", "paged_adamw_8bit", "paged_ademamix_32bit",
    "paged_ademamix_8bit", "paged_lion_32bit", "paged_lion_8bit", "rmsprop", "rmsprop_bnb", "rmsprop_bnb_8bit",
    "rmsprop_bnb_32bit", "galore_adamw", "galore_adamw_8bit", "galore_adafactor", "galore_adamw_layerwise",
    "galore_adamw_8bit_layerwise", "galore_adafactor_layerwise", "lomo", "adalomo", "grokadamw",
    "schedule_free_radam", "schedule_free_adamw", "schedule_free_sgd", "apollo_adamw", "apollo_adamw_layerwise",
    "stable_adamw",
]  # fmt: skip

_OTHER_INIT = "this initialisation changes weights outside of the adapter, which a checkpoint does not hold"
_RUN_DIR = "the job file's `run_dir` says where everything of the run lives"

#: `peft.LoraConfig`, 0.17 to 0.21.
LORA_KEYS: dict[str, Any] = {
    "r": Count,
    "lora_alpha": float | int,
    "lora_dropout": Share,
    "target_modules": Names,
    "exclude_modules": Names,
    "target_parameters": list[str],
    "modules_to_save": list[str],
    "bias": Literal["none", "all", "lora_only"],
    "lora_bias": bool,
    "use_rslora": bool,
    "use_dora": bool,
    "init_lora_weights": _checked(_plain_init, bool | str),
    "fan_in_fan_out": bool,
    "layers_to_transform": int | list[int],
    "layers_pattern": Names,
    "rank_pattern": dict[str, int],
    "alpha_pattern": dict[str, float | int],
    "trainable_token_indices": list[int] | dict[str, list[int]],
    "layer_replication": list[tuple[int, int]],
    "alora_invocation_tokens": list[int],
    "use_qalora": bool,
    "qalora_group_size": Count,
    "ensure_weight_tying": bool,
    "task_type": Literal["CAUSAL_LM"],
    "megatron_config": refused("jobs.lora trains transformers models, not Megatron's"),
    "loftq_config": refused(_OTHER_INIT),
    "eva_config": refused(_OTHER_INIT),
    "corda_config": refused(_OTHER_INIT),
    "lora_ga_config": refused(_OTHER_INIT),
    "kasa_config": refused(_OTHER_INIT),
    "monteclora_config": refused("its sampler keeps a state that no checkpoint holds"),
    "arrow_config": refused("it routes between finished adapters and trains none"),
    "inference_mode": refused("it freezes the adapter"),
}

#: Fields of LoraConfig that a job file never sets.
LORA_LEFT_OUT = frozenset(
    {
        *("auto_mapping", "base_model_name_or_path", "peft_type", "peft_version", "revision"),  # set by peft itself
        *("megatron_core", "runtime_config", "use_bdlora", "velora_config"),  # take objects, or need another loader
    }
)

_INTEGERS = """
    eval_accumulation_steps torch_empty_cache_steps dataloader_num_workers dataloader_prefetch_factor
    ddp_bucket_cap_mb save_total_limit seed data_seed
"""
_COUNTS = """
    per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps ddp_timeout
"""
_FLOATS = """
    learning_rate weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm label_smoothing_factor warmup_steps
    neftune_noise_alpha eval_delay
"""
_POSITIVE = "num_train_epochs logging_steps eval_steps save_steps"
_SWITCHES = """
    average_tokens_across_devices bf16 fp16 bf16_full_eval fp16_full_eval tf32 gradient_checkpointing
    activation_checkpointing torch_compile use_liger_kernel use_cache logging_first_step log_on_each_node
    logging_nan_inf_filter disable_tqdm prediction_loss_only eval_on_start eval_do_concat_batches
    eval_use_gather_object batch_eval_metrics save_on_each_node push_to_hub hub_private_repo hub_always_push
    load_best_model_at_end greater_is_better restore_callback_states_from_checkpoint full_determinism use_cpu
    dataloader_drop_last dataloader_pin_memory dataloader_persistent_workers dataloader_in_order
    ddp_find_unused_parameters ddp_broadcast_buffers ddp_static_graph skip_memory_metrics do_train do_eval do_predict
"""
_TEXTS = """
    optim_args torch_compile_backend torch_compile_mode run_name project trackio_space_id
    trackio_bucket_id hub_token hub_model_id hub_strategy hub_revision metric_for_best_model
    dataloader_multiprocessing_context length_column_name ddp_backend
"""

#: `transformers.TrainingArguments`, 5.0 to 5.23.
TRAINING_KEYS: dict[str, Any] = {
    **dict.fromkeys(_INTEGERS.split(), Annotated[int, Field(ge=0)]),
    **dict.fromkeys(_COUNTS.split(), Count),
    **dict.fromkeys(_FLOATS.split(), Annotated[float, Field(ge=0.0)]),
    **dict.fromkeys(_POSITIVE.split(), Annotated[float, Field(gt=0.0)]),
    **dict.fromkeys(_SWITCHES.split(), bool),
    **dict.fromkeys(_TEXTS.split(), str),
    "max_steps": Annotated[int, Field(ge=-1)],
    "lr_scheduler_type": _Schedule,
    "lr_scheduler_kwargs": Mapped,
    "optim": _Optimizer,
    "optim_target_modules": Names,
    "logging_strategy": _Strategy,
    "eval_strategy": _Strategy,
    "save_strategy": _SaveStrategy,
    "log_level": Literal["debug", "info", "warning", "error", "critical", "passive"],
    "log_level_replica": Literal["debug", "info", "warning", "error", "critical", "passive"],
    "include_num_input_tokens_seen": bool | Literal["all", "non_padding", "no"],
    "include_for_metrics": list[str],
    "report_to": Names,
    "gradient_checkpointing_kwargs": Mapped,
    "activation_checkpointing_kwargs": Mapped,
    "liger_kernel_config": dict[str, bool],
    "trackio_static_space_id": str | Literal[False],
    "train_sampling_strategy": _checked(_repeatable_order, Literal["random", "sequential", "batch_rebalance"]),
    "accelerator_config": _checked(_seedable, Mapped),
    "fsdp": bool | Names,
    "fsdp_config": Mapped | str,
    "deepspeed": Mapped | str,
    "debug": Names,
    "auto_find_batch_size": refused(
        "after an out-of-memory it starts again at step 0 with weights that are already trained; "
        "the supervisor halves the micro-batch from the last step instead (recovery.on_oom)"
    ),
    "enable_jit_checkpoint": refused(
        "it saves random state one step ahead of the weights, and ranks do not agree on the step; "
        "the supervisor saves when a notice comes"
    ),
    "ignore_data_skip": refused("a restart would train again on data it has seen"),
    "save_only_model": refused("without the optimizer a restart begins with a fresh one, silently"),
    "resume_from_checkpoint": refused("the job file's `start_from` names what to begin with"),
    "output_dir": refused(_RUN_DIR),
    "remove_unused_columns": refused("the data holds nothing that the model does not take"),
    "label_names": refused("the labels are made here"),
    "parallelism_config": refused("it takes an object; set `launch.accelerate` in the job file"),
}

#: Fields of TrainingArguments that a job file never sets.
TRAINING_LEFT_OUT = frozenset({"local_rank"})


def _model(name: str, keys: dict[str, Any]) -> type[BaseModel]:
    fields: dict[str, Any] = {key: (kind | None, None) for key, kind in keys.items()}
    return create_model(name, __config__=ConfigDict(extra="forbid", frozen=True, protected_namespaces=()), **fields)


class LoraKeys(_model("LoraKeys", LORA_KEYS)):  # type: ignore[misc]
    """What `lora:` may hold: the names of `peft.LoraConfig`."""


class TrainingKeys(_model("TrainingKeys", TRAINING_KEYS)):  # type: ignore[misc]
    """What `training:` may hold: the names of `transformers.TrainingArguments`."""
