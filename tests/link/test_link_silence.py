"""Silence is noticed on both sides; a busy loop is no silence, and nothing depends on who talks."""

from __future__ import annotations

from link_ends import World

from supervisor.link.events import Heard, Joined, Lost
from supervisor.link.wire import Frame


def test_a_quiet_hour_is_no_loss(world: World) -> None:
    member = world.member(1)
    world.skip(3600.0, step_s=0.5)
    assert world.leader.seen(Lost) == member.seen(Lost) == []
    assert member.of.silent_s(world.now_s) < 2.0
    assert world.leader.heard("beat") == member.heard("beat") == []


def test_a_member_that_talks_all_the_time_still_hears_of_a_leader_that_does_not(world: World) -> None:
    member = world.member(1)
    for n in range(100):
        member.of.send(Frame("state", {"n": n}))
        world.skip(0.25)
    assert member.seen(Lost) == []
    assert member.of.silent_s(world.now_s) < 2.0


def test_a_leader_that_talks_all_the_time_still_hears_of_a_member_that_does_not(world: World) -> None:
    world.member(1)
    for n in range(100):
        world.hub.send(1, Frame("plan", {"n": n}))
        world.skip(0.25)
    assert world.leader.seen(Lost) == []


def test_a_silent_member_is_lost_within_five_seconds(world: World) -> None:
    silent, other = world.member(1), world.member(2)
    silent.stopped = True
    world.skip(3.0)
    assert world.leader.seen(Lost) == []
    world.skip(1.5)
    assert world.leader.seen(Lost) == [Lost(1, "silent for 4.0 s")]
    assert set(world.hub.nodes) == {2}
    assert other.seen(Lost) == []


def test_a_silent_leader_is_lost_within_five_seconds_and_comes_back_by_itself(world: World) -> None:
    member = world.member(1)
    world.leader.stopped = True
    world.skip(3.0)
    assert member.seen(Lost) == []
    assert member.of.joined
    world.skip(1.5)
    assert member.seen(Lost) == [Lost(0, "silent for 4.0 s")]
    assert not member.of.joined
    world.leader.stopped = False
    world.skip(1.0)
    world.until(lambda: member.of.joined, "the way back")
    assert [type(event) for event in world.leader.events if not isinstance(event, Lost)] == [Joined, Joined]


def test_a_leader_that_was_busy_reads_before_it_judges(world: World) -> None:
    member = world.member(1)
    world.leader.stopped = True
    world.skip(3.5)
    member.stopped = True  # its beats lie in the kernel
    world.now_s += 3.0
    world.leader.stopped = False
    world.rounds(2)
    assert world.leader.seen(Lost) == []


def test_a_member_that_was_busy_reads_before_it_judges(world: World) -> None:
    member = world.member(1)
    member.stopped = True
    world.hub.send(1, Frame("plan"))
    world.rounds(2)
    world.now_s += 5.0
    world.leader.stopped = True
    member.stopped = False
    world.rounds(2)
    assert member.seen(Lost) == []


def test_how_long_the_leader_was_not_heard_counts_over_all_tries(world: World) -> None:
    member = world.line(1, lambda: None)
    world.skip(10.0)
    assert 9.0 < member.of.silent_s(world.now_s) < 11.0
    joined = world.member(2)
    world.leader.stopped = True
    world.skip(10.0)
    assert 9.0 < joined.of.silent_s(world.now_s) < 12.0


def test_what_was_queued_for_a_lost_member_does_not_reach_its_next_life(world: World) -> None:
    member = world.member(1)
    member.stopped = True
    for _ in range(7):
        world.hub.send(1, Frame("old", {}, bytes(1 << 20)))
    world.skip(4.5)
    assert world.leader.seen(Lost) != []
    member.stopped = False
    world.skip(1.0)
    world.until(lambda: len(member.seen(Joined)) == 2, "the way back")
    world.hub.send(1, Frame("new"))
    world.until(lambda: member.heard("new"), "new frame")
    again = max(at for at, event in enumerate(member.events) if isinstance(event, Joined))
    assert member.events[again + 1 :] == [Heard(0, Frame("new"))]


def test_the_end_of_a_connection_is_noticed_at_once(world: World) -> None:
    member = world.member(1)
    world.ends.remove(member)
    member.of.close()
    world.until(lambda: world.leader.seen(Lost), "loss")
    assert world.leader.seen(Lost) == [Lost(1, "the connection ended")]
