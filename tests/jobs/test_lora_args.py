"""Every wrong job section is refused with its key, its place and what to do."""

from pathlib import Path

import pytest

from jobs.lora_args import LoraArgs, parse
from supervisor.errors import JobError

GOOD = {"model": "org/model", "data": "org/data"}


def refusal(section: dict) -> JobError:
    with pytest.raises(JobError) as caught:
        parse(section, lambda path: "job.yaml:" + ".".join(map(str, path)))
    return caught.value


def test_model_and_data_are_enough() -> None:
    args = parse(GOOD)
    assert (args.given_lora(), args.given_training(), args.quantization) == ({}, {}, "none")


@pytest.mark.parametrize(
    ("extra", "problem", "remedy", "where"),
    [
        ({"modle": "x"}, "args.modle is no key", "did you mean model?", "modle"),
        ({"lora": {"alpha": 8}}, "args.lora.alpha is no key", "did you mean lora_alpha?", "lora.alpha"),
        (
            {"training": {"learning_rat": 1}},
            "args.training.learning_rat is no key",
            "did you mean learning_rate?",
            "training.learning_rat",
        ),
        ({"training": {"learning_rate": "fast"}}, "not 'fast'", "mend the value", "training.learning_rate"),
        ({"training": {"per_device_train_batch_size": 0}}, "greater than or equal to 1", "mend", "training"),
        ({"training": {"lr_scheduler_type": "cosin"}}, "'cosine'", "mend", "training.lr_scheduler_type"),
        ({"lora": {"r": "many"}}, "args.lora.r", "mend", "lora.r"),
        ({"lora": {"layers_to_transform": "all"}}, "args.lora.layers_to_transform:", "mend", "lora"),
        ({"quantization": "3bit"}, "'4bit' or '8bit'", "mend", "quantization"),
        ({"max_length": 1}, "args.max_length", "mend", "max_length"),
        ({"text_field": "a", "messages_field": "b"}, "both set", "keep the one", ""),
        ({"eval_split": "test"}, "no eval_data", "remove eval_split", ""),
        ({"training": {"eval_strategy": "steps"}}, "no eval_data", "name it", ""),
        ({"training": {"bf16": True, "fp16": True}}, "both true", "keep one", ""),
    ],
)
def test_what_cannot_work_is_refused_by_key(extra: dict, problem: str, remedy: str, where: str) -> None:
    error = refusal({**GOOD, **extra})
    assert problem in error.problem
    assert remedy in error.remedy
    assert str(error.where).startswith(f"job.yaml:{where}")


@pytest.mark.parametrize("key", ["model", "data"])
def test_a_missing_key_is_named(key: str) -> None:
    error = refusal({name: value for name, value in GOOD.items() if name != key})
    assert error.problem == f"args.{key} is missing"


@pytest.mark.parametrize(
    ("training", "reason"),
    [
        ({"auto_find_batch_size": True}, "step 0"),
        ({"enable_jit_checkpoint": True}, "one step ahead"),
        ({"ignore_data_skip": True}, "data it has seen"),
        ({"save_only_model": True}, "optimizer"),
        ({"resume_from_checkpoint": "x"}, "start_from"),
        ({"output_dir": "out"}, "run_dir"),
        ({"train_sampling_strategy": "group_by_length"}, "global random state"),
        ({"accelerator_config": {"use_seedable_sampler": False}}, "order of the data"),
    ],
)
def test_dangerous_settings_are_refused_with_their_reason(training: dict, reason: str) -> None:
    error = refusal({**GOOD, "training": training})
    assert "refused" in error.problem
    assert reason in error.problem
    assert error.remedy == f"remove {next(iter(training))}"


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "loftq", "eva", "corda", "mica"])
def test_initialisations_that_change_the_base_are_refused(init: str) -> None:
    assert "a checkpoint holds the adapter only" in refusal({**GOOD, "lora": {"init_lora_weights": init}}).problem


def test_a_dangerous_setting_at_its_default_is_no_setting() -> None:
    args = parse({**GOOD, "training": {"auto_find_batch_size": False, "save_only_model": None}})
    assert args.given_training() == {}


def test_words_that_yaml_reads_as_other_types_mean_what_they_say() -> None:
    """YAML 1.1 reads `no` as false, and `2e-4` as text."""
    args = parse({**GOOD, "training": {"save_strategy": False, "learning_rate": "2e-4"}})
    assert args.given_training() == {"save_strategy": "no", "learning_rate": 2e-4}


def test_a_section_of_comments_only_is_empty() -> None:
    assert parse({**GOOD, "lora": None, "training": None}) == parse(GOOD)


def test_the_demo_is_a_valid_job() -> None:
    from supervisor.job.load import load_job

    job = load_job(Path(__file__).parents[2] / "jobs" / "demo.yaml")
    assert isinstance(job.args, dict)
    assert LoraArgs.model_validate(job.args).given_lora()["lora_dropout"] > 0
