"""GPUs are counted or refused, never passed over; the device directory and the environment are arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.errors import MachineError
from supervisor.watch.gpus import visible_gpus
from supervisor.watch.nvml import use_of


@pytest.mark.parametrize(
    ("named", "seen"),
    [
        ("0,1", ["0", "1"]),
        (" 2 , 3 ", ["2", "3"]),
        ("GPU-8932f937-d72c,MIG-GPU-1/2/3", ["GPU-8932f937-d72c", "MIG-GPU-1/2/3"]),
        ("", None),
        (" ", None),
        (",", None),
        ("-1", None),
        ("-1,0", None),
        ("0,-1,1", ["0"]),  # CUDA stops there
    ],
)
def test_the_environment_is_believed_as_cuda_believes_it(tmp_path: Path, named: str, seen: list[str] | None) -> None:
    (tmp_path / "nvidiactl").touch()
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": named}, tmp_path) == seen


def has_nvidia() -> bool:
    return Path("/dev/nvidiactl").exists()


@pytest.mark.skipif(has_nvidia(), reason="this machine's GPUs can be counted")
@pytest.mark.parametrize(
    ("device", "what"),
    [("nvidiactl", "an NVIDIA GPU"), ("kfd", "an AMD GPU"), ("accel", "an accel"), ("neuron0", "a Neuron device")],
)
def test_an_accelerator_that_cannot_be_counted_is_refused(tmp_path: Path, device: str, what: str) -> None:
    (tmp_path / device).touch()
    with pytest.raises(MachineError, match=rf"{what}.* is on this machine.*launch\.processes_per_node"):
        visible_gpus({}, tmp_path)


@pytest.mark.skipif(has_nvidia(), reason="this machine has GPUs")
def test_a_machine_without_any_trains_on_its_cpu(tmp_path: Path) -> None:
    assert visible_gpus({}, tmp_path) is None


@pytest.mark.skipif(has_nvidia(), reason="this machine's GPUs can be asked")
def test_a_driver_that_cannot_be_asked_leaves_it_unknown_how_busy_gpus_are() -> None:
    assert use_of(["0", "GPU-8932f937-d72c"]) == [None, None]
