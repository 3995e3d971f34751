"""What follows from notices: every order of news, every moment between the first word and the deadline."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor.policy.notices import (
    MARGIN_S,
    Answer,
    CommitNow,
    DrainNow,
    GoOn,
    Heard,
    Notice,
    TrainOn,
    Withdrawn,
    answer,
    leave_at_s,
    take,
)

WALL_S = 1_700_000_000.0
SPOT = Notice("aws", "spot instance-action terminate", WALL_S + 120.0, "", True, "spot")
ADVICE = Notice("aws", "rebalance recommendation", None, "", False, "rebalance")
AT_ONCE = Notice("gcp", "preempted", None, "", True, "preempted")


def heard(*news: Notice | Withdrawn, now_s: float = 50.0) -> tuple[Heard, ...]:
    standing: tuple[Heard, ...] = ()
    for one in news:
        standing = take(standing, one, wall_s=WALL_S, now_s=now_s)
    return standing


def said(standing: tuple[Heard, ...], now_s: float, secured_s: float | None = None, commit_s: float = 0.0) -> Answer:
    return answer(standing, now_s=now_s, secured_s=secured_s, commit_s=commit_s)


def test_without_a_notice_nothing_is_done() -> None:
    assert said((), 50.0) == GoOn()


def test_a_notice_commits_at_once_trains_on_and_leaves_just_before_its_deadline() -> None:
    standing = heard(SPOT)
    assert said(standing, 50.0) == CommitNow()
    assert said(standing, 51.0, secured_s=49.0) == CommitNow()  # one that was begun before is no safety copy
    assert said(standing, 52.0, secured_s=50.5) == TrainOn(170.0 - MARGIN_S)
    assert said(standing, 170.0 - MARGIN_S, secured_s=50.5) == DrainNow(SPOT)


def test_a_commit_that_takes_long_is_begun_earlier() -> None:
    assert said(heard(SPOT), 131.0, secured_s=51.0, commit_s=29.5) == DrainNow(SPOT)


def test_a_safety_copy_that_never_succeeds_keeps_nobody_from_leaving() -> None:
    assert said(heard(SPOT), 169.0, secured_s=None) == DrainNow(SPOT)


def test_a_notice_without_a_deadline_or_with_one_that_has_passed_is_obeyed_at_once() -> None:
    assert said(heard(AT_ONCE), 50.0) == DrainNow(AT_ONCE)
    late = Notice("aws", "spot instance-action stop", WALL_S - 5.0, "", True, "spot")
    assert said(heard(late), 50.0) == DrainNow(late)


def test_advice_is_committed_for_and_ends_nothing() -> None:
    standing = heard(ADVICE)
    assert said(standing, 50.0) == CommitNow()
    assert said(standing, 1e9, secured_s=50.0) == GoOn()


def test_a_notice_that_was_withdrawn_is_forgotten() -> None:
    assert said(heard(SPOT, Withdrawn("aws", "", "spot")), 1e9) == GoOn()
    assert said(heard(SPOT, Withdrawn("azure", "", "spot")), 1e9) == DrainNow(SPOT)  # another cloud's


def test_of_two_the_earlier_one_counts() -> None:
    later = Notice("azure", "Redeploy", WALL_S + 600.0, "", True, "E2")
    standing = heard(later, SPOT)
    assert said(standing, 51.0, secured_s=50.0) == TrainOn(160.0)
    assert said(standing, 160.0, secured_s=50.0) == DrainNow(SPOT)


def test_the_same_notice_told_anew_changes_the_deadline_and_asks_for_no_second_copy() -> None:
    first = take((), SPOT, wall_s=WALL_S, now_s=50.0)
    moved = Notice("aws", "spot instance-action terminate", WALL_S + 60.0, "", True, "spot")
    again = take(first, moved, wall_s=WALL_S + 20.0, now_s=70.0)
    assert [(one.at_s, one.deadline_s) for one in again] == [(50.0, 110.0)]
    assert said(again, 71.0, secured_s=50.0) == TrainOn(100.0)


@given(lead_s=st.floats(-10, 1e4), commit_s=st.floats(0, 300), later_s=st.floats(0, 1e4))
def test_nobody_stays_beyond_a_deadline_or_leaves_before_the_notice(
    lead_s: float, commit_s: float, later_s: float
) -> None:
    notice = Notice("azure", "Preempt", WALL_S + lead_s, "", True, "E1")
    standing = take((), notice, wall_s=WALL_S, now_s=50.0)
    leave_s = leave_at_s(standing[0], commit_s)
    assert 50.0 <= leave_s <= max(50.0, 50.0 + lead_s)
    now_s = 50.0 + later_s
    assert isinstance(said(standing, now_s, secured_s=now_s, commit_s=commit_s), DrainNow) == (now_s >= leave_s)
