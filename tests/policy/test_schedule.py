"""When a checkpoint is due, and how often a snapshot may be taken; time is a number in the argument list."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.policy.schedule import FREE_S, SHARE, Seconds, Steps, commit_due, snapshot_period

steps = st.integers(-1, 10_000)
durations = st.floats(1e-6, 1e4)


@given(settled=steps, committed=steps, since_s=st.floats(0, 1e9), n=st.integers(1, 500), s=st.floats(0, 1e6))
def test_nothing_is_due_before_there_is_something_new(
    settled: int, committed: int, since_s: float, n: int, s: float
) -> None:
    if settled <= committed:
        assert not commit_due(Steps(n), settled=settled, committed=committed, since_s=since_s)
        assert not commit_due(Seconds(s), settled=settled, committed=committed, since_s=since_s)


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_a_run_that_takes_each_due_step_has_exactly_the_multiples(n: int) -> None:
    committed, taken = 0, []
    for settled in range(41):
        if commit_due(Steps(n), settled=settled, committed=committed, since_s=0.0):
            committed = settled
            taken.append(settled)
    assert taken == list(range(n, 41, n))


def test_a_multiple_that_was_missed_is_still_due_afterwards() -> None:
    assert commit_due(Steps(10), settled=13, committed=9, since_s=0.0)
    assert not commit_due(Steps(10), settled=19, committed=13, since_s=0.0)


@pytest.mark.parametrize(("since_s", "due"), [(0.0, False), (59.9, False), (60.0, True), (1e9, True)])
def test_by_the_clock_a_checkpoint_is_due_when_the_time_is_over(since_s: float, due: bool) -> None:
    assert commit_due(Seconds(60.0), settled=2, committed=1, since_s=since_s) is due


@given(durations, durations)
def test_snapshots_cost_next_to_nothing_and_no_less_often_than_they_must(snapshot_s: float, step_s: float) -> None:
    period = snapshot_period(snapshot_s, step_s)
    assert period & (period - 1) == 0
    cheap = snapshot_s < FREE_S
    assert cheap or snapshot_s <= SHARE * step_s * period * 1.000001
    if period > 1:
        assert not cheap
        assert snapshot_s >= SHARE * step_s * (period / 2) * 0.999999


@given(st.lists(st.tuples(durations, durations), min_size=2, max_size=2), st.integers(1, 1 << 20))
def test_steps_under_a_longer_period_are_among_those_under_a_shorter(
    pairs: list[tuple[float, float]], step: int
) -> None:
    shorter, longer = sorted(snapshot_period(*pair) for pair in pairs)
    if step % longer == 0:
        assert step % shorter == 0


@pytest.mark.parametrize(("snapshot_s", "step_s"), [(math.nan, 1.0), (1.0, math.nan), (1.0, 0.0), (1.0, -1.0)])
def test_while_nothing_is_known_every_step_is_taken(snapshot_s: float, step_s: float) -> None:
    assert snapshot_period(snapshot_s, step_s) == 1


@pytest.mark.parametrize(
    ("period", "text"),
    [
        (Seconds(300.0), "5 min"),
        (Seconds(7200.0), "2 h"),
        (Seconds(90.0), "90 s"),
        (Seconds(0.5), "0.5 s"),
        (Steps(1), "1 step"),
        (Steps(20), "20 steps"),
    ],
)
def test_periods_are_written_as_people_write_them(period: Seconds | Steps, text: str) -> None:
    assert str(period) == text
