"""Defaults of a run under a supervisor, and an environment in which trackers go on."""

from pathlib import Path
from typing import Any

import pytest

from jobs.lora_args import LoraArgs
from jobs.lora_settings import prepare_environment, training_arguments
from supervisor.errors import JobError

RUN = Path("/runs/one")


def made(resuming: bool = False, **section: Any) -> Any:
    args = LoraArgs.model_validate({"model": "m", "data": "d.jsonl", **section})
    return training_arguments(args, RUN, "one", resuming=resuming)


def test_the_supervisor_saves_and_the_trainer_does_not() -> None:
    settings = made()
    assert (settings.save_strategy, settings.eval_strategy, settings.report_to) == ("no", "no", [])
    assert (settings.output_dir, settings.ddp_find_unused_parameters) == ("/runs/one/trainer", False)


def test_evaluation_data_is_used_without_being_asked_to() -> None:
    settings = made(eval_data="e.jsonl", training={"per_device_train_batch_size": 3})
    assert (settings.eval_strategy, settings.eval_steps, settings.per_device_eval_batch_size) == ("steps", 0.1, 3)
    assert made(eval_data="e.jsonl", training={"eval_strategy": "no"}).eval_strategy == "no"
    assert made(eval_data="e.jsonl", training={"eval_strategy": "epoch"}).eval_steps is None


def test_what_the_job_says_goes_before_defaults() -> None:
    settings = made(training={"save_strategy": "steps", "learning_rate": 1e-3, "logging_steps": 2})
    assert (settings.save_strategy, settings.learning_rate, settings.logging_steps) == ("steps", 1e-3, 2)


def test_the_evaluation_at_the_start_is_not_repeated_by_a_restart() -> None:
    section = {"eval_data": "e.jsonl", "training": {"eval_on_start": True}}
    assert made(**section).eval_on_start
    assert not made(resuming=True, **section).eval_on_start


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing")
def test_gradient_checkpointing_takes_the_kind_that_works_with_ddp() -> None:
    settings = made(training={"gradient_checkpointing": True})
    assert settings.gradient_checkpointing
    assert settings.gradient_checkpointing_kwargs == {"use_reentrant": False}


def test_what_transformers_does_not_take_is_refused_by_name() -> None:
    with pytest.raises(JobError, match=r"args.training: .*metric_for_best_model|load_best_model_at_end"):
        made(training={"load_best_model_at_end": True, "save_strategy": "steps"})


def test_trackers_go_on_in_the_same_run_and_caches_stay_with_it() -> None:
    first: dict[str, str] = {}
    prepare_environment(RUN, "one", first)
    again: dict[str, str] = {}
    prepare_environment(RUN, "one", again)
    assert first == again
    assert first["WANDB_RESUME"] == "allow"
    assert first["TENSORBOARD_LOGGING_DIR"] == "/runs/one/tensorboard"
    assert first["TORCHINDUCTOR_CACHE_DIR"].startswith("/runs/one/cache/")
    assert first["TRITON_CACHE_DIR"].startswith("/runs/one/cache/")


def test_the_trackers_run_is_named_after_ours() -> None:
    environ = {"SUPERVISOR_RUN_ID": "abc", "WANDB_DIR": "/mine"}
    prepare_environment(RUN, "a job/é", environ)
    assert environ["WANDB_RUN_ID"] == "a-job---abc"
    assert environ["WANDB_DIR"] == "/mine"
    other: dict[str, str] = {}
    prepare_environment(Path("/runs/two"), "one", other)
    assert other["WANDB_RUN_ID"].startswith("one-")
