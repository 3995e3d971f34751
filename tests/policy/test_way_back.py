"""Back behind what went wrong, past the data that did it, and not for ever."""

from __future__ import annotations

import math
from itertools import product

import pytest

from supervisor.policy.causes import Cause, Verdict
from supervisor.policy.divergence import MOST, Divergence, way_back
from supervisor.policy.ledger import Ledger, fold
from supervisor.policy.restart import Facts, GiveUp, GoBack, Limits, decide

NAN = math.inf  # as it is told


def diverged(first: int, *, loss: float = NAN, grad_norm: float | None = NAN) -> Divergence:
    return Divergence(0, first, first if math.isinf(loss) or grad_norm == NAN else first + 2, loss, grad_norm)


def decided(ledger: Ledger, seen: Divergence, *states: int, roll_back: bool = True) -> object:
    verdict = Verdict(Cause.DIVERGED, seen.words())
    return decide(verdict, ledger, Limits(roll_back=roll_back), Facts(diverged=seen, states=states))


def went_back(*ways: GoBack) -> Ledger:
    """The ledger of a run that went these ways."""
    records: list[dict[str, object]] = [{"event": "run_started"}]
    for lineage, way in enumerate(ways, 1):
        records.append({"event": "attempt_ended", "cause": "diverged", "step": way.skip[1]})
        records.append(
            {"event": "adapted", "lineage": lineage, "before": way.before, "changes": {"skip": [list(way.skip)]}}
        )
    return fold(records)


def test_a_value_that_is_not_finite_costs_one_step() -> None:
    way = decided(Ledger(), diverged(41), 20, 40)
    assert way == GoBack(41, (41, 41), "go back behind step 41 and pass over the data of step 41")


def test_where_nobody_knows_the_gradients_the_step_before_is_suspect_too() -> None:
    assert decided(Ledger(), diverged(41, grad_norm=None), 20, 39, 40) == GoBack(
        40, (40, 41), "go back behind step 40 and pass over the data of steps 40 to 41"
    )


def test_a_rise_has_no_place_so_the_way_back_is_longer() -> None:
    way = decided(Ledger(), diverged(41, loss=9.0, grad_norm=3.0), 20, 40)
    assert isinstance(way, GoBack)
    assert (way.before, way.skip) == (31, (31, 43))


def test_what_comes_again_right_after_is_gone_back_behind_ten_times_as_far() -> None:
    states, ways = range(0, 500, 25), []
    for first in (410, 411, 412):
        way = decided(went_back(*ways), diverged(first), *states)
        assert isinstance(way, GoBack)
        ways.append(way)
    assert [way.before for way in ways] == [410, 401, 312]
    assert [way.skip for way in ways] == [(410, 410), (401, 411), (312, 412)]
    given_up = decided(went_back(*ways), diverged(413), *states)
    assert given_up == GiveUp(
        "diverged: rank 0: the loss is not finite at step 413; the run has gone back 3 times within 1000 steps "
        "(behind 410, 401, 312), and it came again"
    )


def test_what_comes_far_from_there_is_another_matter() -> None:
    ways = [GoBack(step, (step, step), "") for step in (100, 1200, 2300, 3400)]
    way = decided(went_back(*ways), diverged(4500), 4400)
    assert isinstance(way, GoBack)
    assert way.before == 4500


def test_a_person_who_has_looked_gives_a_new_budget_and_the_old_lineages_stay_abandoned() -> None:
    ways = [GoBack(step, (step, step), "") for step in (10, 11, 12)]
    records = [{"event": "run_gave_up", "reason": "diverged"}, {"event": "run_started", "forgive": True}]
    ledger = fold(records, went_back(*ways))
    assert isinstance(decided(went_back(*ways), diverged(13), 9), GiveUp)
    assert isinstance(decided(ledger, diverged(13), 9), GoBack)
    assert not ledger.counts(0, 10)


def test_stop_means_stop() -> None:
    decision = decided(Ledger(), diverged(41), 20, 40, roll_back=False)
    assert decision == GiveUp("diverged: rank 0: the loss is not finite at step 41; the job says `on_nan: stop`")


@pytest.mark.parametrize(
    ("first", "grad_norm", "behind", "states"),
    list(product((1, 2, 50, 2000), (NAN, None, 1.0), ([], [1], [50], [49, 50]), ([], [1], [40, 45, 1990], [3, 4]))),
)
def test_a_way_back_passes_over_what_went_wrong_and_keeps_a_good_state_where_there_is_one(
    first: int, grad_norm: float | None, behind: list[int], states: list[int]
) -> None:
    seen = diverged(first, loss=2.0 if grad_norm == 1.0 else NAN, grad_norm=grad_norm)
    way = way_back(seen, behind, states)
    assert way is not None
    before, (begins, ends) = way
    assert 1 <= before <= seen.first
    assert begins == before
    assert ends >= seen.last
    if good := [step for step in states if step < seen.suspect]:
        assert min(good) < before


def test_every_path_ends() -> None:
    """Whatever diverges next to where it did before, there is a number of times after which nobody tries again."""
    for last, after in product((1, 30, 700), (0, 1, 40)):
        ways: list[GoBack] = []
        while isinstance(way := decided(went_back(*ways), diverged(last + after * len(ways)), last), GoBack):
            ways.append(way)
            assert len(ways) <= MOST
        assert isinstance(way, GiveUp)
        assert len(ways) == MOST
