"""When workers are to stand by: asked for, or worth their memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from supervisor.board.pages import Beat, Control
from supervisor.engine.ranks.starting import AUTO_AFTER_S, AUTO_SPARE_BYTES, PROCESS_BYTES, Starter
from supervisor.engine.world import World
from supervisor.job import Job
from supervisor.watch.signals import Inbox

ENOUGH = AUTO_SPARE_BYTES + 3 * PROCESS_BYTES + 1


def starter(tmp_path: Path, standby: str, spare_bytes: int = ENOUGH) -> Starter:
    world = World(
        processes=2,
        gpus=None,
        environment={},
        inbox=Inbox(),
        tell=lambda _word, _facts: None,
        spare_bytes=lambda: spare_bytes,
    )
    job: Any = {"program": "jobs.lora", "run_dir": tmp_path, "launch": {"standby": standby}}
    control = Control.create(tmp_path / "control", 2)
    return Starter(Job(**job), world, "run", tmp_path, control, lambda _pids: False)


def beat(left_s: float) -> Beat:
    return Beat(pid=1, step=10, max_steps=10 + int(left_s), step_s=1.0)


@pytest.mark.parametrize(
    ("standby", "trained_s", "left_s", "spare_bytes", "due"),
    [
        ("on", 0.0, 1.0, 0, True),
        ("off", 1e6, 1e6, 1 << 50, False),
        ("auto", AUTO_AFTER_S, 1e6, ENOUGH, True),
        ("auto", AUTO_AFTER_S - 1, 1e6, ENOUGH, False),
        ("auto", AUTO_AFTER_S, 30.0, ENOUGH, False),
        ("auto", AUTO_AFTER_S, 1e6, ENOUGH - 1, False),
    ],
)
def test_workers_stand_by_when_it_is_worth_it(
    tmp_path: Path, standby: str, trained_s: float, left_s: float, spare_bytes: int, due: bool
) -> None:
    one = starter(tmp_path, standby, spare_bytes)
    assert one._due([beat(left_s), beat(left_s)], trained_s) is due


def test_a_step_whose_duration_is_unknown_does_not_count_as_the_end(tmp_path: Path) -> None:
    one = starter(tmp_path, "auto")
    assert one._due([Beat(pid=1, step=0, max_steps=-1)], AUTO_AFTER_S)
    assert one._due([Beat(pid=1, step=0, max_steps=5)], AUTO_AFTER_S)  # step_s is NaN
