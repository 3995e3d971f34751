"""The static names against the libraries that are installed."""

from dataclasses import MISSING, Field, fields

import pytest

from jobs.lora_keys import LORA_KEYS, LORA_LEFT_OUT, TRAINING_KEYS, TRAINING_LEFT_OUT, LoraKeys, TrainingKeys


def library_fields(which: str) -> list[Field]:
    if which == "peft":
        from peft import LoraConfig

        return [field for field in fields(LoraConfig) if field.init]
    from transformers import TrainingArguments

    return [field for field in fields(TrainingArguments) if field.init]


@pytest.mark.parametrize(
    ("which", "keys", "left_out"),
    [("peft", LORA_KEYS, LORA_LEFT_OUT), ("transformers", TRAINING_KEYS, TRAINING_LEFT_OUT)],
)
def test_every_key_of_the_library_is_allowed_or_left_out_on_purpose(
    which: str, keys: dict, left_out: frozenset
) -> None:
    names = {field.name for field in library_fields(which)}
    assert names - keys.keys() - left_out == set()
    assert not keys.keys() & left_out


@pytest.mark.parametrize(("which", "keys"), [("peft", LORA_KEYS), ("transformers", TRAINING_KEYS)])
def test_few_of_our_keys_are_unknown_to_the_installed_release(which: str, keys: dict) -> None:
    """Keys come and go between releases; a list that no longer fits at all is a mistake."""
    names = {field.name for field in library_fields(which)}
    assert len(keys.keys() - names) <= 3


@pytest.mark.parametrize(("which", "model"), [("peft", LoraKeys), ("transformers", TrainingKeys)])
def test_the_libraries_own_defaults_have_the_types_we_allow(which: str, model: type) -> None:
    for field in library_fields(which):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if field.name in model.model_fields and isinstance(default, bool | int | float | str) and default != "":
            refused = "refused" in str(model.model_fields[field.name].metadata)
            if not refused and field.name not in {"megatron_core", "remove_unused_columns"}:
                model.model_validate({field.name: default})


def test_choices_hold_what_transformers_offers() -> None:
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    for schedule in SchedulerType:
        TrainingKeys(lr_scheduler_type=schedule.value)
    for optimizer in OptimizerNames:
        TrainingKeys(optim=optimizer.value)
