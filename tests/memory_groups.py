"""Real memory control groups, where they can be made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from supervisor.watch.cgroups import find
from tests.harness import until


def may_make_groups() -> Path | None:
    """The group of this process, if others can be made below it."""
    groups = find()
    return groups.chain[0] if groups is not None and os.access(groups.chain[0], os.W_OK) else None


@contextmanager
def limited(group: Path, limit_bytes: int) -> Iterator[Path]:
    """A group without a limit below one with a limit; what a scheduler makes of a step and its job."""
    job = group / f"supervisor-test-{os.getpid()}"
    step = job / "step"
    job.mkdir()
    try:
        if (group / "cgroup.controllers").exists():
            (job / "cgroup.subtree_control").write_text("+memory")
        step.mkdir()
        limit = job / "memory.max"
        (limit if limit.exists() else job / "memory.limit_in_bytes").write_text(str(limit_bytes))
        yield step
    finally:
        for one in (step, job):
            until(lambda one=one: removed(one), f"end of {one}")


def removed(group: Path) -> bool:
    """The kernel needs a moment after the last process."""
    try:
        if group.exists():
            group.rmdir()
    except OSError:
        return False
    return True
