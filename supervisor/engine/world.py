"""What the loop is given of the machine, and how an attempt is started on it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.board.environment import trace_environment, worker_environment
from supervisor.engine.attempt import AttemptOrder
from supervisor.job import Job, is_ours, program_argv
from supervisor.launch.command import Launch, launch
from supervisor.watch.clouds.watch import CloudWatch
from supervisor.watch.signals import Inbox

#: The interface that gloo listens on.
GLOO = "GLOO_SOCKET_IFNAME"
#: With these the hub's libraries read their cache and ask nobody.
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What the loop is given of the machine.

    Attributes:
        processes: ranks of this node.
        gpus: identifiers of the GPUs, None without any.
        environment: of the supervisor.
        inbox: signals.
        tell: shown every change: a word and its facts; for people, never needed.
        clouds: hears from the cloud that this machine may be in; None where nobody does.
        spare_bytes: asks how much memory the machine and this process's limits can still give.
        ignore_hangup: the run outlives its terminal, or has none.
        node: number of this machine among those that take part, from 0.
        nodes: how many do.
        host: address at which the others reach the first one.
        interface: of the network on which it is reached; None where that is not known.
    """

    processes: int
    gpus: list[str] | None
    environment: Mapping[str, str]
    inbox: Inbox
    tell: Callable[[str, Mapping[str, Any]], None]
    spare_bytes: Callable[[], int]
    clouds: CloudWatch | None = None
    ignore_hangup: bool = False
    node: int = 0
    nodes: int = 1
    host: str = "127.0.0.1"
    interface: str | None = None

    @property
    def name(self) -> str:
        """Of this machine, as a scheduler knows it."""
        return self.environment.get("SLURMD_NODENAME") or socket.gethostname()

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return self.processes * self.nodes


def attempt_command(
    job: Job,
    world: World,
    order: AttemptOrder,
    *,
    board: Path,
    run_id: str,
    logs: Path,
    standby: bool = False,
) -> Launch:
    """How an attempt is started; `plan` prints it and nothing else is run."""
    environment = worker_environment(
        board=board,
        run_dir=job.run_dir,
        run_id=run_id,
        attempt=order.number,
        lineage=order.lineage,
        logs=logs,
        hooks=job.hooks,
        snapshot=str(job.checkpoint.snapshot),
        world_size=order.world_size,
        resume_from=order.start.checkpoint,
        accept_changes=order.accept_changes,
        standby=standby,
        node=world.node,
        accumulation=order.start.accumulation,
        adapted=order.adaptation.told(),
        on_nan=job.recovery.on_nan,
    )
    if order.rendezvous.nodes > 1 and world.interface is not None and GLOO not in {*job.env, *world.environment}:
        environment[GLOO] = world.interface
    if order.adaptation.offline:
        environment |= dict.fromkeys(OFFLINE, "1")
    if world.gpus is not None:
        environment |= trace_environment(board, logs, {**world.environment, **job.env})
    return launch(
        processes=order.processes,
        rendezvous=order.rendezvous,
        program=job.program,
        arguments=[str(job.run_dir / "job.yaml")] if is_ours(job.program) else program_argv(job),
        options=job.launch.accelerate,
        config_path=logs / (f"accelerate-{world.node}.yaml" if world.node else "accelerate.yaml"),
        environment={**job.env, **environment},
        visible_gpus=world.gpus,
    )
