"""What a run may begin with: said before anything starts, and taken in once."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from checkpoint_samples import RUN, commit_step, contents, safetensors

from supervisor.checkpoint.manifest import Health
from supervisor.checkpoint.parts import part_from_bytes
from supervisor.checkpoint.verify import Intact, verify
from supervisor.engine.opening import Terms
from supervisor.engine.state.beginning import begin_run, due, find_beginning
from supervisor.errors import JobError
from supervisor.job import Job
from supervisor.journal import Journal, read
from supervisor.lease import acquire
from supervisor.policy.ledger import Ledger

BATCH = {"accumulation": 2, "own_accumulation": 2, "world_size": 2, "micro_batch": 1, "own_micro_batch": 1}


def job(run_dir: Path, start_from: Path, **more: Any) -> Job:
    return Job(program="train.py", run_dir=run_dir, start_from=str(start_from), **more)


def ours(tmp_path: Path, step: int = 20, health: Health | None = None, **state: Any) -> Path:
    files = contents(step)
    files["state.json"] = json.dumps({**json.loads(files["state.json"]), **state}).encode()
    made_of = [part_from_bytes(name, data) for name, data in files.items()]
    return commit_step(tmp_path / "other", step, run_id="other", made_of=made_of, health=health).path


def stock(tmp_path: Path, *, without: tuple[str, ...] = (), **more: bytes) -> Path:
    """What a Trainer of two ranks writes, as far as it is looked at without loading it; the pickles are old ones."""
    files = {
        "adapter_model.safetensors": safetensors(a=b"1234"),
        "adapter_config.json": b"{}",
        "optimizer.pt": b"\x80\x02.",
        "scheduler.pt": b"\x80\x02.",
        "rng_state_0.pth": b"\x80\x02.",
        "rng_state_1.pth": b"\x80\x02.",
        "trainer_state.json": b'{"global_step": 7}',
        "training_args.bin": b"\x80\x02.",
        **{name.replace("__", "."): data for name, data in more.items()},
    }
    directory = tmp_path / "checkpoint-7"
    directory.mkdir()
    for name, data in files.items():
        if name not in without:
            (directory / name).write_bytes(data)
    return directory


def said(tmp_path: Path, path: Path, world_size: int = 2, **more: Any) -> str:
    with pytest.raises(JobError) as caught:
        find_beginning(job(tmp_path / "run", path, **more), world_size)
    return str(caught.value)


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        (("optimizer.pt",), "optimizer.pt: missing"),
        (("scheduler.pt", "rng_state_0.pth", "rng_state_1.pth"), "scheduler.pt, rng_state.pth: missing"),
        (("rng_state_0.pth",), "rng_state_0.pth: missing"),
        (("trainer_state.json",), "trainer_state.json: missing"),
        (("adapter_config.json",), "adapter_config.json: missing"),
        (("adapter_model.safetensors",), "adapter_model.safetensors or model.safetensors: missing"),
    ],
)
def test_what_a_stock_checkpoint_lacks_is_named(tmp_path: Path, missing: tuple[str, ...], named: str) -> None:
    answer = said(tmp_path, stock(tmp_path, without=missing))
    assert named in answer
    assert answer.startswith("start_from: ")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ({"optimizer__pt": b"PK\3\4 and no more"}, "optimizer.pt: a damaged zip archive"),
        ({"scheduler__pt": b""}, "scheduler.pt: empty"),
        ({"trainer_state__json": b"{"}, "not JSON"),
        ({"trainer_state__json": b'{"global_step": "7"}'}, "global_step is no count"),
        ({"adapter_model__safetensors": b"12345678"}, "adapter_model.safetensors: the safetensors header"),
    ],
)
def test_damage_that_can_be_seen_is_named(tmp_path: Path, damage: dict[str, bytes], named: str) -> None:
    assert named in said(tmp_path, stock(tmp_path, **damage))


def test_a_state_spread_over_ranks_is_refused(tmp_path: Path) -> None:
    directory = stock(tmp_path)
    (directory / "global_step7").mkdir()
    (directory / "global_step7" / "zero.pt").write_bytes(b"\x80\x02.")
    assert "spread over ranks" in said(tmp_path, directory)


def test_a_whole_stock_checkpoint_is_taken(tmp_path: Path) -> None:
    found = find_beginning(job(tmp_path / "run", stock(tmp_path)), 2)
    assert found is not None
    assert found.stock is not None
    assert (found.step, found.stock.ranks, found.given) == (7, (0, 1), None)


def test_an_adapter_alone_is_refused_with_the_way(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "adapter_model.safetensors").write_bytes(safetensors(a=b"1"))
    assert "merge it into its base" in said(tmp_path, tmp_path / "a")


def test_what_only_the_program_can_read_needs_hooks_off(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "state.bin").write_bytes(b"x")
    assert "`hooks: off`" in said(tmp_path, tmp_path / "a")
    assert find_beginning(job(tmp_path / "run", tmp_path / "a", hooks="off"), 2) is None
    assert "there is no " in said(tmp_path, tmp_path / "nowhere", hooks="off")


def test_ours_is_refused_where_it_is_torn_has_diverged_or_its_batch_does_not_divide(tmp_path: Path) -> None:
    one = ours(tmp_path, 20, data=BATCH)
    assert "made with 2 processes, 3 are to be launched, and its steps of 4 micro-batches" in said(tmp_path, one, 3)
    assert find_beginning(job(tmp_path / "run", one), 4) is not None
    assert "made with 2 processes" in said(tmp_path, ours(tmp_path, 30), 1)
    bad = ours(tmp_path, 40, Health(diverged=True))
    assert "diverged" in said(tmp_path, bad)
    assert find_beginning(job(tmp_path / "run", bad, recovery={"on_nan": "ignore"}), 2) is not None
    (one / "state.json").unlink()
    assert "is torn: state.json: missing" in said(tmp_path, one)


def test_a_run_begins_with_it_until_it_has_something_of_its_own(tmp_path: Path) -> None:
    here = job(tmp_path, tmp_path)
    assert due(here, Ledger(run_id="r"), Terms())
    owning = Ledger(run_id="r", committed=((0, 5, "checkpoints/checkpoint-5"),))
    assert not due(here, owning, Terms())
    assert due(here, owning, Terms(fresh=True))
    assert not due(Job(program="p"), Ledger(), Terms())


def begin(run_dir: Path, path: Path, ledger: Ledger, told: list[str] | None = None, **terms: bool) -> Any:
    journal = Journal.open(run_dir, time.time, "here")
    lease = acquire(run_dir, wait=time.sleep, floor_epoch=0)
    try:
        return begin_run(
            job(run_dir, path),
            journal,
            ledger,
            Terms(**terms),
            world_size=2,
            lease=lease,
            wait=time.sleep,
            tell=lambda word, _facts: (told if told is not None else []).append(word),
        )
    finally:
        lease.release()


def test_it_becomes_the_run_s_own_first_checkpoint(tmp_path: Path) -> None:
    run_dir, path = tmp_path / "run", ours(tmp_path, data=BATCH)
    run_dir.mkdir()
    told: list[str] = []
    opened = begin(run_dir, path, Ledger(), told)
    assert told == ["checkpoint_committed"]
    taken_in = run_dir / "checkpoints" / "checkpoint-20"
    verdict = verify(taken_in, opened.run_id)
    assert isinstance(verdict, Intact)
    assert opened.ledger.committed == ((0, 20, "checkpoints/checkpoint-20"),)
    name = "optimizer.safetensors"
    assert (taken_in / name).read_bytes() == (path / name).read_bytes()
    record = list(read(run_dir / "journal.jsonl"))[-1]
    assert (record.event, record.fields["reason"], record.fields["start_from"]) == (
        "checkpoint_committed",
        "start_from",
        str(path),
    )


def test_a_fresh_start_begins_with_a_checkpoint_that_it_moves_out_of_the_way(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    path = commit_step(run_dir / "checkpoints", 20, run_id=RUN).path
    before = Ledger(run_id=RUN, committed=((0, 20, "checkpoints/checkpoint-20"),))
    opened = begin(run_dir, path, before, fresh=True)
    assert opened.run_id != RUN
    assert isinstance(verify(path, opened.run_id), Intact)
    assert isinstance(verify(run_dir / "abandoned" / "lineage-0" / "checkpoints" / "checkpoint-20", RUN), Intact)


def test_what_may_be_code_is_refused_and_the_run_is_not_begun(tmp_path: Path) -> None:
    """These old pickles name a function to be called."""
    code = b"\x80\x02cos\nsystem\nX\x05\x00\x00\x00false\x85R."
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    with pytest.raises(JobError, match=r"start_from: .*rng_state_0\.pth"):
        begin(run_dir, stock(tmp_path, rng_state_0__pth=code), Ledger())
    assert list(read(run_dir / "journal.jsonl")) == []
    assert not (run_dir / "checkpoints").exists()
    assert list((run_dir / "control").iterdir()) == []
