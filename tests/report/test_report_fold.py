"""What each named history comes to."""

import json

import pytest
import run_histories as h
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.journal import EVENTS, Record
from supervisor.journal.records import records_of
from supervisor.report.figures import Span, goodput, history_goodput, steps_redone
from supervisor.report.fold import NO_END, fold


@pytest.mark.parametrize(
    ("name", "state", "step", "redone"),
    [
        ("STARTING", "starting", None, None),
        ("UNDER_WAY", "running", 40, 0),
        ("SMOOTH", "finished", 100, 0),
        ("RANK_KILLED", "finished", 100, 0),
        ("BOARD_LOST", "finished", 100, 15),
        ("TREE_KILLED_RESUMED", "running", 57, 0),
        ("TREE_KILLED_BOARD_WIPED", "running", 40, None),
        ("TREE_KILLED_TOLD_LATER", "running", 57, 0),
        ("PREEMPTED", "interrupted", 56, 0),
        ("DRAINING", "draining", 55, 0),
        ("STOPPED", "stopped", 55, 0),
        ("GAVE_UP", "gave_up", None, None),
        ("FORGIVEN", "starting", None, None),
        ("FRESH", "running", 0, 0),
        ("TORN_NEWEST", "running", 40, 16),
        ("DIVERGED", "running", 45, 15),
        ("NEVER_TRAINED_BETWEEN", "running", 50, 5),
    ],
)
def test_state_step_and_what_was_redone(name: str, state: str, step: int | None, redone: int | None) -> None:
    history = fold(h.records(h.ALL[name]))
    assert (history.state, history.step, steps_redone(history)) == (state, step, redone)


def test_a_cloud_that_gives_notice_ends_no_training_yet_and_may_take_it_back() -> None:
    told = {"kind": "azure: Preempt", "detail": "", "urgent": True, "deadline": 1200.0}
    noticed = [*h.UNDER_WAY, (1100.0, "notice", 1, told)]
    taken_back = [*noticed, (1110.0, "notice", 1, {"kind": "azure: Preempt", "detail": "", "withdrawn": True})]
    assert [fold(h.records(lines)).state for lines in (noticed, taken_back)] == ["running", "running"]


@pytest.mark.parametrize(
    ("name", "now", "share"),
    [
        ("STARTING", 1100, None),
        ("GAVE_UP", 1100, None),
        ("SMOOTH", 9999, 100 / 110),
        ("RANK_KILLED", 9999, (60 + 45) / 125),
        ("BOARD_LOST", 9999, (60 * 40 / 55 + 60) / 140),
        ("PREEMPTED", 1200, 62 / 200),
        ("STOPPED", 9999, 62 / 73),
        # the killed attempt counts until its last sign, the one under way nothing yet
        ("TREE_KILLED_RESUMED", 1210, 40 / 210),
        ("TREE_KILLED_TOLD_LATER", 1212, 40 / 212),
    ],
)
def test_goodput(name: str, now: float, share: float | None) -> None:
    assert history_goodput(fold(h.records(h.ALL[name])), now) == (share if share is None else pytest.approx(share))


def test_the_step_under_way_counts_into_goodput() -> None:
    history = fold(h.records(h.UNDER_WAY))
    assert history_goodput(history, 1110.0, step=90, until=1110.0) == pytest.approx(100 / 110)


def test_an_end_that_nobody_recorded_is_said_so() -> None:
    killed, resumed = fold(h.records(h.TREE_KILLED_BOARD_WIPED)).attempts
    assert (killed.cause, killed.evidence, killed.ended, killed.step) == ("unknown", NO_END, 1050.0, None)
    assert resumed.ended is None
    told = fold(h.records(h.TREE_KILLED_TOLD_LATER)).attempts[0]
    assert (told.evidence, told.ended, told.step) == ("the supervisor was killed", 1050.0, 57)


def test_the_newest_checkpoint_is_that_of_the_highest_lineage() -> None:
    commit = fold(h.records(h.DIVERGED)).last_commit
    assert commit is not None
    assert (commit.lineage, commit.step) == (1, 45)


def test_a_rejected_checkpoint_is_none() -> None:
    commit = fold(h.records(h.TORN_NEWEST)).last_commit
    assert commit is not None
    assert commit.step == 40


def test_a_fresh_start_begins_anew_and_forgets_no_attempt() -> None:
    history = fold(h.records(h.FRESH))
    assert (history.started, history.last_commit, len(history.attempts), len(history.counted)) == (2000.0, None, 2, 1)


def test_decisions_belong_to_their_attempts() -> None:
    history = fold(h.records(h.NEVER_TRAINED_BETWEEN))
    assert [(a.number, a.decision, a.delay_s) for a in history.attempts] == [
        (1, "restart", 0.0),
        (2, "restart", 15.0),
        (3, None, None),
    ]


@pytest.mark.parametrize("name", sorted(h.ALL))
def test_folding_loses_nothing_by_missing_lines(name: str) -> None:
    """A journal may have lost any line to a torn write."""
    lines = h.records(h.ALL[name])
    for missing in range(len(lines)):
        history = fold(lines[:missing] + lines[missing + 1 :])
        steps_redone(history)
        share = history_goodput(history, 5000.0)
        assert share is None or 0.0 <= share <= 1.0


FIELDS = st.dictionaries(
    st.sampled_from(
        [
            "step",
            "cause",
            "evidence",
            "path",
            "source",
            "lineage",
            "decision",
            "delay_s",
            "fresh",
            "max_steps",
            "name",
            "write_s",
        ]
    ),
    st.none()
    | st.booleans()
    | st.integers(-3, 200)
    | st.floats()
    | st.text(max_size=4)
    | st.lists(st.integers(), max_size=1)
    | st.sampled_from(["snapshot", "fresh", "restart", "leave", "give_up", "crashed"]),
)
RECORDS = st.lists(
    st.builds(
        Record,
        st.floats(0, 1e6),
        st.sampled_from([*sorted(EVENTS), "tea_made"]),
        st.none() | st.integers(0, 4),
        st.none(),
        FIELDS,
    ),
    max_size=25,
)


@given(RECORDS, st.floats(0, 2e6))
@settings(max_examples=300, deadline=None)
def test_no_journal_makes_folding_fail(records: list[Record], now: float) -> None:
    history = fold(records)
    share = history_goodput(history, now, step=7, until=now)
    assert share is None or 0.0 <= share <= 1.0
    redone = steps_redone(history)
    assert redone is None or redone >= 0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.floats(0, 100)), max_size=8), st.floats(1, 1000))
def test_goodput_is_a_share(spans: list[tuple[int, int, float]], more_s: float) -> None:
    made = [Span(min(a, b), max(a, b), s) for a, b, s in spans]
    share = goodput(made, sum(s for *_, s in spans) + more_s)
    assert share is None or 0.0 <= share < 1.0


def test_histories_are_what_a_journal_holds() -> None:
    line = {"v": 1, "time": 1.0, "event": "notice", "attempt": 2, "host": "node1", "kind": "SIGTERM"}
    assert records_of(json.dumps(line).encode()) == h.records([(1.0, "notice", 2, {"kind": "SIGTERM"})])
