"""The newest is the highest (lineage, step) that verifies, whatever else lies about."""

import shutil
import sys
from pathlib import Path

import pytest
from checkpoint_samples import RUN, commit_step, tree

from supervisor.checkpoint import inventory
from supervisor.checkpoint.inventory import newest_intact, promising, survey
from supervisor.checkpoint.manifest import Health, Manifest
from supervisor.checkpoint.refusals import StorageError
from supervisor.checkpoint.retain import Deleted, InUse, delete
from supervisor.checkpoint.verify import Foreign, Intact, Torn, Unreadable, verify


def tear(directory: Path) -> None:
    (directory / "state.json").write_bytes(b"x" * (directory / "state.json").stat().st_size)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Steps 10 to 40 of one lineage, then 25 of the next; a stock checkpoint and rubbish beside them."""
    for step in (10, 20, 30, 40):
        commit_step(tmp_path, step)
    commit_step(tmp_path, 25, lineage=1)
    stock = tmp_path / "checkpoint-500"
    stock.mkdir()
    (stock / "optimizer.pt").write_bytes(b"x")
    for name in (".partial-checkpoint-50-x", "checkpoint-", "checkpoint-007", "notes"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_a_survey_lists_the_intact_newest_first_and_then_the_others(run: Path) -> None:
    tear(run / "checkpoint-30")
    found = survey(run, RUN)
    assert [each.step for each in found] == [25, 40, 20, 10, 500, 30]
    assert [type(each.verdict) for each in found] == [Intact] * 4 + [Foreign, Torn]


def test_a_higher_lineage_is_newer_than_a_higher_step(run: Path) -> None:
    newest = newest_intact(run, RUN)
    assert newest.intact is not None
    assert newest.intact.path == run / "checkpoint-25"
    assert [each.step for each in newest.rejected] == [500]


def test_torn_ones_are_passed_over_with_their_reasons(run: Path) -> None:
    tear(run / "checkpoint-25")
    (run / "checkpoint-40" / "manifest.json").unlink()
    newest = newest_intact(run, RUN)
    assert newest.intact is not None
    assert newest.intact.step == 30
    assert [(each.step, each.verdict) for each in newest.rejected] == [
        (500, Foreign("a checkpoint of the stock Trainer")),
        (40, Torn("no manifest")),
        (25, Torn("state.json: content changed")),
    ]


def test_older_ones_are_not_read(run: Path) -> None:
    tear(run / "checkpoint-10")
    assert 10 not in [each.step for each in newest_intact(run, RUN).rejected]


def test_if_none_verifies_all_are_named(run: Path) -> None:
    for step in (10, 20, 25, 30, 40):
        tear(run / f"checkpoint-{step}")
    newest = newest_intact(run, RUN)
    assert newest.intact is None
    assert [each.step for each in newest.rejected] == [500, 40, 30, 25, 20, 10]


def test_another_runs_checkpoints_do_not_count(run: Path) -> None:
    newest = newest_intact(run, "run-b")
    assert newest.intact is None
    assert {type(each.verdict) for each in newest.rejected} == {Foreign}


def test_a_copied_checkpoint_under_a_higher_number_does_not_win(run: Path) -> None:
    shutil.copytree(run / "checkpoint-25", run / "checkpoint-900")
    newest = newest_intact(run, RUN)
    assert newest.intact is not None
    assert newest.intact.step == 25
    assert newest.rejected[0].verdict == Torn("named checkpoint-900, but committed as step 25")


def test_no_directory_means_no_checkpoint(tmp_path: Path) -> None:
    assert survey(tmp_path / "checkpoints", RUN) == []
    assert newest_intact(tmp_path / "checkpoints", RUN).intact is None


def test_a_directory_that_cannot_be_listed_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_bytes(b"")
    with pytest.raises(StorageError, match=r"listing .*checkpoints: not a directory"):
        survey(tmp_path / "checkpoints", RUN)


def test_a_name_that_the_journal_knows_is_looked_up_though_no_listing_shows_it(run: Path, tmp_path: Path) -> None:
    """The journal's path may be that of another machine; the name counts."""
    elsewhere = [Path("/mnt/elsewhere/checkpoints/checkpoint-40"), Path("/mnt/elsewhere/checkpoints/checkpoint-41")]
    assert inventory._candidates(tmp_path / "none", elsewhere) == []
    steps = [step for _, step in inventory._candidates(run, elsewhere)]
    assert steps.count(40) == 1
    assert 41 not in steps


def test_a_newer_format_is_rejected_as_unknown(run: Path) -> None:
    from supervisor.checkpoint.manifest import seal

    (run / "checkpoint-40" / "manifest.json").write_bytes(seal({"format": 9}))
    rejected = {each.step: each.verdict for each in newest_intact(run, RUN).rejected}
    assert isinstance(rejected[40], Unreadable)


def test_looking_changes_nothing(run: Path) -> None:
    tear(run / "checkpoint-30")
    before = tree(run)
    survey(run, RUN)
    newest_intact(run, RUN)
    assert tree(run) == before


def test_what_is_not_wanted_is_passed_over_unread(run: Path) -> None:
    commit_step(run, 60, lineage=1, health=Health(loss=9.5, diverged=True))
    for name in ("checkpoint-60", "checkpoint-25"):
        tear(run / name)  # nobody looks

    def wanted(manifest: Manifest) -> bool:
        return not manifest.health.diverged and manifest.lineage == 0

    newest = newest_intact(run, RUN, wanted=wanted)
    assert newest.intact is not None
    assert newest.intact.step == 40
    assert [each.step for each in newest.unwanted] == [60, 25]
    assert [each.step for each in newest.rejected] == [500]
    assert sorted(each.step for each in promising(run, RUN, [], wanted)) == [10, 20, 30, 40]


def test_how_training_was_is_under_the_seal(run: Path) -> None:
    made = commit_step(run, 60, health=Health(9.5, None, diverged=True))
    found = verify(made.path, RUN)
    assert isinstance(found, Intact)
    assert found.manifest.health == Health(9.5, None, diverged=True)
    text = (made.path / "manifest.json").read_text()
    (made.path / "manifest.json").write_text(text.replace('"diverged": true', '"diverged": false'))
    assert verify(made.path, RUN) == Torn("manifest.json: content changed")


def test_what_is_being_looked_at_is_not_deleted_and_what_has_just_been_is_not_torn(tmp_path: Path) -> None:
    read, next_one = commit_step(tmp_path, 10).path, commit_step(tmp_path, 20).path
    left, outcomes = [next_one, read], list[object]()

    def delete_meanwhile(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and arguments[0] == "optimizer.safetensors":
            while left:
                outcomes.append(delete(left.pop()))

    sys.addaudithook(delete_meanwhile)  # it stays for good, and has nothing left to do
    (found,) = survey(tmp_path, RUN)
    assert outcomes == [InUse(read), Deleted(next_one)]
    assert isinstance(found.verdict, Intact)
