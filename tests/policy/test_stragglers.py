"""One rank among its peers, over time."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from supervisor.policy.stragglers import Straggler, Stragglers

#: Steps of a second, looked at every other one.
PACE_S, LOOK_S = 1.0, 2.0


def seen(histories: list[list[float]], pace_s: float = PACE_S) -> list[tuple[float, int]]:
    """When each straggler was told of, from what each look saw of every rank."""
    known, told = Stragglers(), []
    for look, own_s in enumerate(histories):
        now_s = look * LOOK_S
        known, found = known.after(own_s, [int(now_s / pace_s)] * len(own_s), now_s)
        told += [(now_s, one.rank) for one in found]
    return told


def test_a_rank_that_is_always_slower_is_told_of_once_and_again_only_after_it_has_recovered() -> None:
    slow, fast = [0.1, 0.1, 0.3, 0.1], [0.1, 0.1, 0.11, 0.1]
    assert seen([slow] * 100) == [(30.0, 2)]
    assert seen([slow] * 100 + [fast] * 5 + [slow] * 100) == [(30.0, 2), (240.0, 2)]


def test_a_rank_that_is_slow_now_and_then_is_none() -> None:
    assert seen([[0.1, 0.1 if look % 10 == 9 else 0.5] for look in range(200)]) == []


def test_few_steps_tell_nothing_however_long_they_take() -> None:
    assert seen([[10.0, 30.0]] * 30, pace_s=10.0) == []  # a minute, six steps
    assert seen([[10.0, 30.0]] * 200, pace_s=10.0) == [(200.0, 1)]


def test_what_nobody_notices_is_no_straggler() -> None:
    assert seen([[0.001, 0.05]] * 100) == []  # fifty times as long, and less than 50 ms
    assert seen([[1.0, 1.4]] * 100) == []


def test_a_rank_of_which_nothing_is_known_neither_is_one_nor_hides_one() -> None:
    unknown = math.nan
    assert seen([[0.1, 0.4, unknown]] * 100) == [(30.0, 1)]
    assert seen([[0.4, unknown]] * 100) == []


def test_it_is_said_how_slow_it_is() -> None:
    assert str(Straggler(3, 0.41, 0.1)) == "rank 3 takes 0.41 s of each step for itself, 4.1 times its peers' 0.1 s"
    assert str(Straggler(3, 0.41, 0.0)) == "rank 3 takes 0.41 s of each step for itself, its peers' 0 s"


@given(st.lists(st.lists(st.floats(0.0, 10.0), min_size=4, max_size=4), max_size=60))
def test_whoever_is_told_of_is_slower_than_most(histories: list[list[float]]) -> None:
    known = Stragglers()
    for look, own_s in enumerate(histories):
        known, found = known.after(own_s, [look * 5] * 4, look * LOOK_S)
        for one in found:
            assert one.own_s > one.peers_s
            assert sum(own_s[one.rank] > other for other in own_s) >= 1
