"""A commit is whole, once, and what it refuses it names."""

import errno
import os
import pickle
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoint_samples import RUN, commit_step, contents, parts, python, tree

from supervisor.checkpoint.files import move
from supervisor.checkpoint.manifest import parse
from supervisor.checkpoint.parts import Part, part_from_bytes, part_from_range
from supervisor.checkpoint.refusals import PartError, StepTakenError, StorageError
from supervisor.checkpoint.staging import staging
from supervisor.checkpoint.verify import Intact, verify
from supervisor.errors import DiskError


def test_what_is_committed_is_what_the_parts_held(tmp_path: Path) -> None:
    done = commit_step(tmp_path / "checkpoints", 20)
    held = {path.name: path.read_bytes() for path in done.path.iterdir()}
    manifest = held.pop("manifest.json")
    assert held == contents(20)
    assert parse(manifest) == done.manifest
    assert verify(done.path, RUN) == Intact(done.manifest, done.bytes)
    assert done.bytes == sum(map(len, held.values()))
    assert os.listdir(tmp_path / "checkpoints") == ["checkpoint-20"]


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    done = commit_step(tmp_path, 20)
    assert stat.S_IMODE(done.path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in done.path.iterdir()} == {0o600}


def test_the_parts_are_copied_from_an_open_slot_in_pieces(tmp_path: Path) -> None:
    optimizer = contents(20)["optimizer.safetensors"]
    slot = tmp_path / "slot"
    slot.write_bytes(b"head" + optimizer + b"tail")
    with slot.open("rb") as file:
        ranged = part_from_range("optimizer.safetensors", file.fileno(), 4, len(optimizer), piece_bytes=7)
        others = [part for part in parts(20) if part.name != ranged.name]
        done = commit_step(tmp_path / "checkpoints", 20, made_of=[*others, ranged])
    assert (done.path / "optimizer.safetensors").read_bytes() == optimizer


def test_committing_the_same_step_again_changes_nothing(tmp_path: Path) -> None:
    commit_step(tmp_path, 20)
    before = tree(tmp_path)
    again = commit_step(tmp_path, 20, confirm=lambda: pytest.fail("nothing is committed, so nothing is asked"))
    assert again.already
    assert tree(tmp_path) == before


@pytest.mark.parametrize(("key", "value"), [("run_id", "run-b"), ("lineage", 1)])
def test_another_run_or_lineage_does_not_replace_it(tmp_path: Path, key: str, value: object) -> None:
    commit_step(tmp_path, 20)
    before = tree(tmp_path)
    with pytest.raises(StepTakenError, match="run run-a, lineage 0") as refused:
        commit_step(tmp_path, 20, **{key: value})
    assert refused.value.errno == errno.EEXIST
    assert tree(tmp_path) == before


def test_a_torn_one_of_that_name_is_left_alone_and_named(tmp_path: Path) -> None:
    (commit_step(tmp_path, 20).path / "state.json").unlink()
    before = tree(tmp_path)
    with pytest.raises(StepTakenError, match=r"torn: state\.json: missing"):
        commit_step(tmp_path, 20)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_part_that_is_short_or_long_is_refused(tmp_path: Path, size: int) -> None:
    wrong = Part("rank-1.safetensors", 64, lambda: iter((b"x" * size,)))
    others = [part for part in parts(20) if part.name != wrong.name]
    with pytest.raises(PartError, match="64 were promised"):
        commit_step(tmp_path, 20, made_of=[*others, wrong])
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("optimizer.safetensors", b"x" * 64, "safetensors header"),
        ("state.json", b'{"step": 19, "world_size": 2, "ranks": {}}', "step is 19, 20 committed"),
        ("trainer_state.json", b'{"log_history": [', "not JSON"),
    ],
)
def test_what_would_be_torn_is_not_committed(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    others = [part for part in parts(20) if part.name != name]
    with pytest.raises(PartError, match=f"{name}: .*{reason}"):
        commit_step(tmp_path, 20, made_of=[*others, part_from_bytes(name, data)])
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("name", ["state.json", "trainer_state.json", "optimizer.safetensors", "adapter_config.json"])
def test_what_a_resume_needs_has_to_be_among_the_parts(tmp_path: Path, name: str) -> None:
    with pytest.raises(PartError, match=f"{name}: not among the parts; a resume needs it"):
        commit_step(tmp_path, 20, made_of=[part for part in parts(20) if part.name != name])
    assert tree(tmp_path) == {}


def test_confirm_is_asked_last_and_can_stop_the_commit(tmp_path: Path) -> None:
    class LeaseLostError(Exception):
        pass

    def lost() -> None:
        (staged,) = tmp_path.iterdir()
        assert {path.name for path in staged.iterdir()} == {*contents(20), "manifest.json"}
        raise LeaseLostError

    with pytest.raises(LeaseLostError):
        commit_step(tmp_path, 20, confirm=lost)
    assert tree(tmp_path) == {}


def test_an_error_of_the_source_becomes_a_disk_error_with_its_number(tmp_path: Path) -> None:
    def failing() -> Iterator[bytes]:
        yield b"x"
        raise OSError(errno.EIO, "gone")

    with pytest.raises(DiskError, match=r"committing .*checkpoint-20: input/output error") as refused:
        commit_step(tmp_path, 20, made_of=[Part("state.json", 2, failing)])
    assert isinstance(refused.value, StorageError)
    assert refused.value.errno == errno.EIO
    assert tree(tmp_path) == {}


def test_the_errors_survive_pickling() -> None:
    error = StorageError("committing x: no space", "free room", errno.ENOSPC)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.errno) == (str(error), errno.ENOSPC)


def test_a_link_in_place_of_the_checkpoint_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "checkpoint-20").symlink_to(elsewhere)
    with pytest.raises(StepTakenError, match="foreign: not a directory of its own"):
        commit_step(checkpoints, 20)
    assert tree(elsewhere) == {}


def test_a_rename_that_was_done_and_reported_as_failed_counts_as_done(tmp_path: Path) -> None:
    def as_nfs_does(source: Path, target: Path) -> None:
        os.rename(source, target)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    (tmp_path / "old").mkdir()
    move(tmp_path / "old", tmp_path / "new", rename=as_nfs_does)
    assert os.listdir(tmp_path) == ["new"]


def test_a_rename_that_failed_is_an_error(tmp_path: Path) -> None:
    def failing(source: Path, target: Path) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    (tmp_path / "old").mkdir()
    with pytest.raises(OSError, match="Stale"):
        move(tmp_path / "old", tmp_path / "new", rename=failing)
    assert os.listdir(tmp_path) == ["old"]


def test_a_name_taken_meanwhile_does_not_lose_the_other_commit(tmp_path: Path) -> None:
    """The second of two commits arrives between the first one's look and its rename."""
    done = commit_step(tmp_path, 20, confirm=lambda: commit_step(tmp_path, 20) and None)
    assert done.already
    assert os.listdir(tmp_path) == ["checkpoint-20"]
    assert isinstance(verify(done.path, RUN), Intact)


def test_a_different_commit_meanwhile_wins_and_is_named(tmp_path: Path) -> None:
    with pytest.raises(StepTakenError, match="run run-b"):
        commit_step(tmp_path, 20, confirm=lambda: commit_step(tmp_path, 20, run_id="run-b") and None)
    assert os.listdir(tmp_path) == ["checkpoint-20"]
    assert isinstance(verify(tmp_path / "checkpoint-20", "run-b"), Intact)


RACE = """
import os, sys
from pathlib import Path
from checkpoint_samples import commit_step

root, racers = Path(sys.argv[1]), 4
for step in range(1, 26):
    ready_read, ready_write = os.pipe()
    go_read, go_write = os.pipe()
    said_read, said_write = os.pipe()
    for racer in range(racers):
        if os.fork() == 0:
            def confirm():
                os.write(ready_write, b".")
                os.close(go_write)
                os.read(go_read, 1)  # all at once, when the last writer closes it
            done = commit_step(root, step, confirm=confirm)
            os.write(said_write, b"a" if done.already else b"w")
            os._exit(0)
    for racer in range(racers):
        assert os.read(ready_read, 1) == b"."
    os.close(go_write)
    ends = [os.wait()[1] for racer in range(racers)]
    os.close(said_write)
    print(ends == [0] * racers, sorted(os.read(said_read, racers)) == sorted(b"aaaw"))
"""


def test_of_processes_racing_for_a_step_one_writes_and_the_others_find_it(tmp_path: Path) -> None:
    raced = python(RACE, tmp_path)
    assert raced.stdout.splitlines() == ["True True"] * 25, raced.stderr
    assert {type(verify(path, RUN)) for path in tmp_path.iterdir()} == {Intact}
    assert len(os.listdir(tmp_path)) == 25


def test_a_staging_directory_that_was_not_published_goes(tmp_path: Path) -> None:
    with staging(tmp_path, "checkpoint-20") as staged:
        staged.write(parts(20))
        assert len(os.listdir(tmp_path)) == 1
    assert tree(tmp_path) == {}
