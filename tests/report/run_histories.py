"""Named histories: what runs have lived through, as their journals tell it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from supervisor.journal import JOURNAL, Record

Line = tuple[float, str, int | None, dict[str, Any]]


def started(t: float, **more: Any) -> list[Line]:
    return [
        (t, "run_started", None, {"run_id": "r1", "name": "demo", "mathematics": "m", **more}),
        (
            t,
            "allocation_started",
            None,
            {"allocation": f"local-{t:.0f}", "nodes": 1, "processes": 2, "epoch": 1, "pid": 7},
        ),
    ]


def trains(t: float, attempt: int, step: int, source: str, max_steps: int = 100) -> list[Line]:
    return [
        (t, "attempt_started", attempt, {"world_size": 2, "resume_step": step or None, "source": source, "lineage": 0}),
        (t + 8, "workers_ready", attempt, {"pids": [11, 12]}),
        (t + 10, "training_started", attempt, {"step": step, "source": source, "max_steps": max_steps}),
    ]


def commits(t: float, attempt: int, step: int, reason: str = "periodic", lineage: int = 0) -> list[Line]:
    path = f"checkpoints/checkpoint-{step}"
    figures = {"bytes": 1000, "stall_s": 0.0, "write_s": 0.5, "reason": reason}
    return [(t, "checkpoint_committed", attempt, {"step": step, "lineage": lineage, "path": path, **figures})]


def ends(t: float, attempt: int, cause: str, evidence: str, step: int | None) -> list[Line]:
    return [(t, "attempt_ended", attempt, {"cause": cause, "evidence": evidence, "step": step})]


def decides(t: float, attempt: int, decision: str, delay_s: float = 0.0, reason: str = "") -> list[Line]:
    return [(t, "decision", attempt, {"decision": decision, "delay_s": delay_s, "reason": reason})]


def crashes(t: float, attempt: int, step: int, detail: str = "rank 1 was killed by SIGKILL") -> list[Line]:
    incident = {"cause": "crashed", "detail": detail, "decision": "restart at once"}
    return [
        *ends(t, attempt, "crashed", detail, step),
        (t, "incident", attempt, incident),
        *decides(t, attempt, "restart", reason=detail),
    ]


def finishes(t: float, attempt: int, step: int = 100) -> list[Line]:
    return [
        *commits(t - 1, attempt, step, "final"),
        *ends(t, attempt, "finished", "every rank's program returned", step),
        *decides(t, attempt, "finish"),
        (t, "run_finished", attempt, {"step": step, "final": "final"}),
    ]


STARTING = started(1000)
UNDER_WAY = [*started(1000), *trains(1000, 1, 0, "fresh"), *commits(1050, 1, 40)]
SMOOTH = [*UNDER_WAY, *finishes(1110, 1)]
RANK_KILLED = [*UNDER_WAY, *crashes(1070, 1, 55), *trains(1070, 2, 55, "snapshot"), *finishes(1125, 2)]
BOARD_LOST = [*UNDER_WAY, *crashes(1070, 1, 55), *trains(1070, 2, 40, "checkpoint"), *finishes(1140, 2)]
TREE_KILLED = [*UNDER_WAY]
TREE_KILLED_RESUMED = [*TREE_KILLED, *started(1200), *trains(1200, 2, 57, "snapshot")]
TREE_KILLED_BOARD_WIPED = [*TREE_KILLED, *started(1200), *trains(1200, 2, 40, "checkpoint")]
TREE_KILLED_TOLD_LATER = [
    *TREE_KILLED,
    *started(1200),
    *ends(1201, 1, "unknown", "the supervisor was killed", 57),
    *trains(1202, 2, 57, "snapshot"),
]
PREEMPTED = [
    *UNDER_WAY,
    (1070, "notice", 1, {"kind": "SIGTERM", "grace_s": 30.0}),
    *commits(1071, 1, 55, "emergency"),
    *ends(1072, 1, "preempted", "the supervisor received SIGTERM", 56),
    *decides(1072, 1, "leave", reason="received SIGTERM"),
]
STOPPED = [
    *UNDER_WAY,
    (1070, "stop_asked", 1, {"by": "SIGINT"}),
    *commits(1071, 1, 55, "emergency"),
    *ends(1072, 1, "user_stop", "asked by SIGINT", 55),
    (1073, "run_stopped", 1, {"by": "SIGINT", "step": 55}),
]
DRAINING = STOPPED[:-2]
GAVE_UP = [
    *started(1000),
    (1000, "attempt_started", 1, {"world_size": 2, "source": "fresh", "lineage": 0}),
    *ends(1005, 1, "user_error", "rank 0 raised builtins.NameError: x", None),
    (
        1005,
        "incident",
        1,
        {"cause": "user_error", "detail": "rank 0 raised builtins.NameError: x", "decision": "give up"},
    ),
    *decides(1005, 1, "give_up", reason="the program is wrong"),
    (1005, "run_gave_up", 1, {"cause": "user_error", "reason": "the program is wrong"}),
]
FORGIVEN = [*GAVE_UP, *started(2000, forgive=True)]
FRESH = [*PREEMPTED, *started(2000, fresh=True), *trains(2000, 1, 0, "fresh")]
TORN_NEWEST = [
    *PREEMPTED,
    *started(2000),
    (2001, "checkpoint_rejected", None, {"path": "checkpoints/checkpoint-55", "step": 55, "reason": "content changed"}),
    *trains(2002, 2, 40, "checkpoint"),
]
DIVERGED = [*UNDER_WAY, *crashes(1070, 1, 55), *trains(1070, 2, 40, "checkpoint"), *commits(1090, 2, 45, lineage=1)]
SMALLER = "micro-batch 4 instead of 8, accumulation 2 instead of 1: the same global batch of 16"
SHRUNK = [
    *UNDER_WAY,
    *ends(1070, 1, "gpu_oom", "rank 1 raised torch.OutOfMemoryError: CUDA out of memory", 55),
    (1070, "adapted", 1, {"detail": SMALLER, "changes": {"micro_batch": 4}}),
    *decides(1070, 1, "adapt", reason=SMALLER),
    *trains(1070, 2, 55, "snapshot"),
]
NEVER_TRAINED_BETWEEN = [
    *UNDER_WAY,
    *crashes(1070, 1, 55),
    (1070, "attempt_started", 2, {"world_size": 2}),
    *ends(1075, 2, "crashed", "rank 0 was killed", None),
    *decides(1075, 2, "restart", 15.0),
    *trains(1090, 3, 50, "checkpoint"),
]

ALL = {name: lines for name, lines in list(globals().items()) if name.isupper() and isinstance(lines, list)}


def records(lines: Sequence[Line]) -> list[Record]:
    return [Record(float(t), event, attempt, "node1", fields) for t, event, attempt, fields in lines]


def write(run_dir: Path, lines: Sequence[Line]) -> Path:
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / JOURNAL).open("a") as file:
        for t, event, attempt, fields in lines:
            head = {"v": 1, "time": t, "event": event, "attempt": attempt, "host": "node1"}
            file.write(json.dumps({**head, **fields}) + "\n")
    return run_dir
