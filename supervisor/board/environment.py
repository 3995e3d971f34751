"""What the supervisor sets in the environment of everything it starts, and workers read."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supervisor.owner import start_ticks

BOARD = "SUPERVISOR_BOARD"
ATTEMPT = "SUPERVISOR_ATTEMPT"
LINEAGE = "SUPERVISOR_LINEAGE"
RUN_ID = "SUPERVISOR_RUN_ID"
RUN_DIR = "SUPERVISOR_RUN_DIR"
LOGS = "SUPERVISOR_LOGS"
HOOKS = "SUPERVISOR_HOOKS"
PID = "SUPERVISOR_PID"
TICKS = "SUPERVISOR_TICKS"
WORLD_SIZE = "SUPERVISOR_WORLD_SIZE"
RESUME_FROM = "SUPERVISOR_RESUME_FROM"
SNAPSHOT = "SUPERVISOR_SNAPSHOT"
ACCEPT_CHANGES = "SUPERVISOR_ACCEPT_CHANGES"
#: Micro-batches of a step, in place of the program's own number: the ranks are others than they were.
ACCUMULATION = "SUPERVISOR_ACCUMULATION"
#: What is changed of the program's own settings so that it can go on: one JSON object.
ADAPTED = "SUPERVISOR_ADAPTED"
#: What follows when the loss diverges, as in the job file.
ON_NAN = "SUPERVISOR_ON_NAN"
#: Samples that one device is to take at a time, for programs that are not transformers'; only where it was changed.
MICRO_BATCH = "SUPERVISOR_MICRO_BATCH"
#: Set for workers that are to wait at the gate until the attempt before them has ended.
STANDBY = "SUPERVISOR_STANDBY"
#: On everything an attempt starts; a kill is over when nothing has it.
MARKER = "SUPERVISOR_MARKER"
#: Every rank answers this signal with the stacks of its threads. A real-time one: nobody blocks it, and nothing that a
#: program or a scheduler sends for reasons of its own has that number.
STACKS_SIGNAL = signal.SIGRTMIN + 7


def marker(run_id: str, attempt: int, node: int = 0) -> str:
    """What every process of an attempt on one node carries; nodes may be one machine, and one must not end another's.

    >>> marker("r", 3), marker("r", 3, node=1)
    ('r/3', 'r/n1/3')
    """
    return f"{run_id}/n{node}/{attempt}" if node else f"{run_id}/{attempt}"


def worker_environment(
    *,
    board: Path,
    run_dir: Path,
    run_id: str,
    attempt: int,
    lineage: int,
    logs: Path,
    hooks: str,
    snapshot: str,
    world_size: int,
    resume_from: Path | None,
    accept_changes: bool,
    standby: bool = False,
    node: int = 0,
    accumulation: int | None = None,
    adapted: Mapping[str, Any] | None = None,
    on_nan: str = "ignore",
) -> dict[str, str]:
    """The variables of one attempt; the supervisor is this process.

    Args:
        board: its directory.
        run_dir: of the run.
        run_id: of the run.
        attempt: number of the attempt.
        lineage: of the run.
        logs: directory of the attempt's logs.
        hooks: ``auto`` or ``off``.
        snapshot: as in the job file; with ``off`` nobody but the program keeps its result.
        world_size: ranks in all.
        resume_from: newest intact checkpoint, for programs without our callback.
        accept_changes: whether pinned inputs may change.
        standby: whether they are to wait at the gate; what they resume from is told to them there.
        node: number of this node.
        accumulation: micro-batches of a step, in place of the program's own number.
        adapted: what else is changed of the program's own settings.
        on_nan: as in the job file.
    """
    made = {
        BOARD: str(board),
        RUN_DIR: str(run_dir),
        RUN_ID: run_id,
        ATTEMPT: str(attempt),
        LINEAGE: str(lineage),
        LOGS: str(logs),
        HOOKS: hooks,
        SNAPSHOT: snapshot,
        PID: str(os.getpid()),
        TICKS: str(start_ticks(os.getpid()) or 0),
        WORLD_SIZE: str(world_size),
        ON_NAN: on_nan,
        MARKER: marker(run_id, attempt, node),
    }
    if resume_from is not None:
        made[RESUME_FROM] = str(resume_from)
    if accept_changes:
        made[ACCEPT_CHANGES] = "1"
    if standby:
        made[STANDBY] = "1"
    if accumulation is not None:
        made[ACCUMULATION] = str(accumulation)
    if adapted:
        made[ADAPTED] = json.dumps(adapted)
        if "micro_batch" in adapted:
            made[MICRO_BATCH] = str(adapted["micro_batch"])
    return made


def adapted_in(environment: Mapping[str, str]) -> dict[str, Any]:
    """What `worker_environment` was given as ``adapted``; empty without any.

    >>> adapted_in({ADAPTED: '{"micro_batch": 2}'}), adapted_in({})
    ({'micro_batch': 2}, {})
    """
    told: dict[str, Any] = json.loads(environment.get(ADAPTED) or "{}")
    return told


#: torch's names for its record of the last collectives (Flight Recorder), and for how it is asked for them.
_TRACE_SIZE = "TORCH_NCCL_TRACE_BUFFER_SIZE"
_TRACE_FILE = "TORCH_NCCL_DEBUG_INFO_TEMP_FILE"
_TRACE_PIPE = "TORCH_NCCL_DEBUG_INFO_PIPE_FILE"
_TRACE_AT_END = "TORCH_NCCL_DUMP_ON_TIMEOUT"
_TRACE_STEM = "collectives-rank-"
_TRACE_NAMES = ("TORCH_NCCL_TRACE_", "TORCH_NCCL_DEBUG_INFO_", _TRACE_AT_END, "TORCH_FR_")


def trace_environment(board: Path, logs: Path, set_by_user: Mapping[str, str]) -> dict[str, str]:
    """What has torch keep its last 2000 collectives, and write them when a rank is asked; nothing if a user has.

    Args:
        board: its directory.
        logs: of the attempt.
        set_by_user: the job's variables, and those of the supervisor itself.

    Source:
        torch 2.13, ProcessGroupNCCL.hpp and FlightRecorder.hpp: both ends are a stem, to which the rank is added.

    >>> trace_environment(Path("/b"), Path("/r/logs/attempt-2"), {"TORCH_FR_BUFFER_SIZE": "9"})
    {}
    """
    if any(name.startswith(_TRACE_NAMES) for name in set_by_user):
        return {}
    return {
        _TRACE_SIZE: "2000",
        _TRACE_AT_END: "1",
        _TRACE_FILE: str(logs / _TRACE_STEM),
        _TRACE_PIPE: str(board / f"{_TRACE_STEM}{logs.name}-"),
    }


def trace_file(logs: Path, rank: int) -> Path:
    """Where torch writes the last collectives of a rank; a pickle, which nobody here loads."""
    return logs / f"{_TRACE_STEM}{rank}"


def trace_pipe(board: Path, logs: Path, rank: int) -> Path:
    """The pipe at which torch listens for whether they are wanted.

    >>> trace_pipe(Path("/b"), Path("/r/logs/attempt-2"), 3).name
    'collectives-rank-attempt-2-3.pipe'
    """
    return board / f"{_TRACE_STEM}{logs.name}-{rank}.pipe"
