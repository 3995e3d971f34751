"""Answers of each cloud, word for word, and what is read in them; nothing that comes can raise."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.policy.notices import Notice
from supervisor.watch.clouds.alibaba import read_termination
from supervisor.watch.clouds.asking import Answer, Unclear
from supervisor.watch.clouds.aws import read_action, read_maintenance, read_rebalance
from supervisor.watch.clouds.azure import read_events, read_sole
from supervisor.watch.clouds.gcp import AHEAD_S, AHEAD_WITH_GPU_S, read_preempted
from supervisor.watch.clouds.gcp import read_maintenance as read_host_maintenance
from supervisor.watch.clouds.reading import Reading

#: 2020-04-24T17:11:44Z.
DEADLINE_S = 1587748304.0
NOW_S = DEADLINE_S - 120.0
GOOGLE = {"metadata-flavor": "Google"}


def only(reading: Reading) -> Notice:
    assert isinstance(reading, tuple)
    assert len(reading) == 1
    return reading[0]


@pytest.mark.parametrize("action", ["terminate", "stop"])
def test_an_interruption_of_aws_names_its_action_and_its_time(action: str) -> None:
    body = f'{{"action":"{action}","time":"2020-04-24T17:11:44Z"}}'
    notice = only(read_action(Answer(200, {}, body.encode()), NOW_S))
    assert notice == Notice("aws", f"spot instance-action {action}", DEADLINE_S, body, True, "spot")


def test_a_hibernation_of_aws_begins_at_once() -> None:
    notice = only(read_action(Answer(200, {}, b'{"action":"hibernate","time":"2020-04-24T17:11:44Z"}'), NOW_S))
    assert (notice.deadline_s, notice.urgent) == (None, True)


def test_a_recommendation_of_aws_is_advice() -> None:
    notice = only(read_rebalance(Answer(200, {}, b'{"noticeTime": "2020-10-27T08:22:00Z"}'), NOW_S))
    assert (notice.kind, notice.urgent, notice.deadline_s) == ("rebalance recommendation", False, None)
    assert read_rebalance(Answer(404), NOW_S) == ()


def test_of_the_maintenance_of_aws_only_what_is_still_to_come_counts() -> None:
    event = {
        "NotBefore": "24 Apr 2020 17:11:44 GMT",
        "Code": "system-reboot",
        "Description": "scheduled reboot",
        "EventId": "instance-event-0d59937288b749b32",
        "NotAfter": "24 Apr 2020 19:11:44 GMT",
        "State": "active",
    }
    listed = [event, {**event, "EventId": "2", "State": "completed"}, {**event, "EventId": "3", "State": "canceled"}]
    notice = only(read_maintenance(Answer(200, {}, json.dumps(listed).encode()), NOW_S))
    assert (notice.kind, notice.deadline_s, notice.urgent) == ("maintenance system-reboot", DEADLINE_S, False)
    assert "scheduled reboot" in notice.detail


def test_a_preemption_of_google_names_no_time() -> None:
    assert read_preempted(Answer(200, GOOGLE, b"FALSE\n"), NOW_S) == ()
    notice = only(read_preempted(Answer(200, GOOGLE, b"TRUE"), NOW_S))
    assert (notice.deadline_s, notice.urgent) == (None, True)


def test_whoever_answers_without_googles_mark_is_not_google() -> None:
    assert isinstance(read_preempted(Answer(200, {}, b"TRUE"), NOW_S), Unclear)
    assert isinstance(read_host_maintenance(Answer(200, {}, b"NONE"), NOW_S), Unclear)


def test_a_live_migration_ends_nothing_and_a_termination_does() -> None:
    assert read_host_maintenance(Answer(200, GOOGLE, b"NONE"), NOW_S) == ()
    assert not only(read_host_maintenance(Answer(200, GOOGLE, b"MIGRATE_ON_HOST_MAINTENANCE"), NOW_S)).urgent
    told = Answer(200, GOOGLE, b"TERMINATE_ON_HOST_MAINTENANCE")
    assert only(read_host_maintenance(told, NOW_S)).deadline_s == NOW_S + AHEAD_S
    assert only(read_host_maintenance(told, NOW_S, AHEAD_WITH_GPU_S)).deadline_s == NOW_S + AHEAD_WITH_GPU_S


def scheduled(**changes: object) -> dict[str, object]:
    return {
        "EventId": "A123BC45-1234-5678-AB90-ABCDEF123456",
        "EventType": "Preempt",
        "ResourceType": "VirtualMachine",
        "Resources": ["FrontEnd_IN_0"],
        "EventStatus": "Scheduled",
        "NotBefore": "Fri, 24 Apr 2020 17:11:44 GMT",
        "Description": "",
        "EventSource": "Platform",
        "DurationInSeconds": -1,
        **changes,
    }


def document(*events: object) -> Answer:
    return Answer(200, {}, json.dumps({"DocumentIncarnation": 2, "Events": events}).encode())


def test_an_eviction_of_azure_names_its_time_until_it_has_started() -> None:
    notice = only(read_events(document(scheduled()), "frontend_in_0", NOW_S))
    assert (notice.kind, notice.deadline_s, notice.urgent) == ("Preempt", DEADLINE_S, True)
    assert notice.detail == (
        "EventType Preempt, EventStatus Scheduled, NotBefore Fri, 24 Apr 2020 17:11:44 GMT, EventSource Platform"
    )
    begun = only(read_events(document(scheduled(EventStatus="Started", NotBefore="")), "FrontEnd_IN_0", NOW_S))
    assert (begun.key, begun.deadline_s) == (notice.key, None)


@pytest.mark.parametrize(
    ("kind", "urgent"),
    [("Preempt", True), ("Terminate", True), ("Reboot", True), ("Redeploy", True), ("Freeze", False), ("New", False)],
)
def test_of_azures_events_a_freeze_is_over_by_itself_and_the_others_end_the_machine(kind: str, urgent: bool) -> None:
    assert only(read_events(document(scheduled(EventType=kind)), "FrontEnd_IN_0", NOW_S)).urgent is urgent


def test_events_of_other_machines_of_azure_are_none_of_ours() -> None:
    others = scheduled(Resources=["BackEnd_IN_0", "FrontEnd_IN_01"])
    assert read_events(document(others), "FrontEnd_IN_0", NOW_S) == ()


def test_only_an_event_that_concerns_nobody_else_may_be_approved_of() -> None:
    ours, shared = scheduled(EventId="ours"), scheduled(EventId="shared", Resources=["FrontEnd_IN_0", "BackEnd_IN_0"])
    assert read_sole(document(ours, shared), "FrontEnd_IN_0") == {"ours"}


def test_a_release_of_alibaba_names_its_time() -> None:
    notice = only(read_termination(Answer(200, {}, b"2020-04-24T17:11:44Z"), NOW_S))
    assert notice == Notice("alibaba", "spot termination-time", DEADLINE_S, "2020-04-24T17:11:44Z", True, "spot")
    assert read_termination(Answer(404, {}, b"<html>"), NOW_S) == ()
    assert read_termination(Answer(200), NOW_S) == ()


def test_a_machine_whose_clock_is_wrong_has_the_same_time_left() -> None:
    told = {"date": "Fri, 24 Apr 2020 17:09:44 GMT"}
    wrong_s = NOW_S - 3600.0
    notice = only(read_action(Answer(200, told, b'{"action":"stop","time":"2020-04-24T17:11:44Z"}'), wrong_s))
    assert notice.deadline_s == wrong_s + 120.0


READINGS: list[Callable[[Answer], object]] = [
    lambda answer: read_action(answer, NOW_S),
    lambda answer: read_rebalance(answer, NOW_S),
    lambda answer: read_maintenance(answer, NOW_S),
    lambda answer: read_preempted(answer, NOW_S),
    lambda answer: read_host_maintenance(answer, NOW_S),
    lambda answer: read_events(answer, "vm", NOW_S),
    lambda answer: read_termination(answer, NOW_S),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["Events", "action", "time", "State"]), inner),
)
BODIES = st.binary() | JSON.map(lambda value: json.dumps(value).encode()) | st.just(b"[" * 100_000)


@given(
    st.sampled_from([200, 204, 400, 401, 403, 404, 410, 429, 500, 503]), BODIES, st.text(), st.sampled_from(READINGS)
)
def test_whatever_comes_is_a_reading(status: int, body: bytes, date: str, read: Callable[[Answer], object]) -> None:
    reading = read(Answer(status, {**GOOGLE, "date": date}, body))
    assert isinstance(reading, tuple | Unclear)
    assert status in (200, 404) or isinstance(reading, Unclear)
