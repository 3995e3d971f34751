"""The corpus of error texts is data that other tests lean on: what is in it has its form, its source and one place.

A line of `known.jsonl`: `text` is an exception's message where `type` names the exception, else lines of a log;
`cause` is what an unattended supervisor should take it for; `also` are causes that an honest reader may give as well;
`cascade` marks what a rank says because a peer is gone; `ambiguous` marks what hardware and program both can say.
`held_out.jsonl`, `fresh.jsonl`, `unseen.jsonl`, `dev.jsonl`, `blind.jsonl`, `usual.jsonl` and `usual_learnt.jsonl` have
the same form, each collected by somebody who did not know the rules; whoever writes rules does not read such a set
before it has measured them, and `blind.jsonl` and `usual.jsonl` never.
A line of `ranks.jsonl` shows the ends of one attempt: the texts are real, the times are placed so that a root stands
now before its echoes and now behind them.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from supervisor.policy.causes import CLASSES, Cause

CORPUS = Path(__file__).parent / "corpus"
HALVES = ("known", "held_out")
LATER = [
    name for name in ("fresh", "unseen", "dev", "usual_learnt", "usual", "blind") if (CORPUS / f"{name}.jsonl").exists()
]
FIELDS = {"text", "type", "signal", "cause", "class", "cascade", "ambiguous", "source"}
#: Where a text may come from: a thread, or what a named release was made to say here.
SOURCES = ("https://", "http://", "measured: ", "package: ")


def read(name: str) -> list[dict]:
    return [json.loads(line) for line in (CORPUS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


CASES = {half: read(half) for half in (*HALVES, *LATER)}
ALL = [case for cases in CASES.values() for case in cases]
CREWS = read("ranks")


def named(case: dict) -> str:
    return f"{case['cause']}: {case['text'][:60]!r}"


def crew_named(crew: dict) -> str:
    return f"{crew['cause']}, rank {crew['root_rank']}: {crew['source']}"


@pytest.mark.parametrize("case", ALL, ids=named)
def test_a_case_has_its_form(case: dict) -> None:
    assert set(case) - {"also"} == FIELDS
    assert case["text"].strip()
    assert len(case["text"].splitlines()) <= 6, "a matching line, not an excerpt"
    assert len(case["text"]) <= 900
    assert case["class"] == CLASSES[Cause(case["cause"])].value
    assert isinstance(case["cascade"], bool)
    assert isinstance(case["ambiguous"], bool)
    assert case["type"] is None or "." in case["type"], "the exception's qualified name"
    assert case["signal"] is None or case["signal"].startswith("SIG")
    also = [Cause(word) for word in case.get("also", ())]
    assert Cause(case["cause"]) not in also
    assert case["source"].startswith(SOURCES)


@pytest.mark.parametrize("cause", Cause, ids=lambda cause: cause.value)
@pytest.mark.parametrize("half", HALVES)
def test_every_cause_has_texts_in_each_half(half: str, cause: Cause) -> None:
    assert [case for case in CASES[half] if case["cause"] == cause.value]


def test_no_text_stands_in_the_corpus_twice() -> None:
    twice = [key for key, n in Counter((case["text"].strip(), case["type"]) for case in ALL).items() if n > 1]
    assert twice == []


def test_texts_of_one_thread_stand_in_one_half() -> None:
    """Otherwise a half held out would hold near-copies of what was learnt from; `dev.jsonl` was to be learnt from."""
    halves: dict[str, set[str]] = {}
    for half, cases in CASES.items():
        for case in cases if half != "dev" else ():
            halves.setdefault(case["source"], set()).add(half)
    assert [source for source, found in halves.items() if len(found) > 1] == []


def test_no_thread_of_the_texts_held_back_was_learnt_from() -> None:
    back = ("blind", "usual")
    learnt = {case["source"] for half, cases in CASES.items() if half not in back for case in cases}
    assert [case["source"] for half in back for case in CASES[half] if case["source"] in learnt] == []


def test_what_the_crews_show_is_not_held_out() -> None:
    shown = {end["text"].strip() for crew in CREWS for end in crew["ranks"] if end["text"]}
    assert [named(case) for case in CASES["held_out"] if case["text"].strip() in shown] == []


@pytest.mark.parametrize("cause", Cause, ids=lambda cause: cause.value)
def test_every_cause_is_the_word_of_six_texts(cause: Cause) -> None:
    assert sum(case["cause"] == cause.value for case in ALL) >= 6


@pytest.mark.parametrize("crew", CREWS, ids=crew_named)
def test_a_crew_of_ranks_has_its_form(crew: dict) -> None:
    assert set(crew) - {"also"} == {"ranks", "cause", "root_rank", "source"}
    assert Cause(crew["cause"]) not in [Cause(word) for word in crew.get("also", ())]
    assert crew["source"].startswith(SOURCES)
    numbers = [end["rank"] for end in crew["ranks"]]
    assert len(numbers) == len(set(numbers)) >= 2
    assert crew["root_rank"] in numbers
    for end in crew["ranks"]:
        assert set(end) == {"rank", "time_s", "type", "text", "signal"}
        assert end["type"] is None or "." in end["type"]
        assert end["type"] or end["signal"], "a rank that neither recorded an error nor was killed is no end"


def test_roots_stand_before_their_echoes_and_behind_them() -> None:
    """A rule that takes the earliest end, or the latest, must fail somewhere."""
    first = [crew["root_rank"] == min(crew["ranks"], key=lambda end: end["time_s"])["rank"] for crew in CREWS]
    last = [crew["root_rank"] == max(crew["ranks"], key=lambda end: end["time_s"])["rank"] for crew in CREWS]
    assert not all(first)
    assert not all(last)
