"""Newest is what verifies, over board and disk; and nothing starts anew unasked."""

from itertools import combinations, product

import pytest

from supervisor.policy.resume import Candidate, Fresh, FromCandidate, Refuse, choose

CANDIDATES = [
    Candidate(lineage, step, source, f"{source} {lineage} {step}")  # type: ignore[arg-type]
    for lineage, step, source in product((0, 1), (10, 20), ("checkpoint", "snapshot"))
]


@pytest.mark.parametrize("count", range(1, 5))
def test_the_highest_lineage_wins_then_the_step_then_the_board(count: int) -> None:
    for some in combinations(CANDIDATES, count):
        for order in (some, some[::-1]):
            chosen = choose(order, ever_committed=3, set_aside=["torn/x: y"], unusable=["z"])
            assert isinstance(chosen, FromCandidate)
            best = chosen.candidate
            for other in some:
                assert (best.lineage, best.step) >= (other.lineage, other.step)
                if (best.lineage, best.step) == (other.lineage, other.step):
                    assert best.source == "snapshot" or other.source == "checkpoint"


def test_a_rolled_back_run_is_newer_than_what_it_went_back_behind() -> None:
    before, after = Candidate(0, 900, "checkpoint", ""), Candidate(1, 100, "checkpoint", "")
    assert choose([before, after], ever_committed=9, set_aside=[], unusable=[]) == FromCandidate(after)


@pytest.mark.parametrize(
    ("ever", "aside", "unusable"), list(product((0, 1), ([], ["torn/a: short"]), ([], ["b: EIO"])))
)
def test_a_run_that_ever_had_a_checkpoint_never_starts_anew_unasked(
    ever: int, aside: list[str], unusable: list[str]
) -> None:
    chosen = choose([], ever_committed=ever, set_aside=aside, unusable=unusable)
    if ever or aside or unusable:
        assert isinstance(chosen, Refuse)
        assert all(name in chosen.reason for name in (*aside, *unusable))
    else:
        assert chosen == Fresh()


def test_a_listing_that_shows_nothing_is_not_believed() -> None:
    chosen = choose([], ever_committed=2, set_aside=[], unusable=[])
    assert isinstance(chosen, Refuse)
    assert "the journal names 2, none of them is there" in chosen.reason


def test_a_state_from_after_training_went_wrong_is_no_reason_to_start_anew() -> None:
    chosen = choose([], ever_committed=0, set_aside=[], unusable=[], diverged=["checkpoint-40: training had diverged"])
    assert isinstance(chosen, Refuse)
    assert "checkpoint-40: training had diverged" in chosen.reason
    assert not chosen.transient
