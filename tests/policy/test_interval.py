"""Which failures count, what they say, and that no journal makes an interval that cannot work."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.policy.interval import (
    ANNOUNCED_S,
    LONGEST_S,
    OFTEN_S,
    SELDOM_S,
    SHORTEST_S,
    Exposure,
    daly_s,
    expected_s,
    exposure,
    interval,
    young_s,
)
from supervisor.policy.ledger import fold

Line = dict[str, Any]
HOUR_S = 3600.0


def trains(time: float, source: str, step: int) -> list[Line]:
    return [
        {"event": "attempt_started", "source": source, "time": time - 10},
        {"event": "training_started", "source": source, "step": step, "time": time},
    ]


def commits(time: float, step: int, reason: str = "periodic", **more: Any) -> list[Line]:
    return [{"event": "checkpoint_committed", "step": step, "reason": reason, "write_s": 2.0, "time": time, **more}]


def ends(time: float, step: int | None, cause: str = "crashed") -> list[Line]:
    return [{"event": "attempt_ended", "step": step, "cause": cause, "time": time}]


def starts(time: float, **more: Any) -> list[Line]:
    return [
        {"event": "run_started", "run_id": "a", "time": time, **more},
        {"event": "allocation_started", "time": time},
    ]


FIRST = [*starts(0.0), *trains(20.0, "fresh", 0), *commits(320.0, 30)]


@pytest.mark.parametrize(
    ("history", "losses"),
    [
        # Memory carried the state.
        ([*ends(400, 38), *trains(420, "snapshot", 38), *ends(500, 45), *trains(520, "snapshot", 45)], 0),
        # The machine went down: the journal breaks off, and the next supervisor begins with what is on disk.
        ([*starts(9000), *ends(9000, 38), *trains(9020, "checkpoint", 30)], 1),
        ([*starts(9000), *ends(9000, 38), *trains(9020, "mirror", 30)], 1),
        # The same right after a commit, when nobody knows whether a step was lost.
        ([*starts(9000), *ends(9000, None), *trains(9020, "checkpoint", 30)], 1),
        # It was killed, but its board is there.
        ([*starts(9000), *ends(9000, 38), *trains(9020, "snapshot", 38)], 0),
        # Preempted, and the final commit fitted into the grace.
        ([*commits(400, 38, "emergency"), *ends(400, 38, "preempted"), *starts(900), *trains(920, "mirror", 38)], 0),
        # It did not.
        ([*ends(400, 38, "preempted"), *starts(900), *trains(920, "checkpoint", 30)], 1),
        # A notice was taken back after the safety copy; later the machine went down.
        ([*commits(400, 38, "emergency"), *commits(700, 68), *starts(900), *trains(920, "checkpoint", 68)], 1),
        # A node was lost, another one's memory was brought to disk when nobody trained any more.
        ([*ends(400, 38, "node_lost"), *commits(401, 38, "emergency"), *trains(420, "checkpoint", 38)], 0),
        # Crashes without a step in between lose nothing that an interval could have saved.
        ([*starts(900), *trains(920, "checkpoint", 30), *ends(930, 30), *trains(940, "checkpoint", 30),
          *ends(950, None), *trains(960, "checkpoint", 30)], 1),
        # Diverged: the run went back to the disk, behind what memory had.
        ([*ends(400, 38, "diverged"), *trains(420, "checkpoint", 30)], 1),
        # Training had ended, and its end was on disk.
        ([*commits(400, 40, "final"), *ends(401, 40, "crashed"), *trains(420, "checkpoint", 40)], 0),
        # What was measured best so far is a checkpoint like the periodic ones.
        ([*commits(400, 38, "best", trained=False), *ends(410, 39), *trains(420, "checkpoint", 38)], 1),
        # Somebody wanted to begin anew.
        ([*ends(400, 38), *starts(900, fresh=True), *trains(920, "fresh", 0)], 0),
    ],
)  # fmt: skip
def test_a_failure_counts_if_the_disk_was_needed(history: list[Line], losses: int) -> None:
    assert exposure([*FIRST, *history]).losses == losses
    assert fold([*FIRST, *history]).exposure.losses == losses


def test_a_run_that_dies_before_its_first_commit_has_lost_memory_too() -> None:
    history = [*starts(0), *trains(20, "fresh", 0), *starts(900), *ends(900, 25), *trains(920, "fresh", 0)]
    assert exposure(history).losses == 1


def test_only_training_counts_as_exposed_and_not_what_nobody_saw() -> None:
    seen = exposure([*FIRST, *starts(90_000.0), *trains(90_020.0, "checkpoint", 30), *ends(90_120.0, 35)])
    assert seen.trained_s == 300.0 + 100.0
    backwards = exposure([*FIRST, *commits(-1e9, 40), *commits(1e12, 50)])
    assert backwards.trained_s == 300.0 + 24 * HOUR_S, "a clock that jumps tells nothing"


def test_without_failures_the_interval_grows_with_every_hour_and_with_each_failure_it_shrinks() -> None:
    def every_s(losses: int, hours: float) -> float:
        found = interval(Exposure(losses, hours * HOUR_S, (2.0,)), 30.0)
        assert found is not None
        return found.every_s

    assert every_s(0, 0) < every_s(0, 100) < every_s(0, 400)
    assert every_s(0, 100) > every_s(1, 100) > every_s(9, 100)


def between_s(seen: Exposure, **more: int) -> float:
    found = interval(seen, 30.0, **more)
    assert found is not None
    return found.between_s


def test_before_anything_is_seen_each_order_of_magnitude_is_as_likely_as_any_other() -> None:
    mean_rate = (1 / OFTEN_S - 1 / SELDOM_S) / math.log(SELDOM_S / OFTEN_S)
    assert between_s(Exposure(write_s=(1.0,))) == pytest.approx(1 / mean_rate, rel=0.02)


@given(st.integers(1, 5_000), st.floats(2 * OFTEN_S, SELDOM_S / 10))
def test_after_a_few_failures_what_was_seen_counts_and_not_what_was_thought(losses: int, seconds: float) -> None:
    assert expected_s(losses, losses * seconds) == pytest.approx(seconds, rel=0.5 / losses if losses < 10 else 0.05)


def test_where_a_commit_does_not_fit_into_the_grace_announced_ends_count_too_and_so_do_more_machines() -> None:
    quiet = {"trained_s": 1000 * HOUR_S}
    fits, too_slow = Exposure(write_s=(1.0,), **quiet), Exposure(write_s=(20.0,), **quiet)
    assert between_s(too_slow) < ANNOUNCED_S < between_s(fits)
    assert between_s(fits, machines=100) < between_s(fits) / 2
    assert between_s(fits, machines=10**9) > OFTEN_S


def test_what_is_measured_counts_and_noise_below_nothing_does_not() -> None:
    costs = [interval(Exposure(write_s=(2.0,), slowed_s=slowed), 30.0) for slowed in ((), (-0.5,), (-9.0, 0.7, 0.8))]
    assert [one.cost_s for one in costs if one is not None] == [0.1, 0.1, 0.7]


@given(
    st.integers(0, 10_000),
    st.floats(0, 1e10),
    st.lists(st.floats(0, 1e5), min_size=1, max_size=15).map(tuple),
    st.lists(st.floats(-1e5, 1e5), max_size=15).map(tuple),
    st.floats(0, 1e4),
)
def test_never_more_often_than_a_commit_takes_and_never_seldom_without_a_reason(
    losses: int, trained_s: float, write_s: tuple[float, ...], slowed_s: tuple[float, ...], grace_s: float
) -> None:
    found = interval(Exposure(losses, trained_s, write_s, slowed_s), grace_s)
    assert found is not None
    usual_s = sorted(write_s)[len(write_s) // 2]
    assert found.every_s >= max(SHORTEST_S, usual_s)
    assert found.every_s <= max(LONGEST_S, usual_s, found.cost_s * 100)
    assert math.isfinite(found.every_s)


@given(st.lists(st.dictionaries(
    st.sampled_from(["event", "time", "step", "source", "reason", "write_s", "slowed_s", "every_s", "trained"]),
    st.sampled_from(["attempt_started", "training_started", "checkpoint_committed", "attempt_ended", "run_started",
                     "checkpoint", "periodic", None, True, -1, 7, 1e300, float("nan"), "7", [], {}]),
)))  # fmt: skip
def test_no_journal_breaks_the_fold(history: list[Line]) -> None:
    seen = exposure(history)
    assert 0 <= seen.losses <= len(history)
    assert 0.0 <= seen.trained_s < math.inf


@pytest.mark.parametrize("cost_s", [0.01, 1.0, 60.0, 3000.0])
@pytest.mark.parametrize("between_s", [1e3, 1e5, 1e7])
def test_the_higher_order_is_nearer_to_the_exact_minimum_than_the_first(cost_s: float, between_s: float) -> None:
    def run_time(every_s: float) -> float:
        """Daly's equation 20 without what does not depend on the interval."""
        return math.expm1((every_s + cost_s) / between_s) / every_s

    assert run_time(daly_s(cost_s, between_s)) <= run_time(young_s(cost_s, between_s)) * (1 + 1e-12)
    best = min(run_time(daly_s(cost_s, between_s) * 1.01**n) for n in range(-60, 61))
    assert run_time(daly_s(cost_s, between_s)) <= best * 1.01


def test_a_first_commit_tells_the_interval_and_later_ones_only_what_is_new() -> None:
    seen = exposure([*FIRST, *commits(700, 60, every_s=99.0)])
    assert seen.told_s == 99.0
    assert exposure([*FIRST, *commits(700, 60, every_s=99.0), *starts(900)]).told_s is None
