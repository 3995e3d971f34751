"""What the loop is given of the machine, and how an attempt is started on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.board.environment import worker_environment
from supervisor.job import Job, is_ours, program_argv
from supervisor.launch.command import Launch, launch
from supervisor.launch.processes import free_port
from supervisor.watch.signals import Inbox


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What the loop is given of the machine.

    Attributes:
        processes: ranks of this node.
        gpus: identifiers of the GPUs, None without any.
        environment: of the supervisor.
        inbox: signals.
        tell: shown every change: a word and its facts; for people, never needed.
        spare_bytes: asks how much memory the machine and this process's limits can still give.
        ignore_hangup: the run outlives its terminal, or has none.
    """

    processes: int
    gpus: list[str] | None
    environment: Mapping[str, str]
    inbox: Inbox
    tell: Callable[[str, Mapping[str, Any]], None]
    spare_bytes: Callable[[], int]
    ignore_hangup: bool = False


def attempt_command(
    job: Job,
    world: World,
    *,
    board: Path,
    run_id: str,
    attempt: int,
    lineage: int,
    logs: Path,
    resume_from: Path | None,
    accept_changes: bool,
    standby: bool = False,
) -> Launch:
    """How an attempt is started; `plan` prints it and nothing else is run."""
    environment = worker_environment(
        board=board,
        run_dir=job.run_dir,
        run_id=run_id,
        attempt=attempt,
        lineage=lineage,
        logs=logs,
        hooks=job.hooks,
        snapshot=str(job.checkpoint.snapshot),
        world_size=world.processes,
        resume_from=resume_from,
        accept_changes=accept_changes,
        standby=standby,
    )
    return launch(
        processes=world.processes,
        port=free_port(),
        program=job.program,
        arguments=[str(job.run_dir / "job.yaml")] if is_ours(job.program) else program_argv(job),
        options=job.launch.accelerate,
        config_path=logs / "accelerate.yaml",
        environment={**job.env, **environment},
        visible_gpus=world.gpus,
    )
