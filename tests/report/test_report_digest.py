"""Everything is told, ends at once, and nobody is flooded: days of news take no time at all."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.policy.causes import Cause
from supervisor.report.digest import (
    ENDS,
    GAP_S,
    MOST_GAP_S,
    Kind,
    News,
    Pace,
    after_failing,
    after_telling,
    due,
    gathered,
)

HOUR_S = 3600.0


def crash(time: float, cause: str = "crashed") -> News:
    return News(time, Kind.INCIDENT, f"{cause} at {time}", cause)


def live(
    news: Sequence[News], until_s: float, answers: Callable[[float], bool] = lambda _: True, every_s: int = 1
) -> list[tuple[float, list[News]]]:
    """Look now and then, and list what was told when."""
    pace, told, heard, left = Pace(), [], [], list(news)
    for now in range(0, int(until_s) + 1, every_s):
        while left and left[0].time <= now:
            heard.append(left.pop(0))
        if not due(heard, pace, now):
            continue
        if answers(now):
            pace = after_telling(heard, pace, now)
            told.append((float(now), heard))
            heard = []
        else:
            pace = after_failing(pace, now)
    return told


def test_the_first_of_each_kind_and_each_cause_is_told_at_once() -> None:
    news = [News(0, Kind.STARTED, "started"), crash(10), crash(11), crash(12, "gpu_oom")]
    assert [(time, len(found)) for time, found in live(news, 100)] == [(0.0, 1), (10.0, 1), (12.0, 2)]


def test_a_storm_grows_quiet_and_loses_nothing() -> None:
    storm = [crash(float(second)) for second in range(0, int(24 * HOUR_S), 10)]
    told = live(storm, 24 * HOUR_S + MOST_GAP_S, every_s=10)
    assert [one for _, found in told for one in found] == storm
    times = [time for time, _ in told]
    assert [after - before for before, after in pairwise(times[:6])] == [60, 120, 240, 480, 900]
    assert len(told) < 24 * 4 + 6


def test_a_steady_trickle_is_no_way_around_it() -> None:
    trickle = [crash(61.0 * n) for n in range(60)]
    assert len(live(trickle, HOUR_S)) < 9


def test_after_a_quiet_quarter_of_an_hour_it_begins_anew() -> None:
    told = live([*(crash(float(n)) for n in range(600)), crash(3 * HOUR_S), crash(3 * HOUR_S + 1)], 4 * HOUR_S)
    assert [time for time, _ in told][-2:] == [3 * HOUR_S, 3 * HOUR_S + GAP_S]


@pytest.mark.parametrize("kind", sorted(ENDS, key=str))
def test_an_end_waits_for_nothing(kind: Kind) -> None:
    storm = [crash(float(second)) for second in range(1000)]
    end = News(999.5, kind, "it is over")
    time, found = live([*storm, end], 2000)[-1]
    assert (time, found[-1]) == (1000.0, end)


def test_one_who_cannot_be_reached_is_tried_less_and_less_and_then_told_everything() -> None:
    tries: list[float] = []

    def answers(now: float) -> bool:
        tries.append(now)
        return now > 2 * HOUR_S

    news = [crash(0), crash(5), News(50, Kind.FINISHED, "finished")]
    told = live(news, 3 * HOUR_S, answers)
    assert tries[:6] == [0, 30, 90, 210, 450, 930]
    assert len(tries) < 16
    assert [found for _, found in told] == [news]


def test_a_clock_that_is_put_back_silences_nobody() -> None:
    pace = after_failing(after_telling([crash(1e9)], Pace(), 1e9), 1e9)
    assert due([crash(1000.0)], pace, 1000.0)


@given(
    st.lists(
        st.tuples(st.floats(0, 20_000), st.sampled_from(Kind), st.sampled_from([c.value for c in Cause])), min_size=1
    )
)
def test_whatever_comes_everything_is_told_once_and_in_order(events: list[tuple[float, Kind, str]]) -> None:
    news = [News(time, kind, "", cause) for time, kind, cause in sorted(events, key=lambda e: e[0])]
    told = live(news, 20_000 + MOST_GAP_S + 20, every_s=20)
    assert [one for _, found in told for one in found] == news
    assert all(time - found[0].time <= MOST_GAP_S + 20 for time, found in told)


def test_several_are_counted_by_what_they_were() -> None:
    news = [
        *(crash(30.0 * n) for n in range(5)),
        crash(170, "gpu_oom"),
        crash(180, "gpu_oom"),
        crash(180, "new\ncause"),
    ]
    assert gathered(news) == "8 incidents in 3 min: 5 × a worker crashed, 2 × out of GPU memory, 1 × new cause"
    assert gathered([crash(0)]) == "1 incident: 1 × a worker crashed"
