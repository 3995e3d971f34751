"""What people read: one sentence, where it is, and what to type next."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import run_histories as h

from supervisor.journal import Record
from supervisor.report.digest import Kind, News
from supervisor.report.fold import RunHistory, fold
from supervisor.report.messages import Place, interruption, message, news_of

PLACE = Place("demo", "node17", Path("/data/my runs/demo"), 120, 500)


def heard(lines: list[h.Line]) -> list[News]:
    history, found = RunHistory(), []
    for record in h.records(lines):
        found += [news] if (news := news_of(record, history)) is not None else []
        fold([record], history)
    return found


@pytest.mark.parametrize("name", sorted(h.ALL))
def test_every_history_becomes_messages_of_a_few_short_lines(name: str) -> None:
    news = heard(h.ALL[name])
    for count in range(1, len(news) + 1):
        made = message(news[:count], PLACE)
        assert made.title.startswith("demo: ")
        assert "\n" not in made.title
        assert len(made.title) < 120
        lines = made.body.splitlines()
        assert 3 <= len(lines) <= 6
        assert lines[-2] == "step 120/500 on node17, in /data/my runs/demo"
        assert shlex.split(lines[-1].removeprefix("next: "))[0] == "supervisor"
        assert made.kind in ("info", "success", "warning", "failure")


def test_a_start_and_a_start_again() -> None:
    lines = [*h.started(0.0), *h.started(100.0), *h.started(200.0, fresh=True)]
    assert [one.sentence for one in heard(lines)] == ["started", "goes on", "started"]


def test_an_incident_says_what_happened_and_what_was_done() -> None:
    [news] = heard(h.crashes(10.0, 1, 40))
    made = message([news], PLACE)
    assert made.title == "demo: a worker crashed"
    assert made.body.splitlines() == [
        "attempt 1: a worker crashed: rank 1 was killed by SIGKILL (restart at once).",
        "step 120/500 on node17, in /data/my runs/demo",
        "next: supervisor why '/data/my runs/demo'",
    ]


def gives_up(*, run_gave_up: bool) -> list[h.Line]:
    incident = {"cause": "user_error", "detail": "TypeError", "decision": "give up"}
    end: list[h.Line] = [(3.0, "run_gave_up", None, {"cause": "user_error", "reason": "user_error: TypeError"})]
    return [
        *h.started(0.0),
        (2.0, "incident", 1, incident),
        *h.decides(2.0, 1, "give_up", reason="user_error: TypeError"),
        *(end if run_gave_up else []),
    ]


@pytest.mark.parametrize("run_gave_up", [True, False], ids=["with", "without"])
def test_giving_up_is_told_once_with_its_last_incident(run_gave_up: bool) -> None:
    news = heard(gives_up(run_gave_up=run_gave_up))
    assert [one.kind for one in news] == [Kind.STARTED, Kind.INCIDENT, Kind.GAVE_UP]
    made = message(news, PLACE)
    assert (made.title, made.kind) == ("demo: gave up", "failure")
    assert made.body.startswith("gave up: a person has to look: user_error: TypeError.\n1 incident: ")
    assert "supervisor run --forgive '/data/my runs/demo'/job.yaml" in made.body


def test_an_end_comes_before_an_incident_and_an_incident_before_a_start() -> None:
    start, incident = News(0, Kind.STARTED, "started"), News(1, Kind.INCIDENT, "crash", "crashed")
    assert message([start, incident], PLACE).title == "demo: a worker crashed"
    assert message([incident, start], PLACE).title == "demo: a worker crashed"
    requeued = News(2, Kind.REQUEUED, "requeued; it goes on by itself")
    assert message([start, incident, requeued], PLACE).title == "demo: requeued"


def test_an_end_that_the_run_has_gone_on_from_is_the_past() -> None:
    made = message([News(2, Kind.REQUEUED, "requeued; soon"), News(9, Kind.STARTED, "goes on")], PLACE)
    assert made.title == "demo: goes on"
    assert made.body.splitlines()[:2] == ["goes on.", "Before: requeued."]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "killed, or its machine is going down"),
        (h.trains(1.0, 1, 0, "fresh"), "killed, or its machine is going down"),
        (
            [*h.trains(1.0, 1, 0, "fresh"), *h.decides(9.0, 1, "leave", reason="received SIGTERM")],
            "nobody has put it into a queue; the same `supervisor run` goes on with it (received SIGTERM)",
        ),
    ],
)
def test_a_supervisor_that_is_gone_is_told_as_what_it_is(lines: list[h.Line], words: str) -> None:
    found = interruption(fold(h.records([*h.started(0.0), *lines])), 50.0)
    assert found is not None
    assert words in found.sentence
    assert message([found], PLACE).title == "demo: interrupted"


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ("run_finished", {"step": 5}),
        ("run_gave_up", {"reason": "x"}),
        ("run_stopped", {"by": "SIGINT", "step": 5}),
        ("requeued", {}),
    ],
)
def test_what_the_journal_has_told_is_no_interruption(event: str, fields: dict[str, Any]) -> None:
    assert interruption(fold([Record(1.0, event, fields=fields)]), 2.0) is None


def test_records_of_another_release_break_nothing() -> None:
    for event in ("incident", "run_gave_up", "run_finished", "run_stopped", "requeued", "run_started"):
        news = news_of(Record(1.0, event, fields={"cause": 7, "by": None, "detail": ["a"], "step": "x"}), RunHistory())
        assert news is not None
        assert message([news], Place("demo", "h", Path("/r"), None, None)).body.count("\n") >= 2
