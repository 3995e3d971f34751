"""What the disk shows counts only after a while, where it shows less than the journal knows."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from supervisor.checkpoint.commit import commit
from supervisor.checkpoint.parts import part_from_bytes
from supervisor.checkpoint.refusals import StorageError
from supervisor.engine.state.looking import look_patiently
from supervisor.engine.state.resuming import OnDisk, Resuming, look, note_checkpoint
from supervisor.policy.ledger import Ledger
from supervisor.policy.resume import Candidate

RUN = "run-a"
TENSORS = (2).to_bytes(8, "little") + b"{}"
LEDGER = Ledger(run_id=RUN, committed=tuple((0, step, f"checkpoints/checkpoint-{step}") for step in (20, 30)))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    for step in (20, 30):
        files = {
            "adapter_config.json": b"{}",
            "adapter_model.safetensors": TENSORS,
            "optimizer.safetensors": TENSORS,
            "state.json": b'{"step": %d, "world_size": 1, "ranks": {"0": {"rng": ""}}}' % step,
            "trainer_state.json": b"{}",
        }
        commit(
            tmp_path / "checkpoints",
            run_id=RUN,
            lineage=0,
            step=step,
            world_size=1,
            parts=[part_from_bytes(name, data) for name, data in files.items()],
            confirm=lambda: None,
            clock=time.monotonic,
        )
    return tmp_path


def look_once(run_dir: Path) -> OnDisk:
    return look(run_dir, RUN, LEDGER, time.time)


def step_of(found: OnDisk) -> int | None:
    return found.newest.step if found.newest is not None else None


def test_a_newest_that_the_journal_knows_and_no_listing_shows_is_missing(run_dir: Path) -> None:
    assert look_once(run_dir).missing == ()
    (run_dir / "checkpoints" / "checkpoint-30").rename(run_dir / "hidden")
    assert look_once(run_dir).missing == ("checkpoint-30",)


def test_one_that_was_set_aside_is_not_waited_for(run_dir: Path) -> None:
    (run_dir / "checkpoints" / "checkpoint-30" / "state.json").unlink()
    assert [look_once(run_dir).missing for _ in range(2)] == [(), ()]


def test_an_older_one_that_is_gone_is_not_waited_for(run_dir: Path) -> None:
    (run_dir / "checkpoints" / "checkpoint-20").rename(run_dir / "hidden")
    assert look_once(run_dir).missing == ()


def test_what_a_machine_never_had_is_not_waited_for_where_its_journal_was_brought(run_dir: Path) -> None:
    (run_dir / "checkpoints" / "checkpoint-30").rename(run_dir / "hidden")
    resuming = Resuming(run_dir, RUN, memory=None)  # type: ignore[arg-type]  # nobody asks for what is in memory
    began_s = time.monotonic()
    found = resuming.look(LEDGER, time.time, brought=True)
    assert (step_of(found), found.missing) == (20, ())
    assert time.monotonic() - began_s < 9.0  # the looks would take ten


def test_one_that_shows_late_is_gone_on_from(run_dir: Path) -> None:
    hidden = (run_dir / "checkpoints" / "checkpoint-30").rename(run_dir / "hidden")
    looks = []

    def look_and_show() -> OnDisk:
        looks.append(look_once(run_dir))
        if len(looks) == 2:
            hidden.rename(run_dir / "checkpoints" / "checkpoint-30")
        return looks[-1]

    assert step_of(look_patiently(look_and_show)) == 30
    assert [step_of(found) for found in looks] == [20, 20, 30]


def test_one_that_never_shows_is_waited_for_no_longer_than_that(run_dir: Path) -> None:
    (run_dir / "checkpoints" / "checkpoint-30").rename(run_dir / "hidden")
    began_s = time.monotonic()
    found = look_patiently(lambda: look_once(run_dir), patience_s=1.0)
    assert step_of(found) == 20
    assert 0.25 <= time.monotonic() - began_s < 20.0


def in_turn(outcomes: Iterable[OnDisk | StorageError]) -> Callable[[], OnDisk]:
    left: Iterator[OnDisk | StorageError] = iter(outcomes)

    def one() -> OnDisk:
        found = next(left)
        if isinstance(found, StorageError):
            raise found
        return found

    return one


def found(step: int, *, rejected: tuple[tuple[str, int, str], ...] = (), missing: tuple[str, ...] = ()) -> OnDisk:
    newest = Candidate(0, step, "checkpoint", f"checkpoint-{step}")
    return OnDisk(newest, rejected, (), (), (), 1, trained=False, missing=missing)


def test_a_server_that_fails_over_is_asked_again() -> None:
    stale = StorageError("listing: stale file handle", "see the log", errno.ESTALE)
    assert step_of(look_patiently(in_turn([stale, stale, found(30)]))) == 30


def test_what_no_other_look_would_mend_is_raised_at_once() -> None:
    denied = StorageError("listing: permission denied", "give the right", errno.EACCES)
    with pytest.raises(StorageError, match="permission denied"):
        look_patiently(in_turn([denied]))


def test_what_the_first_looks_set_aside_is_told_too() -> None:
    first = found(20, rejected=(("checkpoint-40", 40, "torn"),), missing=("checkpoint-30",))
    assert look_patiently(in_turn([first, found(30)])).rejected == first.rejected


def test_workers_are_pointed_at_what_the_manifest_lists_and_at_no_link_beside_it(run_dir: Path) -> None:
    checkpoint = run_dir / "checkpoints" / "checkpoint-30"
    (checkpoint / "rank-0.safetensors").symlink_to("/etc/passwd")
    note_checkpoint(run_dir / "note", checkpoint, 30)
    parts = json.loads((run_dir / "note" / "resume.json").read_text())["parts"]
    assert set(parts) == {path.name for path in checkpoint.iterdir()} - {"rank-0.safetensors", "manifest.json"}
