"""Texts that real programs died with: each is given its cause, and no hopeless one is ever tried again.

One case a line. `known.jsonl` and `ranks.jsonl` were open to whoever wrote the rules. Each of the other sets was
collected by somebody who did not know the rules, was measured once, and has been learnt from since; they keep what was
reached. At first sight the exact cause was given to

* 140 of the 154 of `held_out.jsonl`,
* 96 of the 115 of `fresh.jsonl`, where 10 of the 19 misses were texts of other frameworks and schedulers,
* 99 of the 109 of `unseen.jsonl`, texts of this project's own world,
* 92 of the 125 that `dev.jsonl` then had, the half of a set that was open before the rules were frozen.

`blind.jsonl` is the other half of that set, without the threads that the others have too. It has never been learnt from
and is not to be. Every text whose words stood in an older set was left out of it, so it holds the rare ones. At first
sight 92 of its 116 were given their exact cause (the rules before these: 83). None that may go away is given up; seven
hopeless ones are tried again, and end when the same comes twice.

`usual.jsonl` and `usual_learnt.jsonl` are what trainings died with as often as it is told: two people who did not know
the rules took what neutral questions found, thread by thread, whatever its words. Only what stood here already letter
by letter was left out afterwards. One set was learnt from (at first sight 77 of its 84 exact), the other is not to be:
it is the measure, and 80 of its 84 are given their exact cause, 66 of them the first that its reader named, the others
the second. What it does not show: a thread's end behind a long traceback was not seen, so full GPUs are rarer in it.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from supervisor.policy.causes import CLASSES, Cause, CauseClass, RankEnd
from supervisor.policy.diagnosis import diagnose
from supervisor.policy.signatures import best, recognise, telling_lines

CORPUS = Path(__file__).parent / "corpus"
LEARNT = tuple(CORPUS / f"{name}.jsonl" for name in ("held_out", "fresh", "unseen", "dev", "usual_learnt"))
BLIND, USUAL = CORPUS / "blind.jsonl", CORPUS / "usual.jsonl"


def read(name: str) -> list[dict[str, Any]]:
    path = CORPUS / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def cause_of(case: dict[str, Any]) -> Cause:
    """What a text alone says: recorded as an exception, or read in a log."""
    kind, text = case.get("type"), case["text"]
    match = recognise(f"{kind}: {text}") if kind else None
    match = match or best(recognise(line, "log") for line in reversed(text.splitlines()))
    return match.signature.cause if match is not None else Cause.CRASHED


def allowed(case: dict[str, Any]) -> set[Cause]:
    return {Cause(case["cause"]), *map(Cause, case.get("also", ()))}


def permanent(causes: set[Cause]) -> set[bool]:
    return {CLASSES[cause] is CauseClass.PERMANENT for cause in causes}


def hopeless(case: dict[str, Any]) -> set[bool]:
    """Whether its causes are permanent; of a debatable one both may be right."""
    return permanent(allowed(case))


def end_of(case: dict[str, Any], rank: int = 0, time_s: float = 0.0) -> RankEnd:
    """As a rank's end before its first step, which is the time when a user's error is looked for."""
    kind, text = case.get("type"), case["text"]
    code = int(text) if kind == "builtins.SystemExit" and text.isdigit() else None
    if kind is None:
        return RankEnd(rank, time_s, signal=case.get("signal"), lines=tuple(telling_lines(text)))
    return RankEnd(rank, time_s, kind, (kind,), text, exit_code=code, began=False)


KNOWN, RANKS = read("known.jsonl"), read("ranks.jsonl")
KEPT = [case for path in LEARNT for case in read(path.name)]
#: A program that finished has no end to be explained.
LOGGED = [
    case
    for case in (*KNOWN, *read("fresh.jsonl"), *read("unseen.jsonl"))
    if case.get("type") is None and case["cause"] != "finished"
]


def name(case: dict[str, Any]) -> str:
    return f"{case['cause']}-{case.get('type') or ''}-{case['text'][:40]}"


@pytest.mark.parametrize("case", KNOWN, ids=name)
def test_a_text_is_given_its_cause(case: dict[str, Any]) -> None:
    assert cause_of(case) in allowed(case)


@pytest.mark.parametrize("case", RANKS, ids=lambda case: f"{case['cause']}-{len(case['ranks'])}")
def test_the_root_is_found_among_the_ranks(case: dict[str, Any]) -> None:
    verdict = diagnose([end_of(one, one["rank"], one["time_s"]) for one in case["ranks"]])
    assert verdict.cause in allowed(case)
    assert verdict.evidence.startswith(f"rank {case['root_rank']} ")


@pytest.mark.parametrize("case", [*KNOWN, *KEPT], ids=name)
def test_no_hopeless_cause_is_tried_again_and_no_other_given_up(case: dict[str, Any]) -> None:
    assert permanent({cause_of(case)}) <= hopeless(case)
    if case.get("type") is not None:  # what a log says of an error of the user's is no reason to stop
        assert permanent({diagnose([end_of(case)]).cause}) <= hopeless(case)


@pytest.mark.parametrize("path", LEARNT, ids=lambda path: path.stem)
def test_of_the_texts_learnt_from_95_in_100_are_given_their_exact_cause(path: Path) -> None:
    cases = read(path.name)
    assert len(cases) > 80
    missed = [name(case) for case in cases if cause_of(case) not in allowed(case)]
    assert len(missed) <= 0.05 * len(cases), missed


@pytest.mark.parametrize("case", LOGGED, ids=name)
def test_the_telling_line_is_found_in_a_log_full_of_progress(case: dict[str, Any]) -> None:
    progress = [f"{{'loss': {1 / step}, 'learning_rate': 1e-05, 'epoch': {step}}}" for step in range(1, 200)]
    log = "\n".join([*progress, case["text"], *progress[:20]])
    found = best(recognise(line, "log") for line in reversed(telling_lines(log)))
    assert (found.signature.cause if found is not None else Cause.CRASHED) in allowed(case)


def test_every_cause_that_a_text_can_tell_is_in_the_corpus() -> None:
    counted = Counter(case["cause"] for case in KNOWN)
    assert {*counted} >= {cause.value for cause in Cause} - {"unknown"}


def test_the_texts_never_learnt_from_are_given_their_exact_cause_as_often_as_they_were() -> None:
    cases = read(BLIND.name)
    assert len(cases) == 116
    assert sum(cause_of(case) in allowed(case) for case in cases) >= 92


def test_of_texts_as_they_come_and_never_learnt_from_95_in_100_are_given_their_exact_cause() -> None:
    cases = read(USUAL.name)
    assert len(cases) == 84
    missed = [name(case) for case in cases if cause_of(case) not in allowed(case)]
    assert len(missed) <= 0.05 * len(cases), missed


@pytest.mark.parametrize("case", [*read(BLIND.name), *read(USUAL.name)], ids=name)
def test_no_run_is_given_up_for_a_text_never_learnt_from_that_may_go_away(case: dict[str, Any]) -> None:
    if permanent({diagnose([end_of(case)]).cause}) == {True}:
        assert True in hopeless(case)
