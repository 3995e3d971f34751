"""Periods: what is read, what is written, what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.job.values import Auto, Off, parse_duration, parse_every, parse_snapshot
from supervisor.policy.schedule import Seconds, Steps


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("auto", Auto()),
        ("10 min", Seconds(600.0)),
        ("500 steps", Steps(500)),
        ("1 step", Steps(1)),
        ("90 s", Seconds(90.0)),
        ("90s", Seconds(90.0)),
        ("1.5h", Seconds(5400.0)),
        (".5 sec", Seconds(0.5)),
        ("2 d", Seconds(172800.0)),
        (" 2 Hours ", Seconds(7200.0)),
    ],
)
def test_periods_are_read(text: str, value: object) -> None:
    assert parse_every(text) == value
    assert parse_every(str(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        5,
        5.0,
        True,
        None,
        "",
        "5",
        "five s",
        "-5 s",
        "1.5 steps",
        "0 steps",
        "0 s",
        "5 m",
        "1e5 s",
        "9" * 400 + " s",
        [],
        {},
    ],
)
def test_what_is_no_period_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        parse_every(value)


def test_a_grace_may_be_zero_and_is_never_counted_in_steps() -> None:
    assert parse_duration("0 s") == Seconds(0.0)
    with pytest.raises(ValueError, match="a duration is"):
        parse_duration("5 steps")


def test_snapshots_are_off_however_yaml_read_it() -> None:
    assert parse_snapshot(False) == parse_snapshot("off") == Off()
    with pytest.raises(ValueError, match="counted in steps"):
        parse_snapshot(True)


@given(st.floats(min_value=0.001, max_value=1e9))
def test_durations_survive_being_written(seconds: float) -> None:
    value = Seconds(float(f"{seconds:.3f}"))
    assert parse_duration(str(value)) == value
