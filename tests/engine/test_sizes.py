"""What is said of the size of checkpoints: before the first step, and no second time."""

from __future__ import annotations

import select
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_commits import Commits

from supervisor.board.footprint import Footprint, Weights, leave_footprint

MB = 1_000_000
ADAPTER = Weights(160 * MB, (("lora_A", MB),))
BASE = Weights(14_000 * MB, (("embed_tokens", 500 * MB), ("lm_head", 400 * MB)))
HUGE = Weights(1 << 60, (("lora_A", 1 << 50),))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Commits]:
    made = Commits(tmp_path, tmp_path / "run", keep_last=3)
    yield made
    made.close()


def said(run: Commits, foot: Footprint) -> list[str]:
    """What the journal tells once training has begun with this."""
    leave_footprint(run.memory.board.directory, foot)
    run.checkpoints.training_began(0.0)
    ready, _, _ = select.select([run.checkpoints.committer.fd], [], [], 30.0)
    assert ready, "nobody has looked at it"
    run.checkpoints.look(0.0)
    told = run.told("incident")
    assert {record.fields["cause"] for record in told} <= {"storage"}
    return [record.fields["detail"] for record in told]


def test_of_an_adapter_that_has_room_nothing_is_said(run: Commits) -> None:
    assert said(run, Footprint(adapter=Weights(1000), frozen_bytes=BASE.bytes, optimizer_bytes=2000)) == []


def test_that_those_that_are_kept_have_no_room_is_said_at_once_and_not_again_with_the_first(run: Commits) -> None:
    (words,) = said(run, Footprint(adapter=HUGE, optimizer="AdamW", optimizer_bytes=0))
    assert words.startswith(f"3 checkpoints of {HUGE.bytes / MB:.0f} MB and the next one need ")
    assert "keeps" not in words
    run.take(1)
    run.commit()
    assert len(run.told("incident")) == 1


def test_where_nobody_knows_what_an_optimizer_keeps_that_is_said_as_well(run: Commits) -> None:
    (words,) = said(run, Footprint(adapter=HUGE, optimizer="Muon"))
    assert words.endswith("; what Muon keeps comes on top, and is not known yet")


@pytest.mark.parametrize(
    ("foot", "words"),
    [
        (
            Footprint(adapter=ADAPTER, untrained=BASE, optimizer_bytes=0),
            "14000 MB of weights that no optimizer",
        ),
        (Footprint(adapter=ADAPTER, trained=BASE, optimizer_bytes=0), "other weights of 14000 MB are trained"),
        (Footprint(trained=BASE, optimizer_bytes=0), "no adapter: the model itself is trained"),
    ],
)
def test_a_base_that_is_not_frozen_is_told_by_its_largest_weights(run: Commits, foot: Footprint, words: str) -> None:
    (told,) = [one for one in said(run, foot) if "checkpoints of" not in one]
    assert words in told
    assert told.endswith("embed_tokens (500 MB), lm_head (400 MB)")


def test_training_that_goes_on_after_a_restart_says_it_no_second_time(run: Commits) -> None:
    assert len(said(run, Footprint(adapter=HUGE, optimizer_bytes=0))) == 1
    run.checkpoints.committer.answers()  # the bell is still
    run.checkpoints.training_began(1.0)
    run.take(1)
    run.commit()
    assert len(run.told("incident")) == 1
