"""The launcher's command line is a value: here it is, option by option."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from supervisor.launch.command import Launch, Rendezvous, flags, launch

LAUNCHER = [sys.executable, "-m", "accelerate.commands.launch"]


def made(processes: int = 2, **more: Any) -> Launch:
    told: dict[str, Any] = {
        "processes": processes,
        "rendezvous": Rendezvous("127.0.0.1", 29501),
        "program": "jobs.lora",
        "arguments": ["/run/job.yaml"],
        "options": {},
        "config_path": Path("/run/logs/attempt-1/accelerate.yaml"),
        "environment": {"SUPERVISOR_BOARD": "/dev/shm/b"},
        "visible_gpus": None,
    }
    return launch(**{**told, **more})


def test_two_processes_on_a_cpu_meet_over_gloo() -> None:
    assert made().command == [
        *LAUNCHER,
        *("--config_file", "/run/logs/attempt-1/accelerate.yaml"),
        *("--num_machines", "1", "--machine_rank", "0", "--num_processes", "2"),
        *("--multi_gpu", "--main_process_port", "29501", "--max_restarts", "0"),
        *("--module", "supervisor.worker.bootstrap", "jobs.lora", "/run/job.yaml"),
    ]
    assert made().environment == {"SUPERVISOR_BOARD": "/dev/shm/b", "ACCELERATE_USE_CPU": "true"}


def test_one_process_needs_no_rendezvous() -> None:
    assert made(1).command == [
        *LAUNCHER,
        *("--config_file", "/run/logs/attempt-1/accelerate.yaml"),
        *("--num_machines", "1", "--machine_rank", "0", "--num_processes", "1"),
        *("--module", "supervisor.worker.bootstrap", "jobs.lora", "/run/job.yaml"),
    ]


def test_fsdp_starts_the_processes_itself() -> None:
    command = made(options={"use_fsdp": True, "fsdp_version": 2}).command
    assert "--multi_gpu" not in command
    assert command[command.index("--use_fsdp") :][:3] == ["--use_fsdp", "--fsdp_version", "2"]


@pytest.mark.parametrize(
    ("processes", "gpus", "seen"), [(1, ["0", "1"], "0"), (2, ["3", "5", "7"], "3,5"), (1, ["GPU-aa"], "GPU-aa")]
)
def test_as_many_gpus_are_seen_as_there_are_processes(processes: int, gpus: list[str], seen: str) -> None:
    environment = made(processes, visible_gpus=gpus).environment
    assert environment["CUDA_VISIBLE_DEVICES"] == seen
    assert "ACCELERATE_USE_CPU" not in environment


CASES = [
    (1, None, ("NO", True)),
    (2, None, ("MULTI_GPU", False)),
    (1, ["0"], ("NO", False)),
    (2, ["0", "1"], ("MULTI_GPU", False)),
]


@pytest.mark.parametrize(("processes", "gpus", "expected"), CASES)
def test_the_generated_configuration_is_whole(
    processes: int, gpus: list[str] | None, expected: tuple[str, bool]
) -> None:
    config = made(processes, visible_gpus=gpus).config
    assert yaml.safe_load(config or "") == {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": expected[0],
        "machine_rank": 0,
        "mixed_precision": "no",
        "num_machines": 1,
        "num_processes": processes,
        "use_cpu": expected[1],
        "debug": False,
    }


def test_a_configuration_of_the_users_is_named_and_none_is_generated() -> None:
    call = made(options={"config_file": "mine.yaml", "mixed_precision": "bf16"})
    assert call.config is None
    assert call.command[3:5] == ["--config_file", "mine.yaml"]
    assert call.command.count("--config_file") == 1
    at = call.command.index("--mixed_precision")
    assert call.command[at : at + 2] == ["--mixed_precision", "bf16"]
    assert at < call.command.index("--module")


def test_arguments_are_passed_as_they_are() -> None:
    hostile = ["--flag", "two words", "$(rm -rf x)", "", "--module"]
    assert made(arguments=hostile, program="my script.py").command[-6:] == ["my script.py", *hostile]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"a": None, "b": False}, []),
        ({"a": True}, ["--a"]),
        ({"a": 0, "b": 1.5, "c": ""}, ["--a", "0", "--b", "1.5", "--c", ""]),
        ({"ids": [0, 1], "t": ("x",)}, ["--ids", "0", "1", "--t", "x"]),
    ],
)
def test_options_become_flags(options: dict[str, Any], expected: list[str]) -> None:
    assert flags(options) == expected
