"""Notices of a cloud become a copy that is due, a line in the journal, and in the end a wish to leave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from harness import until

from supervisor.engine.members.joining import warning
from supervisor.engine.wishes import Wishes
from supervisor.policy.lifecycle import Wish
from supervisor.policy.notices import Notice
from supervisor.watch.clouds.asking import Unclear
from supervisor.watch.clouds.reading import Reading
from supervisor.watch.clouds.watch import CloudWatch
from supervisor.watch.ready import ready
from supervisor.watch.signals import Inbox

WALL_S = 1_700_000_000.0
PREEMPT = Notice("azure", "Preempt", WALL_S + 30.0, "EventType Preempt, EventSource Platform", True, "E1")


@dataclass
class Script:
    """A cloud that says what the test wants."""

    reading: Reading = ()
    name: str = "azure"
    every_s: float = 0.01
    acknowledged: list[str] = field(default_factory=list)

    def poll(self, now_s: float) -> Reading:
        return self.reading

    def acknowledge(self, key: str, limit_s: float) -> bool:
        self.acknowledged.append(key)
        return True


@dataclass
class Listening:
    """Wishes that listen to a cloud, and what they have written down."""

    cloud: Script
    wishes: Wishes
    written: list[tuple[str, dict[str, Any]]]

    def hear(self, reading: Reading, now_s: float, lines: int) -> None:
        """Look at this moment until so many lines have been written."""
        self.cloud.reading = reading

        def looked() -> bool:
            ready(self.wishes.fds, 0.05)
            self.wishes.look(now_s)
            return len(self.written) >= lines

        until(looked, "news")


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    cloud, written = Script(), []
    watch = CloudWatch([cloud], rarely_s=0.01)
    watch.start()
    wishes = Wishes(
        Inbox(),
        tmp_path,
        30.0,
        ignore_hangup=True,
        write=lambda event, **fields: written.append((event, fields)),
        clouds=watch,
        wall=lambda: WALL_S,
    )
    yield Listening(cloud, wishes, written)
    watch.close()


def test_a_notice_is_written_down_and_a_copy_is_due_until_one_was_begun_after_it(listening: Listening) -> None:
    wishes = listening.wishes
    listening.hear((PREEMPT,), 100.0, 1)
    assert listening.written == [
        ("notice", {"kind": "azure: Preempt", "detail": PREEMPT.detail, "urgent": True, "deadline": WALL_S + 30.0})
    ]
    assert (wishes.safety_due, wishes.wish) == (True, Wish.GO_ON)
    wishes.look(101.0, secured_s=99.0, commit_s=1.0)
    assert wishes.safety_due
    wishes.look(101.0, secured_s=100.5, commit_s=1.0)
    assert not wishes.safety_due
    assert len(listening.written) == 1


def test_just_before_the_deadline_it_becomes_the_wish_to_leave_in_the_clouds_own_words(listening: Listening) -> None:
    wishes = listening.wishes
    listening.hear((PREEMPT,), 100.0, 1)
    wishes.look(118.9, secured_s=100.5, commit_s=1.0)
    assert wishes.wish is Wish.GO_ON
    wishes.look(119.0, secured_s=100.5, commit_s=1.0)
    assert (wishes.wish, wishes.by) == (Wish.HAND_BACK, "azure: Preempt (EventType Preempt, EventSource Platform)")
    assert wishes.since_s == 119.0


def test_one_that_is_withdrawn_in_time_wishes_nothing(listening: Listening) -> None:
    wishes = listening.wishes
    listening.hear((PREEMPT,), 100.0, 1)
    listening.hear((), 101.0, 2)
    assert listening.written[1] == ("notice", {"kind": "azure: Preempt", "detail": PREEMPT.detail, "withdrawn": True})
    wishes.look(1e6)
    assert (wishes.wish, wishes.safety_due, wishes.standing) == (Wish.GO_ON, False, ())


def test_a_cloud_that_cannot_be_read_is_an_incident_and_no_wish(listening: Listening) -> None:
    listening.hear(Unclear("no answer"), 100.0, 1)
    assert listening.written == [
        (
            "incident",
            {
                "cause": "network",
                "detail": "azure: its notices cannot be read: no answer",
                "decision": "it is asked again",
            },
        )
    ]
    assert listening.wishes.wish is Wish.GO_ON


@pytest.mark.parametrize(("secured", "acknowledged"), [(True, ["E1"]), (False, [])])
def test_the_cloud_is_told_to_go_ahead_only_when_everything_is_on_disk(
    listening: Listening, secured: bool, acknowledged: list[str]
) -> None:
    listening.hear((PREEMPT,), 100.0, 1)
    listening.wishes.look(129.0)
    listening.wishes.leave(secured=secured)
    assert listening.cloud.acknowledged == []  # not while the lease is held
    assert listening.wishes.clouds is not None
    listening.wishes.clouds.close()
    assert listening.cloud.acknowledged == acknowledged


def test_whoever_leaves_for_another_reason_tells_the_cloud_nothing(listening: Listening) -> None:
    listening.hear((PREEMPT,), 100.0, 1)
    listening.wishes.hand_back("SIGTERM")
    listening.wishes.look(129.0)
    listening.wishes.leave(secured=True)
    assert listening.wishes.clouds is not None
    listening.wishes.clouds.close()
    assert listening.cloud.acknowledged == []


def test_a_member_passes_on_what_is_most_pressing_with_the_time_that_is_left(listening: Listening) -> None:
    assert warning((), 100.0) is None
    freeze = Notice("azure", "Freeze", WALL_S + 5.0, "EventType Freeze", False, "E0")
    listening.hear((freeze, PREEMPT), 100.0, 2)
    told = warning(listening.wishes.standing, 110.0)
    assert told is not None
    assert (told.kind, told.key, told.urgent, told.left_s) == ("Preempt", "E1", True, 20.0)
