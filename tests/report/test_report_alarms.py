"""A dead man's switch is asked for exactly while the supervisor says that it lives, and once more at a good end."""

from pathlib import Path

import pytest

from supervisor.report.alarms import FRESH_S, GOOD_ENDS, Alarms
from supervisor.report.fold import ENDED
from supervisor.report.settings import Settings


def made(*every_s: float) -> Alarms:
    alarms = tuple((f"notify.{n}", f"http://{n}", every) for n, every in enumerate(every_s))
    return Alarms(Settings("demo", Path("/r"), "here", (), alarms, (), ()))


def pings(alarms: Alarms, now_s: float, end: str | None = None) -> list[str]:
    found = [one["url"] for one in alarms.ask(now_s, end)]
    for one in found:
        alarms.answer(int(one.removeprefix("http://")))
    return found


def test_it_is_asked_for_every_so_often_while_the_word_changes() -> None:
    alarms = made(60.0, 300.0)
    found = []
    for second in range(601):
        alarms.see(1000.0 + second, float(second))
        found += [(second, url) for url in pings(alarms, float(second))]
    assert [s for s, url in found if url == "http://0"] == [1, 61, 121, 181, 241, 301, 361, 421, 481, 541]
    assert [s for s, url in found if url == "http://1"] == [1, 301]


def test_the_word_of_a_dead_supervisor_is_none() -> None:
    alarms = made(60.0)
    for second in range(100):
        alarms.see(1000.0, float(second))
        alarms.see(None, float(second))
        assert pings(alarms, float(second)) == []


def test_it_stops_when_the_supervisor_hangs_and_comes_back_when_it_goes_on() -> None:
    alarms = made(10.0)
    alarms.see(1.0, 0.0)
    alarms.see(2.0, 1.0)
    assert pings(alarms, 1.0)
    assert pings(alarms, FRESH_S)
    assert pings(alarms, FRESH_S + 1.0) == []
    assert pings(alarms, 1e6) == []
    alarms.see(3.0, 1e6)
    assert pings(alarms, 1e6)


def test_one_that_does_not_answer_is_not_asked_twice_at_once() -> None:
    alarms = made(10.0)
    alarms.see(1.0, 0.0)
    alarms.see(2.0, 1.0)
    assert [one["id"] for one in alarms.ask(1.0, None)] == ["p0"]
    assert alarms.ask(20.0, None) == []
    alarms.answer(0)
    assert alarms.ask(20.0, None) != []


@pytest.mark.parametrize("end", sorted(ENDED))
def test_a_good_end_is_asked_for_once_and_a_bad_one_never(end: str) -> None:
    alarms = made(300.0)
    assert pings(alarms, 5.0, end) == (["http://0"] if end in GOOD_ENDS else [])
    assert pings(alarms, 5000.0, end) == []
