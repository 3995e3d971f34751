"""Texts that stand next to each other: what differs by a word may differ by a verdict.

A line of `siblings.jsonl`: `text` and `type` as in the other files; `causes` are those that an honest reader may give,
and none of them means that a healthy program says so. Spelt as the sources of torch, of its neighbours, of drivers,
of schedulers and of the kernel spell them; unlike the other files they were written down to try the rules.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_corpus import cause_of, end_of

from supervisor.policy.causes import CLASSES, Cause, CauseClass
from supervisor.policy.diagnosis import diagnose
from supervisor.policy.signatures import recognise, telling_lines

CASES: list[dict[str, Any]] = [
    json.loads(line)
    for line in (Path(__file__).parent / "corpus" / "siblings.jsonl").read_text(encoding="utf-8").splitlines()
]
SAID = [case for case in CASES if case["causes"]]
HEALTHY = [case["text"] for case in CASES if not case["causes"]]
LOGGED = [case["text"] for case in SAID if case["type"] is None and "crashed" not in case["causes"]]


def name(case: dict[str, Any]) -> str:
    return f"{case['causes'][0]}-{case['type'] or ''}-{case['text'][:40]}"


@pytest.mark.parametrize("case", SAID, ids=name)
def test_each_of_two_siblings_is_given_its_own_cause(case: dict[str, Any]) -> None:
    assert cause_of(case).value in case["causes"]


@pytest.mark.parametrize("case", [case for case in SAID if case["type"]], ids=name)
def test_an_attempt_is_given_up_for_what_comes_again_and_for_nothing_else(case: dict[str, Any]) -> None:
    given_up = CLASSES[diagnose([end_of(case)]).cause] is CauseClass.PERMANENT
    assert given_up in {CLASSES[Cause(word)] is CauseClass.PERMANENT for word in case["causes"]}


@pytest.mark.parametrize("text", LOGGED, ids=lambda text: text[:60])
def test_no_line_that_tells_a_cause_is_passed_over_in_a_long_log(text: str) -> None:
    assert set(text.splitlines()) & {*telling_lines(f"{text}\nbye")}


@pytest.mark.parametrize("text", HEALTHY, ids=lambda text: text[:60])
def test_a_healthy_line_is_at_most_an_echo(text: str) -> None:
    found = recognise(text, "log")
    assert found is None or found.signature.cascade, found
