"""What of an export needs torch: the stock Trainer's form of a checkpoint, and a base model with its adapter merged.

A process of its own, since the command that starts it never imports torch. The request comes
as one JSON object on standard input, the answer leaves as one on standard output: `remarks`,
or `problem` and `remedy`. What libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from supervisor.errors import JobError, SupervisorError
from supervisor.worker.quiet import hush_advice


def stock(checkpoint: Path, target: Path, request: Mapping[str, Any]) -> list[str]:
    """Write the form that an unmodified Trainer resumes from.

    Args:
        checkpoint: verified.
        target: a directory that is there and empty.
        request: `step` and `world_size` of the checkpoint.

    Raises:
        JobError: the checkpoint's state is not a Trainer's.
    """
    from supervisor.worker.resume import Range, Resume

    parts = {path.name: Range(path, 0, path.stat().st_size) for path in checkpoint.iterdir() if path.is_file()}
    resume = Resume(target, "checkpoint", request["step"], parts)
    told = resume.state.get("optimizer")
    if not isinstance(told, dict) or "param_groups" not in told:
        raise JobError(
            f"{checkpoint} does not hold one whole optimizer, as a Trainer's does",
            "the stock form has no place for it; `--adapter` has",
        )
    resume.write_shared(target)
    world_size = request["world_size"]
    for rank in range(world_size):
        # How many GPUs a machine will have is not known; as many states as ranks suffice for all of them.
        resume.write_rank(target, rank, world_size, devices=world_size)
    return []


def merged(checkpoint: Path, target: Path, request: Mapping[str, Any]) -> list[str]:
    """Write the base model with the adapter merged into its weights."""
    from supervisor.worker.merging import merge

    return merge(checkpoint, target, request["base"], request["revision"])


#: What can be asked for under `form`.
FORMS: dict[str, Callable[[Path, Path, Mapping[str, Any]], list[str]]] = {"hf": stock, "merged": merged}


def answer(forms: Mapping[str, Callable[[Path, Path, Mapping[str, Any]], list[str]]]) -> None:
    """Read one request, do what it asks for, and answer it.

    Args:
        forms: what can be asked for under `form`.
    """
    hush_advice()
    told_to = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    request = json.load(sys.stdin)
    try:
        remarks = forms[request["form"]](Path(request["checkpoint"]), Path(request["target"]), request)
        told: dict[str, Any] = {"remarks": remarks}
    except SupervisorError as error:
        told = {"problem": error.problem, "remedy": error.remedy}
    with told_to:
        json.dump(told, told_to)


if __name__ == "__main__":
    answer(FORMS)
