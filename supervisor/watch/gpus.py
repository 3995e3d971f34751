"""Which GPUs are there, told by the driver and not by torch.

An accelerator that cannot be counted is refused rather than passed over: to train on the CPU
in silence is worse than not to start.

What this does not protect against: a driver that counts a GPU which fails when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path

from supervisor.errors import MachineError

#: Device files of accelerators, and what makes them.
_DEVICES = {
    "nvidiactl": "an NVIDIA GPU",
    "kfd": "an AMD GPU",
    "accel": "an accelerator",
    "davinci_manager": "an Ascend NPU",
    "neuron0": "a Neuron device",
}


def visible_gpus(environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> list[str] | None:
    """Identifiers of the GPUs that a worker would see; None on a machine without any.

    `CUDA_VISIBLE_DEVICES` is believed, as CUDA does it: an empty one hides all, and -1 hides
    what follows it.

    Raises:
        MachineError: an accelerator is there that cannot be counted.
    """
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        listed = [part.strip() for part in named.split(",") if part.strip()]
        return list(takewhile(lambda part: part != "-1", listed)) or None
    from supervisor.watch.nvml import count as count_nvidia

    count = count_nvidia()
    if count:
        return [str(index) for index in range(count)]
    present = [what for name, what in _DEVICES.items() if (devices / name).exists()]
    if present and count is None:
        raise MachineError(
            f"{present[0]} is on this machine, but it cannot be counted here",
            "set `launch.processes_per_node` and CUDA_VISIBLE_DEVICES, or hide it with CUDA_VISIBLE_DEVICES=''",
        )
    return None
