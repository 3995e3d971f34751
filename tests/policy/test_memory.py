"""Days of memory in no time: samples are numbers in the argument list."""

from __future__ import annotations

import math
import random

import pytest

from supervisor.policy.memory import Level, Sample, is_over, shortage

LIMIT = 1000


def samples(*used: float, every_s: float = 5.0, of: str = "the machine") -> list[Sample]:
    return [Sample(of, at * every_s, int(bytes_), LIMIT) for at, bytes_ in enumerate(used)]


def level(given: list[Sample]) -> Level:
    found = shortage(given)
    assert found is not None
    return found.level


def growing(start: float, per_s: float, count: int = 37) -> list[float]:
    return [start + per_s * 5.0 * at for at in range(count)]


def test_without_samples_nothing_is_said() -> None:
    assert shortage([]) is None


@pytest.mark.parametrize(
    ("used", "expected"), [(0, Level.FAR), (920, Level.FAR), (921, Level.FULL), (1200, Level.FULL)]
)
def test_what_is_nearly_full_is_said_at_once(used: int, expected: Level) -> None:
    assert level(samples(used)) is expected


def test_a_limit_of_nothing_is_full() -> None:
    assert level([Sample("a group", 0.0, 0, 0)]) is Level.FULL


def test_steady_growth_is_said_with_the_time_that_is_left() -> None:
    found = shortage(samples(*growing(620, 1.0)))  # 800 now, 200 left, one a second
    assert found is not None
    assert found.level is Level.RISING
    assert found.full_in_s == pytest.approx(200.0)


@pytest.mark.parametrize(
    "used",
    [
        growing(500, 1.0),  # 680 now: too far
        growing(700, 0.5),  # 790 now, seven minutes left
        growing(780, 5.0, count=6),  # half a minute is no trend
        [800.0] * 37,
        growing(980, -1.0)[12:],
        [*growing(500, 3.0, count=25)[:22], *[815.0] * 15],  # it grew, and has stopped
    ],
    ids=["far", "slow", "young", "flat", "falling", "stopped"],
)
def test_what_does_not_come_to_its_end_soon_is_not_said(used: list[float]) -> None:
    assert level(samples(*used)) is Level.FAR


def test_a_fifth_of_the_samples_may_be_anything() -> None:
    used = growing(620, 1.0)
    chance = random.Random(7)
    for at in chance.sample(range(len(used) - 1), len(used) // 5):
        used[at] = chance.uniform(0, LIMIT)
    found = shortage(samples(*used))
    assert found is not None
    assert found.level is Level.RISING
    assert found.full_in_s == pytest.approx(200.0, rel=0.25)


def test_a_saw_is_no_trend() -> None:
    saw = [800 + 60 * (at % 4) / 4 for at in range(37)]
    assert level(samples(*saw)) is Level.FAR


def test_samples_of_different_limits_make_no_trend() -> None:
    machine, group = samples(*growing(620, 1.0)[:30]), samples(*growing(620, 1.0), of="a group")[30:]
    assert level([*machine, *group]) is Level.FAR


def test_what_is_long_past_is_forgotten() -> None:
    old = [Sample("the machine", -10_000.0, 0, LIMIT)]
    found = shortage([*old, *samples(*growing(620, 1.0))])
    assert found is not None
    assert found.full_in_s is not None
    assert math.isclose(found.full_in_s, 200.0, rel_tol=0.01)


@pytest.mark.parametrize(("used", "over"), [(699, True), (700, False), (930, False)])
def test_it_is_over_when_little_is_used_again(used: int, over: bool) -> None:
    assert is_over(samples(used)[0]) is over
