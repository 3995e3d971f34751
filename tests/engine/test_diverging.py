"""Which states count once training has gone wrong, and what of it is on disk."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.board.layout import Region, SlotHeader
from supervisor.board.pages import Beat
from supervisor.board.slots import Snapshot
from supervisor.checkpoint.commit import commit
from supervisor.checkpoint.manifest import Health, Manifest
from supervisor.checkpoint.parts import part_from_bytes
from supervisor.engine.course import Course
from supervisor.engine.state.diverging import TELL_S, Diverging
from supervisor.engine.state.memory import Whole
from supervisor.engine.state.resuming import OnDisk, look, wanted_by
from supervisor.job import Job
from supervisor.policy.causes import Cause, Verdict
from supervisor.policy.divergence import Divergence
from supervisor.policy.ledger import Ledger, fold
from supervisor.policy.restart import Facts

GOOD, BAD = Beat(step=9, loss=2.0, grad_norm=1.0), Beat(step=9, loss=math.inf, grad_norm=math.inf, diverged_at=9)
GRADIENTS = Beat(step=9, loss=2.0, grad_norm=math.inf, diverged_at=9)


def whole(lineage: int, step: int, *marks: int) -> Whole:
    headers = [SlotHeader(step, lineage, step, 1, 0, 0, 0, 0, 0.0, mark) for mark in marks or (0, 0)]
    return Whole(tuple(Snapshot(Path("x"), Region(3, 0, (), 0), 0, header) for header in headers))


def diverging(on_nan: str, *beats: Beat, ledger: Ledger | None = None) -> tuple[Diverging, list[dict[str, Any]]]:
    written: list[dict[str, Any]] = []
    looks = Diverging(
        on_nan,
        lambda: list(beats),
        lambda: ledger or Ledger(),
        lambda event, **f: written.append({"event": event, **f}),
    )
    return looks, written


def test_the_rank_whose_own_loss_it_was_is_named_if_it_speaks_in_time() -> None:
    looks, _ = diverging("rollback", GRADIENTS, GOOD)
    assert looks.look(100.0) is None
    verdict = looks.look(100.0 + TELL_S)
    assert verdict is not None
    assert verdict.evidence == "rank 0: the gradients are not finite at step 9 (the loss was 2)"
    verdict = diverging("rollback", GRADIENTS, BAD)[0].look(100.0)
    assert verdict is not None
    assert (verdict.cause, verdict.evidence) == (Cause.DIVERGED, "rank 1: the loss is not finite at step 9")


def test_who_ignores_it_is_told_once() -> None:
    looks, written = diverging("ignore", BAD, BAD)
    assert [looks.look(float(now)) for now in range(3)] == [None] * 3
    assert [one["event"] for one in written] == ["incident"]
    assert looks.seen is None
    assert looks.counts(whole(0, 9, 1, 1))


@pytest.mark.parametrize("on_nan", ["rollback", "stop"])
def test_a_state_counts_if_it_bears_no_mark_and_no_rank_says_otherwise(on_nan: str) -> None:
    looks, _ = diverging(on_nan, GOOD, GOOD)
    assert looks.counts(whole(0, 9))
    assert not looks.counts(whole(0, 9, 0, 1))
    looks, _ = diverging(on_nan, GOOD, BAD)
    assert [looks.counts(whole(0, step)) for step in (8, 9, 10)] == [True, False, False]


def test_what_the_run_went_back_behind_does_not_count_and_what_came_instead_does() -> None:
    ledger = Ledger(lineage=1, behind=((1, 9),))
    looks, _ = diverging("rollback", GOOD, GOOD, ledger=ledger)
    assert [looks.counts(whole(*key)) for key in ((0, 8), (0, 9), (1, 9), (1, 30))] == [True, False, True, True]
    looks, _ = diverging("rollback", BAD, BAD, ledger=ledger)  # the beats of the attempt that ended are still there
    assert looks.counts(whole(0, 8))


def put(run_dir: Path, step: int, lineage: int = 0, *, bad: bool = False) -> None:
    state = {"step": step, "world_size": 1, "ranks": {"0": {"rng": ""}}}
    files = {"state.json": json.dumps(state).encode(), "trainer_state.json": b"{}", "adapter_config.json": b"{}"}
    tensors = len(b"{}").to_bytes(8, "little") + b"{}"
    files |= {"optimizer.safetensors": tensors, "adapter_model.safetensors": tensors}
    commit(
        run_dir / "checkpoints",
        run_id="r",
        lineage=lineage,
        step=step,
        world_size=1,
        parts=[part_from_bytes(name, data) for name, data in files.items()],
        confirm=lambda: None,
        clock=time.monotonic,
        health=Health(diverged=bad),
    )


def found(run_dir: Path, ledger: Ledger, *, take_diverged: bool = False) -> OnDisk:
    return look(run_dir, "r", ledger, time.time, take_diverged=take_diverged)


def names(directory: Path) -> list[str]:
    return sorted("-".join(p.name.split("-")[:2]) for p in directory.iterdir() if p.is_dir())


def test_what_the_run_went_back_behind_is_set_aside_so_that_its_steps_can_be_committed_again(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        put(tmp_path, step)
    ledger = Ledger(run_id="r", lineage=1, behind=((1, 4),))
    disk = found(tmp_path, ledger)
    assert disk.newest is not None
    assert disk.newest.step == 2
    assert sorted(disk.rejected) == [
        (f"checkpoint-{step}", step, "abandoned: the run went back behind step 4") for step in (4, 6)
    ]
    assert names(tmp_path / "checkpoints") == ["checkpoint-2"]
    assert names(tmp_path / "abandoned" / "lineage-0") == ["checkpoint-4", "checkpoint-6"]
    assert not (tmp_path / "torn").exists()
    put(tmp_path, 4, lineage=1)
    again = found(tmp_path, ledger)
    assert again.newest is not None
    assert (again.newest.lineage, again.newest.step, again.rejected) == (1, 4, ())


def test_a_marked_one_stays_where_it_is_and_is_taken_only_by_who_wants_it(tmp_path: Path) -> None:
    put(tmp_path, 2)
    put(tmp_path, 4, bad=True)
    disk = found(tmp_path, Ledger(run_id="r"))
    assert disk.newest is not None
    assert disk.newest.step == 2
    assert disk.diverged == ("checkpoint-4: training had diverged by then",)
    assert names(tmp_path / "checkpoints") == ["checkpoint-2", "checkpoint-4"]
    taken = found(tmp_path, Ledger(run_id="r"), take_diverged=True).newest
    assert taken is not None
    assert taken.step == 4


def test_nothing_that_counts_is_left_where_all_has_been_abandoned(tmp_path: Path) -> None:
    put(tmp_path, 4)
    disk = found(tmp_path, Ledger(run_id="r", lineage=1, behind=((1, 3),)))
    assert (disk.newest, disk.diverged, disk.unreadable, disk.set_aside) == (None, (), (), ())


def test_a_manifest_is_wanted_for_its_lineage_and_its_health(tmp_path: Path) -> None:
    def made(lineage: int, step: int, *, bad: bool = False) -> Manifest:
        return Manifest(run_id="r", lineage=lineage, step=step, world_size=1, files={}, health=Health(diverged=bad))

    ledger = Ledger(behind=((1, 5),))
    assert [wanted_by(ledger, take_diverged=False)(made(0, step)) for step in (4, 5)] == [True, False]
    assert wanted_by(ledger, take_diverged=True)(made(1, 9, bad=True))
    assert not wanted_by(ledger, take_diverged=False)(made(1, 9, bad=True))


@pytest.mark.parametrize("taken_away", [False, True])
def test_after_going_back_only_what_counts_is_the_newest_on_disk(taken_away: bool) -> None:
    written: list[dict[str, Any]] = []
    checkpoints: Any = SimpleNamespace(newest=24, trained=True)
    course = Course(
        Job(program="x.py"),
        checkpoints,
        SimpleNamespace(),  # type: ignore[arg-type]  # nobody outside wants anything
        SimpleNamespace(scheduled=False),  # type: ignore[arg-type]
        lambda event, **fields: written.append({"event": event, **fields}),
    )
    ledger = Ledger(committed=tuple((0, step, f"checkpoints/checkpoint-{step}") for step in (8, 16, 24)), best_step=30)
    facts = Facts(diverged=Divergence(0, 26, 30, 90.0, 5.0), states=(8, 16, 24))
    if taken_away:
        course.remember("the loss rose", ledger, facts)
    else:
        course.follow(Verdict(Cause.DIVERGED, "the loss rose"), ledger, trained=True, facts=facts)
    assert [one["event"] for one in written] == ["incident", "adapted", *([] if taken_away else ["decision"])]
    assert (written[1]["lineage"], written[1]["before"], written[1]["changes"]) == (1, 16, {"skip": [[16, 30]]})
    assert (checkpoints.newest, checkpoints.trained) == (8, False)
    after = fold([{**one} for one in written], ledger)
    assert (after.lineage, after.best_step, after.adaptation.skip, after.counts(0, 16)) == (1, 15, ((16, 30),), False)
