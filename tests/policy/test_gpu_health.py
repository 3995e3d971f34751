"""Every reading that matters, and every row of the table."""

from __future__ import annotations

import pytest

from supervisor.policy.causes import Cause
from supervisor.policy.gpu_health import XIDS, Action, Reading, State, app_fault, fault_of, judge

FIT = {"index": 1, "uuid": "GPU-1", "recovery": 0, "remap_pending": False, "remap_failed": False, "uncorrected": 0}


def test_nothing_said_against_it_is_fit() -> None:
    health = judge(Reading(**FIT))
    assert (health.state, health.words, health.name) == (State.OK, "", "GPU 1 (GPU-1)")
    assert fault_of([health]) is None
    assert app_fault([health]) is None


@pytest.mark.parametrize(
    ("said", "state", "words"),
    [
        ({"lost": True}, State.BAD, "has lost it"),
        ({"recovery": 1}, State.BAD, "wants it reset"),
        ({"recovery": 2}, State.BAD, "node rebooted"),
        ({"recovery": 3}, State.SUSPECT, "peer-to-peer"),
        ({"recovery": 4}, State.BAD, "drained and reset"),
        ({"recovery": 5}, State.SUSPECT, "NVLink domain"),
        ({"recovery": 6}, State.BAD, "bus reset"),
        ({"recovery": 7}, State.BAD, "whole system"),
        ({"remap_failed": True}, State.BAD, "could not be replaced"),
        ({"remap_pending": True}, State.SUSPECT, "wait for a reset"),
        ({"uncorrected": 3}, State.SUSPECT, "3"),
        ({"xids": (79,)}, State.BAD, "Xid 79, it has fallen off the bus"),
        ({"xids": (48, 45)}, State.BAD, "Xid 48, double-bit ECC error"),
        ({"xids": (74,)}, State.SUSPECT, "Xid 74, NVLink error"),
        ({"xids": (13,)}, State.OK, "Xid 13"),
        ({"xids": (31, 43)}, State.OK, "Xid 31"),
        ({"xids": (63,)}, State.OK, "Xid 63"),
        ({"xids": (9999,)}, State.OK, "Xid 9999"),  # no catalog has it: named, and decides nothing
        ({"recovery": None}, State.UNKNOWN, "does not tell"),
        ({"recovery": None, "error": "Not Supported"}, State.UNKNOWN, "Not Supported"),
        ({"recovery": None, "remap_failed": True}, State.BAD, "could not be replaced"),
        ({"recovery": None, "xids": (119,)}, State.BAD, "Xid 119"),
        ({"recovery": 99}, State.SUSPECT, "recovery action 99"),  # a driver newer than the table
    ],
)
def test_what_a_driver_says_is_judged(said: dict[str, object], state: State, words: str) -> None:
    health = judge(Reading(**{**FIT, **said}))  # type: ignore[arg-type]
    assert health.state is state
    assert words in health.words


@pytest.mark.parametrize("code", XIDS)
def test_every_row_has_words_a_source_and_a_consequence(code: int) -> None:
    row = XIDS[code]
    assert row.code == code
    assert row.words
    assert row.source.startswith("Xid catalog")
    health = judge(Reading(**{**FIT, "xids": (code,)}))  # type: ignore[arg-type]
    node_left = row.action not in (Action.IGNORE, Action.RESTART_APP)
    assert (fault_of([health]) is not None) is node_left
    assert (app_fault([health]) is not None) is (row.action is Action.RESTART_APP)


def test_the_evidence_names_the_gpu_the_error_and_what_it_means() -> None:
    fit, gone = judge(Reading(**FIT)), judge(Reading(3, "GPU-3", lost=True, xids=(79, 79)))
    verdict = fault_of([fit, gone])
    assert verdict is not None
    assert verdict.cause is Cause.GPU_FAULT
    assert verdict.evidence == "GPU 3 (GPU-3): the driver has lost it; Xid 79, it has fallen off the bus"


def test_a_broken_gpu_is_blamed_before_the_link_of_its_peer() -> None:
    peer, broken = judge(Reading(**{**FIT, "xids": (74,)})), judge(Reading(0, "GPU-0", recovery=1))  # type: ignore[arg-type]
    verdict = fault_of([peer, broken])
    assert verdict is not None
    assert verdict.evidence == "GPU 0 (GPU-0): the driver wants it reset"


def test_doubt_alone_strikes_no_node() -> None:
    assert fault_of([judge(Reading(**{**FIT, "remap_pending": True, "uncorrected": 1}))]) is None  # type: ignore[arg-type]


def test_a_program_that_erred_is_named_and_the_node_is_not() -> None:
    erred = judge(Reading(**{**FIT, "xids": (13, 13, 43)}))  # type: ignore[arg-type]
    assert fault_of([erred]) is None
    assert app_fault([erred]) == "GPU 1 (GPU-1): Xid 13, graphics engine exception"
