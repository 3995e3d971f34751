"""Nobody is told twice, nothing is lost: over failures, restarts and stays."""

from pathlib import Path
from typing import Any

import pytest
import run_histories as h

from supervisor.report.digest import MOST_GAP_S, Pace
from supervisor.report.notified import NOTIFIED, Told, encode, key, parse, put, read
from supervisor.report.settings import Settings
from supervisor.report.teller import LAST_RETRY_S, Teller

URLS = (("notify.0 (json://…)", "json://a"), ("notify.1 (json://…)", "json://b"))
SETTINGS = Settings("demo", Path("/r"), "node17", URLS, (), (), ())
LINES = [*h.started(0.0), *h.trains(1.0, 1, 0, "fresh"), *h.crashes(50.0, 1, 40), *h.trains(51.0, 2, 40, "snapshot")]


def titles(asked: list[dict[str, Any]]) -> list[str]:
    return [f"{one['id']} {one['title']}" for one in asked]


def ask(teller: Teller, now: float, *, ending: bool = False) -> list[str]:
    return titles(teller.ask(now, lambda: 7, ending=ending))


def test_each_address_has_its_own_pace() -> None:
    teller = Teller(SETTINGS, h.records(h.started(0.0)), {})
    assert ask(teller, 1.0) == ["u0 demo: started", "u1 demo: started"]
    assert ask(teller, 2.0) == []  # both are under way
    teller.answer(0, 2.0, told=True)
    teller.answer(1, 2.0, told=False)
    teller.take(h.records(h.crashes(50.0, 1, 40)))
    assert ask(teller, 50.0) == ["u0 demo: a worker crashed", "u1 demo: a worker crashed"]
    teller.answer(0, 51.0, told=True)
    teller.answer(1, 51.0, told=True)
    assert not teller.waits


def test_what_comes_while_a_message_is_under_way_is_told_next() -> None:
    teller = Teller(SETTINGS, h.records(h.started(0.0)), {})
    ask(teller, 1.0)
    teller.take(h.records(h.crashes(2.0, 1, 40)))
    teller.answer(0, 3.0, told=True)
    assert ask(teller, 3.0) == ["u0 demo: a worker crashed"]


def sentences(teller: Teller) -> list[str]:
    return [one.sentence for one in teller.pending(teller.addresses[0])]


@pytest.mark.parametrize("known", range(len(LINES) + 1))
def test_a_process_that_was_killed_anywhere_goes_on_from_there(known: int) -> None:
    records, nothing = h.records(LINES), {key("json://a"): Told(0, Pace())}
    everything = sentences(Teller(SETTINGS, records, nothing))
    assert len(everything) == 2
    before = Teller(SETTINGS, records[:known], nothing)
    told = sentences(before)
    if "u0" in [one["id"] for one in before.ask(60.0, lambda: None)]:
        before.answer(0, 60.0, told=True)
    after = Teller(SETTINGS, records, parse(encode(before.told()).encode()))
    assert told + sentences(after) == everything


def test_a_new_address_is_told_of_this_stay_and_not_of_those_before() -> None:
    lines = [*h.started(0.0), *h.crashes(50.0, 1, 40), *h.started(100.0)]
    assert sentences(Teller(SETTINGS, h.records(lines), {})) == ["goes on"]


def test_what_an_earlier_stay_could_not_tell_is_told_by_the_next() -> None:
    lines = [*h.started(0.0), *h.crashes(50.0, 1, 40), *h.started(100.0)]
    teller = Teller(SETTINGS, h.records(lines), {key("json://a"): Told(2, Pace(told=1.0, heard=0.0))})
    assert [one["title"] for one in teller.ask(101.0, lambda: None)] == ["demo: a worker crashed", "demo: goes on"]


def test_a_journal_that_is_shorter_than_what_was_told_is_another_one_whose_past_is_old() -> None:
    teller = Teller(SETTINGS, h.records(LINES), {key("json://a"): Told(9999, Pace())})
    assert sentences(teller) == []
    teller.take(h.records(h.finishes(60.0, 2)))
    assert sentences(teller) == ["finished at step 100"]


def test_the_last_word_is_told_once_and_counts_for_no_record_of_the_next_stay() -> None:
    teller = Teller(SETTINGS, h.records(LINES), {})
    teller.end(100.0)
    for number in range(2):
        assert teller.waits
        teller.ask(100.0, lambda: None, ending=True)
        teller.answer(number, 101.0, told=True)
    assert not teller.waits
    assert {one.records for one in teller.told().values()} == {len(LINES)}


def test_before_the_end_whoever_failed_is_tried_again_soon_but_not_at_once() -> None:
    teller = Teller(SETTINGS, h.records([*h.started(0.0), *h.finishes(60.0, 1)]), {})
    ask(teller, 60.0)
    teller.answer(0, 61.0, told=False)
    teller.answer(1, 61.0, told=True)
    assert ask(teller, 61.5) == []
    assert ask(teller, 61.5, ending=True) == []
    assert ask(teller, 61.0 + LAST_RETRY_S, ending=True) == ["u0 demo: finished at step 100"]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff", b"[]", b"{}", b'{"addresses": []}', b'{"addresses": {"a": 7}}',
        b'{"addresses": {"a": {"records": -1}}}', b'{"addresses": {"a": {"records": true}}}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_file_is_no_file(data: bytes) -> None:
    assert parse(data) == {}


def test_strange_figures_in_the_file_are_not_believed() -> None:
    [told] = parse(b'{"addresses": {"a": {"records": 3, "told": 1e999, "gap_s": 1e9, "sorts": [1, "x"]}}}').values()
    assert told == Told(3, Pace(gap_s=MOST_GAP_S, sorts=frozenset({"x"})))


def test_the_file_is_read_back_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    told = {key("json://a"): Told(7, Pace(told=5.0, heard=4.0, gap_s=120.0, sorts=frozenset({"started"})))}
    put(tmp_path / NOTIFIED, encode(told), 0o600)
    assert read(tmp_path) == told
    assert (tmp_path / NOTIFIED).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [NOTIFIED]
    assert read(tmp_path / "nowhere") == {}
