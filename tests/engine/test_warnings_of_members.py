"""What members' clouds gave notice of reaches the leader once, with the time that is left, and is taken back."""

from __future__ import annotations

from dataclasses import replace

from engine.crew_ends import ends_of

from supervisor.engine.members.messages import Seen, Warned
from supervisor.engine.members.warnings import Warnings
from supervisor.policy.notices import Notice, Withdrawn

SPOT = Warned(cloud="aws", kind="spot instance-action stop", detail="{}", key="spot", urgent=True, left_s=120.0)
TOLD = Notice("aws", "spot instance-action stop on node 2 (b)", 1120.0, "{}", True, "node 2")


def test_what_is_said_every_second_is_told_once() -> None:
    warnings = Warnings()
    for left_s in (120.0, 119.0, 118.0):
        warnings.hear(2, replace(SPOT, left_s=left_s), "b")
    assert warnings.take(1000.0) == [TOLD]
    warnings.hear(2, replace(SPOT, left_s=1.0), "b")
    assert warnings.take(1000.0) == []


def test_one_that_begins_before_its_time_is_told_anew() -> None:
    warnings = Warnings()
    warnings.hear(2, SPOT, "b")
    warnings.hear(2, replace(SPOT, left_s=None), "b")
    assert warnings.take(1000.0) == [TOLD, replace(TOLD, deadline_s=None)]


def test_one_that_is_taken_back_is_withdrawn_and_so_is_that_of_a_node_that_the_run_goes_on_without() -> None:
    warnings = Warnings()
    warnings.hear(2, None, "b")
    assert warnings.take(1000.0) == []
    warnings.hear(2, SPOT, "b")
    warnings.hear(2, None, "b")
    assert warnings.take(1000.0) == [TOLD, Withdrawn("aws", "{}", "node 2")]
    warnings.hear(2, SPOT, "b")
    warnings.hear(1, SPOT, "a")
    warnings.take(1000.0)
    warnings.forget([2, 3])
    assert warnings.take(1000.0) == [Withdrawn("aws", "{}", "node 2")]


def test_a_members_notice_arrives_at_the_leader() -> None:
    with ends_of(2) as ends:
        ends.join(1)
        ends.say(1, Seen(warned=SPOT))
        [told] = ends.until(lambda: ends.crew.warnings.take(1000.0), "notice")
        assert (told, told.deadline_s) == (
            Notice("aws", "spot instance-action stop on node 1 (host1)", 1120.0, "{}", True, "node 1"),
            1120.0,
        )
        ends.join(1)  # over a new connection
        ends.say(1, Seen())
        assert ends.until(lambda: ends.crew.warnings.take(1000.0), "end of it") == [Withdrawn("aws", "{}", "node 1")]
