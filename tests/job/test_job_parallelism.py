"""Kinds of parallelism whose state could not be snapshotted are refused with their line, the others pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from supervisor.errors import JobError
from supervisor.job.load import load_job


def loaded(base: Path, options: dict[str, Any]) -> dict[str, Any]:
    (base / "train.py").touch()
    (base / "job.yaml").write_text(yaml.safe_dump({"program": "train.py", "launch": {"accelerate": options}}))
    return load_job(base / "job.yaml", cwd=base).launch.accelerate


@pytest.mark.parametrize(
    "options",
    [
        {"mixed_precision": "bf16", "use_deepspeed": False},
        {"use_fsdp": True, "fsdp_version": 2},
        {"use_fsdp": True, "fsdp-version": "2", "parallelism_config_dp_shard_size": 4, "parallelism_config_tp_size": 1},
    ],
)
def test_what_can_be_snapshotted_passes(tmp_path: Path, options: dict[str, Any]) -> None:
    assert loaded(tmp_path, options) == options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"use_fsdp": True}, "use_fsdp: FSDP1, which accelerate takes without fsdp_version, is not supported"),
        ({"use_fsdp": True, "fsdp_version": 1}, "use_fsdp: FSDP1"),
        ({"use-deepspeed": True, "zero_stage": 2}, "use-deepspeed: DeepSpeed is not supported"),
        ({"use_megatron_lm": True}, "use_megatron_lm: Megatron-LM is not supported"),
        ({"parallelism_config_tp_size": 2}, "parallelism_config_tp_size: tp is not supported"),
        ({"parallelism_config_dp_replicate_size": "2"}, "dp_replicate is not supported"),
    ],
)
def test_what_cannot_is_refused_by_name(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said) as refused:
        loaded(tmp_path, options)
    assert "use data parallelism, or FSDP2: use_fsdp: true, fsdp_version: 2" in str(refused.value)
    assert f"{tmp_path}/job.yaml:" in str(refused.value)
