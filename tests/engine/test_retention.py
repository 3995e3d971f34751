"""What a run keeps, with checkpoints on disk and a journal that tells of them."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

from supervisor.checkpoint.commit import commit
from supervisor.checkpoint.parts import part_from_bytes
from supervisor.checkpoint.reading import reading
from supervisor.checkpoint.retain import Best, Keep
from supervisor.engine.state.retention import Retention
from supervisor.journal import Journal
from supervisor.policy.schedule import Seconds

RUN = "run-a"
TENSORS = (2).to_bytes(8, "little") + b"{}"
LOSSES = {10: 0.9, 20: 0.5, 30: 0.7, 40: 0.8}


class Disk:
    """A run directory in which checkpoints are committed and retained."""

    def __init__(self, run_dir: Path, keep: Keep) -> None:
        self.run_dir, self.now_s, self.losses = run_dir, 1e9, dict[int, float]()
        self.journal = Journal.open(run_dir, lambda: self.now_s, "here")
        self.retention = Retention(run_dir, RUN, keep)

    def commit(self, step: int, loss: float | None = None) -> Path:
        if loss is not None:
            self.losses[step] = loss
        rows = [{"eval_loss": value, "step": at} for at, value in self.losses.items()]
        files = {
            "adapter_config.json": b"{}",
            "adapter_model.safetensors": TENSORS,
            "optimizer.safetensors": TENSORS,
            "state.json": json.dumps({"step": step, "world_size": 1, "ranks": {"0": {"rng": "00"}}}).encode(),
            "trainer_state.json": json.dumps({"log_history": rows}).encode(),
        }
        path = commit(
            self.run_dir / "checkpoints",
            run_id=RUN,
            lineage=0,
            step=step,
            world_size=1,
            parts=[part_from_bytes(name, data) for name, data in files.items()],
            confirm=lambda: None,
            clock=time.monotonic,
        ).path
        assert self.retention.apply() is None
        self.journal.append("checkpoint_committed", step=step, lineage=0, path=f"checkpoints/{path.name}")
        return path

    def steps(self) -> list[int]:
        return sorted(int(p.name.partition("-")[2]) for p in (self.run_dir / "checkpoints").glob("checkpoint-*"))

    def again(self) -> None:
        """Another supervisor takes over."""
        self.retention = replace(self.retention, worst_of_best=None, _stock=None)
        self.retention.open()


def test_the_best_stays_however_many_come_after_it_and_is_known_to_the_next_supervisor(tmp_path: Path) -> None:
    disk = Disk(tmp_path, Keep(last=2, best=Best("eval_loss")))
    for step, loss in LOSSES.items():
        disk.commit(step, loss)
    assert disk.steps() == [20, 30, 40]
    disk.again()
    assert disk.retention.worst_of_best == 0.5
    disk.commit(50, 0.4)
    assert disk.steps() == [40, 50]


def test_as_long_as_fewer_are_known_than_are_kept_any_evaluation_is_among_the_best(tmp_path: Path) -> None:
    disk = Disk(tmp_path, Keep(last=2, best=Best("eval_loss", count=2)))
    disk.commit(10, 0.9)
    assert disk.retention.worst_of_best is None
    disk.commit(20, 0.5)
    assert disk.retention.worst_of_best == 0.9


def test_a_figure_stays_with_the_checkpoint_that_it_was_first_of_also_when_that_is_gone(tmp_path: Path) -> None:
    disk = Disk(tmp_path, Keep(last=2, best=Best("eval_loss", "max")))
    disk.commit(10, 0.1)
    disk.commit(20, 0.9)
    for step in (30, 40):
        disk.commit(step)
    assert disk.steps() == [20, 30, 40]
    disk.again()
    disk.retention.keep = Keep(last=2)
    disk.commit(50)
    assert disk.steps() == [40, 50]
    disk.retention.keep = Keep(last=2, best=Best("eval_loss", "max"))
    disk.again()
    assert disk.retention.worst_of_best is None, "step 40 came after step 30, and nothing was measured in between"


def test_the_first_of_each_hour_stays_by_the_time_that_the_journal_tells(tmp_path: Path) -> None:
    disk = Disk(tmp_path, Keep(last=2, every=Seconds(3600.0)))
    disk.now_s = 3600.0 * 1000
    for step in range(1, 10):
        disk.commit(step)
        disk.now_s += 1000.0
        disk.again()
    assert disk.steps() == [1, 5, 8, 9]  # committed at 0, 4000 and 7000 s


def test_who_reads_is_waited_for(tmp_path: Path) -> None:
    disk = Disk(tmp_path, Keep(last=2))
    with reading(disk.commit(1)):
        for step in (2, 3, 4):
            disk.commit(step)
        assert disk.steps() == [1, 3, 4]
    disk.commit(5)
    assert disk.steps() == [4, 5]


def test_the_newest_tells_which_of_those_elsewhere_are_the_best(tmp_path: Path) -> None:
    disk = Disk(tmp_path, Keep(last=2, best=Best("eval_loss")))
    for step, loss in LOSSES.items():
        disk.commit(step, loss)
    there = [(0, step) for step in LOSSES]
    assert disk.retention.best_among(there) == [], "all that matters is here"
    for step in (20, 30):
        shutil.rmtree(disk.run_dir / "checkpoints" / f"checkpoint-{step}")
    disk.again()
    assert disk.retention.best_among(there) == [(0, 20)]
    assert disk.retention.best_among([(0, 10)]) == [], "what is here is better"
    disk.retention.keep = Keep(last=2, best=Best("eval_loss", count=3))
    assert disk.retention.best_among(there) == [(0, 20), (0, 30)]
    disk.retention.keep = Keep(last=2)
    assert disk.retention.best_among(there) == []


def test_room_is_made_down_to_two_but_not_at_the_cost_of_what_is_kept_for_ever(tmp_path: Path) -> None:
    disk = Disk(tmp_path, Keep(last=5, best=Best("eval_loss")))
    for step, loss in LOSSES.items():
        disk.commit(step, loss)
    assert disk.retention.make_room()
    assert disk.steps() == [20, 30, 40]
    assert not disk.retention.make_room()


def test_what_the_journal_does_not_know_is_as_old_as_its_files(tmp_path: Path) -> None:
    disk = Disk(tmp_path, Keep(last=2, every=Seconds(1e12)))
    disk.commit(1)
    (tmp_path / "journal.jsonl").unlink()
    disk.again()
    assert disk.retention._stock is not None
    (one,) = disk.retention._stock.look()
    assert abs(one.time_s - time.time()) < 60
