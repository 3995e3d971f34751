"""Strikes: which node is avoided, for how long, and that the job still finds a place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.policy.strikes import EXPIRY_S, Strikes, strikes_of, to_exclude


def told(cause: str, *nodes: str, time: float = 1000.0, attempt: int = 1, event: str = "incident") -> dict[str, Any]:
    return {"event": event, "time": time, "attempt": attempt, "cause": cause, "nodes": list(nodes)}


@pytest.mark.parametrize("cause", ["node_lost", "gpu_fault"])
def test_a_lost_node_and_a_broken_gpu_are_avoided_at_once_and_for_a_day(cause: str) -> None:
    records = [told(cause, "n1")]
    assert strikes_of(records, 1000.0 + EXPIRY_S).nodes == ("n1",)
    assert strikes_of(records, 1001.0 + EXPIRY_S).nodes == ()


@pytest.mark.parametrize("cause", ["disconnected", "network", "stalled"])
def test_what_may_be_the_networks_own_fault_counts_when_it_happens_twice_on_one_node(cause: str) -> None:
    records = [told(cause, "n1", "n2"), told(cause, "n1", attempt=2)]
    assert strikes_of(records[:1], 2000.0).nodes == ()
    assert strikes_of(records, 2000.0).nodes == ("n1",)


def test_an_attempt_counts_once_however_many_records_tell_of_it() -> None:
    records = [told("network", "n1"), told("network", "n1", event="attempt_ended")]
    assert strikes_of(records, 2000.0).nodes == ()


@pytest.mark.parametrize("cause", ["crashed", "preempted", "gpu_oom", "user_error", "no such cause", None])
def test_what_the_program_does_is_no_nodes_fault(cause: Any) -> None:
    assert strikes_of([told(cause, "n1")], 2000.0).nodes == ()


def test_one_node_may_be_named_alone_and_what_is_no_name_is_passed_over() -> None:
    alone = {"event": "attempt_ended", "time": 1.0, "attempt": 1, "cause": "node_lost", "node": "n1"}
    odd = [{**alone, "node": 7}, {**alone, "node": None, "nodes": "n2"}, {**alone, "time": "then"}, {}]
    assert strikes_of([alone, *odd], 2.0).nodes == ("n1", "n2")


def test_the_oldest_strike_comes_first_and_what_was_excluded_is_remembered() -> None:
    records = [
        told("node_lost", "n1", time=10.0),
        told("node_lost", "n2", time=20.0, attempt=2),
        {"event": "adapted", "time": 21.0, "excluded": ["n1", "n2"]},
        {"event": "adapted", "time": 22.0, "micro_batch": 4},
        told("node_lost", "n1", time=30.0, attempt=3),
    ]
    assert strikes_of(records, 40.0) == Strikes(nodes=("n2", "n1"), excluded=("n1", "n2"))


def test_a_node_that_the_job_asks_for_is_not_excluded() -> None:
    """Requested and excluded, the job would wait for ever."""
    strikes = Strikes(nodes=("n1", "n2"))
    assert to_exclude(strikes, own=(), requested=("n1",), available=("n1", "n2", "n3"), needed=1) == ("n2",)


def test_what_the_user_excludes_counts_against_the_room_and_stays_the_users() -> None:
    strikes = Strikes(nodes=("n1", "n2"), excluded=("n2",))
    four = ("n1", "n2", "n3", "n4")
    assert to_exclude(strikes, own=("n2", "n4"), requested=(), available=four, needed=1) == ("n1", "n2")
    assert to_exclude(strikes, own=("n2", "n4"), requested=(), available=four, needed=2) == ("n2",)
    assert to_exclude(strikes, own=("n1",), requested=(), available=four, needed=1) == ("n2",)


def test_a_struck_node_that_is_down_costs_no_room() -> None:
    strikes = Strikes(nodes=("n1",))
    assert to_exclude(strikes, own=(), requested=(), available=("n2", "n3"), needed=2) == ("n1",)


def test_where_the_partition_cannot_be_seen_nothing_is_excluded() -> None:
    assert to_exclude(Strikes(nodes=("n1",)), own=(), requested=(), available=None, needed=1) == ()


NODES = [f"n{number}" for number in range(6)]


@given(
    struck=st.lists(st.sampled_from(NODES), unique=True),
    own=st.sets(st.sampled_from(NODES)),
    available=st.lists(st.sampled_from(NODES), unique=True),
    needed=st.integers(1, 6),
)
def test_a_job_that_had_room_keeps_room(struck: list[str], own: set[str], available: list[str], needed: int) -> None:
    chosen = to_exclude(Strikes(nodes=tuple(struck)), own=own, requested=(), available=available, needed=needed)
    assert set(chosen) <= set(struck) - own
    if len(set(available) - own) >= needed:
        assert len(set(available) - own - set(chosen)) >= needed
    else:
        assert set(chosen).isdisjoint(available)
