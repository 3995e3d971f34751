"""What may change between attempts, and what makes it another training."""

from typing import Any

import pytest

from supervisor.job import Job, Launch, Recovery, changed_keys, describe_changes, mathematics

ARGS: dict[str, Any] = {
    "model": "m",
    "lora": {"r": 8},
    "training": {"max_steps": 10, "learning_rate": 1e-4, "num_train_epochs": 1},
}
BEFORE = Job(program="jobs.lora", args=ARGS)


def changed(**training: Any) -> Job:
    return Job(program="jobs.lora", args={**ARGS, "training": {**ARGS["training"], **training}})


@pytest.mark.parametrize(
    "after",
    [
        changed(max_steps=20),
        BEFORE.model_copy(update={"launch": Launch(processes_per_node=4)}),
        BEFORE.model_copy(update={"recovery": Recovery(max_barren=9)}),
        BEFORE.model_copy(update={"env": {"A": "b"}}),
        BEFORE.model_copy(update={"name": "other"}),
    ],
)
def test_how_long_and_how_it_runs_may_change(after: Job) -> None:
    assert mathematics(after) == mathematics(BEFORE)
    assert changed_keys(BEFORE.model_dump(), after) == []


@pytest.mark.parametrize(
    ("after", "keys"),
    [
        (changed(learning_rate=2e-4), ["args.training.learning_rate"]),
        (changed(num_train_epochs=2), ["args.training.num_train_epochs"]),
        (changed(seed=7), ["args.training.seed"]),
        (Job(program="t.py", args=ARGS), ["program"]),
        (Job(program="jobs.lora", args={**ARGS, "lora": {"r": 16}}), ["args.lora.r"]),
        (Job(program="jobs.lora", args=ARGS, start_from="x"), ["start_from"]),
        (
            Job(program="jobs.lora", args={"model": "m", "lora": {"r": 8}}),
            ["args.training.learning_rate", "args.training.num_train_epochs"],
        ),
    ],
)
def test_what_is_computed_may_not(after: Job, keys: list[str]) -> None:
    assert mathematics(after) != mathematics(BEFORE)
    assert changed_keys(BEFORE.model_dump(), after) == keys


def test_changes_are_said_with_both_values() -> None:
    after = Job(program="jobs.lora", args={**ARGS, "lora": {"r": 16}})
    assert describe_changes(BEFORE.model_dump(), after) == ["args.lora.r 8 → 16"]


def test_the_order_of_keys_does_not_matter() -> None:
    assert mathematics(Job(program="p", args={"a": 1, "b": 2})) == mathematics(Job(program="p", args={"b": 2, "a": 1}))


def test_a_fingerprint_is_the_same_on_every_machine() -> None:
    """Frozen: a change here would refuse every run under way."""
    job = Job(program="p", args={"a": [1, 2.5, "x"]})
    assert mathematics(job) == "c6a375e43a1a56da538e398b1ef9faf2b96fd0dd836dbee479cf65d5c00ba7d1"
