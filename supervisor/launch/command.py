"""The launcher's command line, configuration and environment, as values that can be printed first."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BOOTSTRAP = "supervisor.worker.bootstrap"


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Where the ranks of all nodes meet, and as which node this one comes.

    Attributes:
        host: address of the first node, as the others reach it.
        port: that its launcher is to listen on.
        nodes: how many take part.
        node: number of this one, from 0.
    """

    host: str
    port: int
    nodes: int = 1
    node: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One call of `accelerate launch`.

    Attributes:
        command: argument list, never a shell string.
        environment: what is set on top of the supervisor's own.
        config: content of the generated accelerate configuration, or None if the job names its own.
        config_path: where that is written.
    """

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    config: str | None
    config_path: Path


def launch(
    *,
    processes: int,
    rendezvous: Rendezvous,
    program: str,
    arguments: Sequence[str],
    options: Mapping[str, Any],
    config_path: Path,
    environment: Mapping[str, str],
    visible_gpus: Sequence[str] | None,
) -> Launch:
    """Build the call that starts this machine's part in one attempt.

    A configuration is always generated and named: without one accelerate reads the user's own
    default. One process never sees more than one GPU, else it would become `DataParallel`.
    With several processes on a CPU `--multi_gpu` is what starts them, over gloo.

    Args:
        processes: ranks on this machine.
        rendezvous: with the ranks of other nodes; there are as many of them on each.
        program: module or path of a .py file.
        arguments: of the program.
        options: of `accelerate launch`, as in the job file.
        config_path: where the generated configuration is to be written.
        environment: for the workers.
        visible_gpus: identifiers of the GPUs to use, None where there is none.

    Returns:
        The call; nothing is started.

    Source:
        accelerate 1.15, commands/launch.py: `multi_gpu_launcher`, `simple_launcher`.
    """
    own_config = options.get("config_file")
    chosen = Path(str(own_config)) if own_config else config_path
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(chosen)]
    total = processes * rendezvous.nodes
    command += ["--num_machines", str(rendezvous.nodes), "--machine_rank", str(rendezvous.node)]
    command += ["--num_processes", str(total)]
    if total > 1:
        # It would be the second of two ways to start them.
        command += [] if options.get("use_fsdp") else ["--multi_gpu"]
        # One brain decides about restarts, and it is not torch's agent.
        command += ["--main_process_port", str(rendezvous.port), "--max_restarts", "0"]
    if rendezvous.nodes > 1:
        command += ["--main_process_ip", rendezvous.host, "--rdzv_backend", "static"]
    command += flags({k: v for k, v in options.items() if k != "config_file"})
    command += ["--module", BOOTSTRAP, program, *arguments]
    made = dict(environment)
    if visible_gpus is None:
        made["ACCELERATE_USE_CPU"] = "true"
    else:
        made["CUDA_VISIBLE_DEVICES"] = ",".join(visible_gpus[:processes])
    config = None if own_config else _config(processes, rendezvous, cpu=visible_gpus is None)
    return Launch(command=command, environment=made, config=config, config_path=config_path)


def flags(options: Mapping[str, Any]) -> list[str]:
    """Options as command-line flags.

    >>> flags({"mixed_precision": "bf16", "fsdp_offload": True, "debug": False, "ids": [1, 2]})
    ['--mixed_precision', 'bf16', '--fsdp_offload', '--ids', '1', '2']
    """
    made: list[str] = []
    for key, value in options.items():
        if value is None or value is False:
            continue
        made.append(f"--{key}")
        if isinstance(value, (list, tuple)):
            made += [str(v) for v in value]
        elif value is not True:
            made.append(str(value))
    return made


def _config(processes: int, rendezvous: Rendezvous, *, cpu: bool) -> str:
    total = processes * rendezvous.nodes
    lines = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU" if total > 1 else "'NO'",  # bare it is YAML's false
        "machine_rank": rendezvous.node,
        "mixed_precision": "'no'",
        "num_machines": rendezvous.nodes,
        "num_processes": total,
        "use_cpu": str(cpu and total == 1).lower(),
        "debug": "false",
    }
    return "".join(f"{key}: {value}\n" for key, value in lines.items())
