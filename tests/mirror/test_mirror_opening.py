"""What a machine does first with a mirror: it takes what it lacks, and refuses what is not its own."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import RUN, made, tree

from supervisor.checkpoint.flaws import FlawError
from supervisor.checkpoint.manifest import seal
from supervisor.engine.leading import mirror_of
from supervisor.engine.opening import Terms
from supervisor.errors import OwnedError
from supervisor.job import Job
from supervisor.lease import acquire
from supervisor.mirror.copy import JOURNAL, Copy
from supervisor.mirror.keeper import Keeper
from supervisor.mirror.layout import HEAD, Head, encode_head, parse_commit, parse_head, piece_name
from supervisor.mirror.messages import Settings
from supervisor.mirror.refusals import StoreOwnedError, StoreRefusedError
from supervisor.mirror.store import Store
from supervisor.owner import this_process
from supervisor.policy.ledger import Ledger


def machine(run_dir: Path, url: str, run_id: str | None = None, **more: bool) -> Copy:
    """A machine whose run directory is its own; the mirror has not been opened."""
    run_dir.mkdir(exist_ok=True)
    (run_dir / "lease").unlink(missing_ok=True)  # of the same machine's stay before
    lease = acquire(run_dir, wait=time.sleep, owner=replace(this_process(), host=run_dir.name))
    settings = Settings(
        url=url,
        run_dir=str(run_dir),
        owner=lease.owner,
        over=(),
        epoch=lease.epoch,
        keep_last=2,
        run_id=run_id,
        fresh=more.get("fresh", False),
        late=more.get("late", False),
    )
    return Copy(settings, wait=time.sleep, moved=lambda: None)


def leave(copy: Copy) -> None:
    assert copy.held is not None
    copy.held.release()


def begun(run_dir: Path, url: str, steps: tuple[int, ...] = (10, 20)) -> bytes:
    """A machine has begun a run, sent some checkpoints, and let go; its journal."""
    copy = machine(run_dir, url)
    copy.open()
    assert copy.run_id is None
    (run_dir / JOURNAL).write_bytes(b'{"one": 1}\n')
    (run_dir / "job.yaml").write_text("name: demo\n")
    copy.adopt(RUN)
    for step in steps:
        copy.send(made(run_dir / "checkpoints", step).path)
    (run_dir / JOURNAL).write_bytes(b'{"one": 1}\n{"two": 2}\n{"to')
    copy.save()
    copy.clean()
    leave(copy)
    return b'{"one": 1}\n{"two": 2}\n'


def test_a_machine_that_has_nothing_gets_the_journal_and_what_it_asks_for(tmp_path: Path, anywhere: str) -> None:
    journal = begun(tmp_path / "one", anywhere)
    copy = machine(tmp_path / "two", anywhere)
    copy.open()
    assert (copy.run_id, copy.told()) == (RUN, [(0, 10, False), (0, 20, False)])
    assert set(copy.restored) == {JOURNAL, "job.yaml"}
    assert (tmp_path / "two" / JOURNAL).read_bytes() == journal
    copy.adopt(RUN)
    brought = copy.fetch(0, 20).path
    assert tree(brought) == tree(tmp_path / "one" / "checkpoints" / "checkpoint-20")
    assert copy.missing(set()) == []


def test_a_machine_whose_run_has_gone_on_elsewhere_takes_that_journal_and_keeps_its_own(
    tmp_path: Path, anywhere: str
) -> None:
    journal = begun(tmp_path / "one", anywhere)
    (tmp_path / "one" / JOURNAL).write_bytes(b'{"one": 1}\n{"other": 2}\n')
    late = machine(tmp_path / "one", anywhere, RUN, late=True)  # its training is under way
    with pytest.raises(StoreOwnedError, match="has gone on elsewhere"):
        late.open()
    leave(late)
    copy = machine(tmp_path / "one", anywhere, RUN)
    copy.open()
    assert (tmp_path / "one" / JOURNAL).read_bytes() == journal
    [aside] = (tmp_path / "one").glob(f"{JOURNAL}.before-*")
    assert aside.read_bytes() == b'{"one": 1}\n{"other": 2}\n'


def test_a_journal_that_goes_beyond_the_mirrors_stays(tmp_path: Path, anywhere: str) -> None:
    longer = begun(tmp_path / "one", anywhere) + b'{"three": 3}\n'
    (tmp_path / "one" / JOURNAL).write_bytes(longer)
    copy = machine(tmp_path / "one", anywhere, RUN)
    copy.open()
    assert copy.restored == ()
    assert (tmp_path / "one" / JOURNAL).read_bytes() == longer


def test_another_run_in_the_mirror_is_left_alone_unless_the_run_begins_anew(tmp_path: Path, anywhere: str) -> None:
    begun(tmp_path / "one", anywhere)
    other = machine(tmp_path / "two", anywhere, "run-b")
    with pytest.raises(StoreRefusedError, match="holds run run-a"):
        other.open()
    leave(other)
    fresh = machine(tmp_path / "three", anywhere, fresh=True)
    fresh.open()
    assert (fresh.run_id, fresh.restored, fresh.told()) == (None, (), [])
    fresh.adopt("run-c")
    fresh.save(force=True)
    leave(fresh)
    # The one before is still there, but a new machine does not find it, nor anything to go on from.
    assert Store(anywhere).names(f"{RUN}/commits/") != {}
    last = machine(tmp_path / "four", anywhere)
    last.open()
    assert (last.run_id, last.restored) == (None, ())


def test_what_was_found_damaged_is_sent_anew_also_by_another_process(tmp_path: Path, anywhere: str) -> None:
    begun(tmp_path / "one", anywhere)
    store, place = Store(anywhere), f"{RUN}/pieces/"
    optimizer = (tmp_path / "one" / "checkpoints" / "checkpoint-20" / "optimizer.safetensors").read_bytes()
    victim = place + piece_name(optimizer)
    store.put(victim, b"x" * len(optimizer))
    two = machine(tmp_path / "two", anywhere)
    two.open()
    two.adopt(RUN)
    with pytest.raises(FlawError, match="content changed"):
        two.fetch(0, 20)
    leave(two)
    three = machine(tmp_path / "three", anywhere)
    three.open()
    three.adopt(RUN)
    assert three.told() == [(0, 10, False)]
    again = made(tmp_path / "three" / "checkpoints", 20).path  # bit for bit the same
    three.send(again)
    leave(three)
    four = machine(tmp_path / "four", anywhere)
    four.open()
    four.adopt(RUN)
    (tmp_path / "four" / "checkpoints").mkdir()
    assert tree(four.fetch(0, 20).path) == tree(again)


def test_a_run_that_has_not_committed_here_is_no_run(tmp_path: Path, anywhere: str) -> None:
    begun(tmp_path / "one", anywhere, steps=())
    copy = machine(tmp_path / "two", anywhere)
    copy.open()
    assert (copy.run_id, copy.committed, copy.restored) == (None, False, ())


def test_who_has_lost_the_mirror_writes_no_commit_object(tmp_path: Path, anywhere: str) -> None:
    begun(tmp_path / "one", anywhere)
    copy = machine(tmp_path / "two", anywhere)
    copy.open()
    copy.adopt(RUN)
    checkpoint = made(tmp_path / "two" / "checkpoints", 30).path
    assert copy.held is not None
    leave(copy)
    successor = machine(tmp_path / "three", anywhere)
    successor.open()
    with pytest.raises(OwnedError):
        copy.send(checkpoint)
    assert f"{RUN}/commits/0-30.json" not in Store(anywhere).names(f"{RUN}/commits/")


def test_a_damaged_head_is_refused_unless_the_run_begins_anew(tmp_path: Path, anywhere: str) -> None:
    begun(tmp_path / "one", anywhere)
    Store(anywhere).put(HEAD, b"{}")
    copy = machine(tmp_path / "two", anywhere)
    with pytest.raises(FlawError):
        copy.open()
    leave(copy)
    machine(tmp_path / "three", anywhere, fresh=True).open()


@pytest.mark.parametrize("name", ["../x", "a/../../b", "/etc/passwd", ".hidden", "a//b", ""])
def test_no_file_of_a_head_leaves_the_run_directory(name: str) -> None:
    with pytest.raises(FlawError, match="leaves the run directory"):
        parse_head(encode_head(Head(RUN, committed=True, files={name: (piece_name(b""),)})))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(data=st.binary(max_size=200))
def test_bytes_that_are_no_object_of_ours_are_a_flaw(data: bytes) -> None:
    for parse in (parse_head, parse_commit):
        with pytest.raises(FlawError):
            parse(data)


@given(
    told=st.fixed_dictionaries(
        {"format": st.just(1)},
        optional=dict.fromkeys(("run_id", "committed", "files", "kept", "manifest", "pieces"), JSON),
    )
)
def test_whatever_is_sealed_is_read_or_a_flaw(told: dict[str, object]) -> None:
    for parse in (parse_head, parse_commit):
        try:
            parse(seal(told))
        except FlawError:
            continue
        assert parse is parse_head
        assert isinstance(told["run_id"], str)


def test_a_run_that_begins_anew_is_not_offered_what_it_leaves_behind(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    lease = acquire(tmp_path / "run", wait=time.sleep)
    job = Job(program="jobs.lora", run_dir=tmp_path / "run", checkpoint={"mirror": "file:///m"})  # type: ignore[arg-type]
    before = Ledger(run_id=RUN)
    for fresh, known in ((True, None), (False, RUN)):
        settings = mirror_of(job, Terms(fresh=fresh), before, lease).settings
        assert settings is not None
        assert (settings.fresh, settings.run_id) == (fresh, known)


def test_a_checkpoint_that_lacks_a_file_is_given_up_and_the_next_is_sent(tmp_path: Path, anywhere: str) -> None:
    copy = machine(tmp_path / "one", anywhere)
    copy.open()
    copy.adopt(RUN)
    torn = made(tmp_path / "one" / "checkpoints", 20).path
    made(tmp_path / "one" / "checkpoints", 10)
    (torn / "state.json").unlink()
    told: list[bytes] = []
    keeper = Keeper(told.append)
    sent = [copy.missing(keeper.given_up)[0]]
    keeper.send(copy, sent[0])
    sent.append(copy.missing(keeper.given_up)[0])
    assert [directory.name for directory in sent] == ["checkpoint-20", "checkpoint-10"]
    assert b"checkpoint-20 is not sent" in told[0]
    leave(copy)
