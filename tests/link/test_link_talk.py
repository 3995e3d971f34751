"""Members join, are heard, are told things, and are refused; nobody waits for anybody."""

from __future__ import annotations

import os
import select
import socket
from itertools import pairwise

import pytest
from link_ends import End, World, frames_from

from supervisor.link.address import Address
from supervisor.link.events import Heard, Joined, Lost, Refused
from supervisor.link.handshake import answer, hello, read_challenge
from supervisor.link.hub import Hub
from supervisor.link.line import Line
from supervisor.link.wire import BODY_LIMIT, VERSION, Frame, WireError, encode


def test_both_ends_learn_of_each_other(world: World) -> None:
    member = world.member(3, host="b")
    assert world.leader.events == [Joined(3, {"node": 3, "host": "b"})]
    assert member.events == [Joined(0, {"run": "r"})]
    assert member.of.joined
    assert set(world.hub.nodes) == {3}


def test_frames_arrive_in_order_both_ways(world: World) -> None:
    member = world.member(1)
    frames = [Frame("state", {"n": n}, bytes([n]) * n) for n in range(50)]
    for frame in frames:
        member.of.send(frame)
        world.hub.send(1, frame)
    world.until(lambda: len(world.leader.heard("state")) == len(member.heard("state")) == 50, "all frames")
    assert world.leader.heard("state") == member.heard("state") == frames
    assert world.leader.events[-1] == Heard(1, frames[-1])
    assert member.events[-1] == Heard(0, frames[-1])


def test_the_largest_frame_arrives(world: World) -> None:
    member = world.member(1)
    body = os.urandom(BODY_LIMIT)
    member.of.send(Frame("log", {"text": "x" * 1_000_000}, body))
    (frame,) = world.until(lambda: world.leader.heard("log"), "large frame")
    assert frame.body == body


def test_a_frame_that_is_too_large_is_refused_where_it_is_made(world: World) -> None:
    member = world.member(1)
    with pytest.raises(WireError):
        member.of.send(Frame("log", {}, bytes(BODY_LIMIT + 1)))
    with pytest.raises(WireError):
        world.hub.send(1, Frame("log", {}, bytes(BODY_LIMIT + 1)))
    world.rounds(5)
    assert member.of.joined


def test_a_newer_post_replaces_the_one_that_has_not_left(world: World) -> None:
    member = world.member(1)
    for end, to in ((world.leader, member.of.post), (member, lambda frame: world.hub.post(1, frame))):
        for n in range(5):
            to(Frame("state", {"n": n}))
        to(Frame("other", {"n": 9}))
        world.until(lambda end=end: end.heard("other"), "the last post")
        assert end.heard("state") == [Frame("state", {"n": 4})]


def test_what_is_queued_wakes_a_select(world: World) -> None:
    member = world.member(1)
    world.rounds(10)
    for end, say in (
        (world.hub, lambda: world.hub.send(1, Frame("a"))),
        (member.of, lambda: member.of.send(Frame("a"))),
    ):
        assert select.select([end.fd], [], [], 0)[0] == []
        say()
        assert select.select([end.fd], [], [], 0)[0] == [end.fd]
        world.rounds(10)


def test_nothing_to_do_leaves_select_asleep(world: World) -> None:
    """Also while the door is crowded, a connection is unproved, and one is being refused."""
    world.member(1)
    world.member(2)
    world.hub.drop(2, "enough")
    for _ in range(70):
        world.stranger(b"half a line")
    world.rounds(10)
    assert select.select([world.hub.fd], [], [], 0)[0] == []


def test_a_frame_to_nobody_is_dropped(world: World) -> None:
    world.hub.send(7, Frame("a"))
    world.hub.post(7, Frame("a"))
    away = world.line(7)
    away.of.send(Frame("a"))
    away.of.post(Frame("a"))
    world.until(lambda: away.of.joined, "node 7")
    world.rounds(10)
    assert world.leader.heard("a") == away.heard("a") == []


def test_a_hello_that_is_too_long_shows_where_it_is_made(world: World) -> None:
    with pytest.raises(AssertionError, match="a hello of"):
        world.line(1, text="x" * 4096)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_addresses_of_the_newer_kind_serve_as_well(world: World) -> None:
    leader = world.end(Hub("::1", 0, world.token, {"run": "six"}))
    assert isinstance(leader.of, Hub)
    there = Address(*leader.of.address, world.token)
    member = world.line(1, lambda: there)
    world.until(lambda: leader.seen(Joined), "member")
    world.until(lambda: member.of.joined, "leader")
    assert member.events == [Joined(0, {"run": "six"})]


def test_a_line_waits_until_it_is_known_where_the_leader_is(world: World) -> None:
    known: list[bool] = []
    member = world.line(1, lambda: world.address if known else None)
    world.skip(2.0)
    assert member.events == []
    assert member.of.trouble == "it is not known where the leader is"
    known.append(True)
    world.skip(0.5)
    world.until(lambda: member.of.joined, "node 1")
    assert member.of.trouble is None


def test_a_leader_that_is_not_there_yet_is_tried_again(world: World) -> None:
    reserved = socket.create_server(("127.0.0.1", 0))
    nobody = Address("127.0.0.1", reserved.getsockname()[1], world.token)
    reserved.close()
    asked: list[float] = []
    member = world.line(1, lambda: asked.append(world.now_s) or (nobody if len(asked) < 4 else world.address))
    world.skip(2.0)
    world.until(lambda: member.of.joined, "node 1")
    assert len(asked) == 4
    assert min(b - a for a, b in pairwise(asked)) >= 0.3


@pytest.mark.parametrize("host", ["127.0.0.1", "fe80::7%nosuch0"])
def test_a_line_says_why_it_does_not_reach_its_leader(world: World, host: str) -> None:
    reserved = socket.create_server(("127.0.0.1", 0))
    port = reserved.getsockname()[1]
    reserved.close()
    member = world.line(1, lambda: Address(host, port, world.token))
    trouble = world.until(lambda: member.of.trouble, "trouble")
    assert trouble.startswith(f"the leader at {host}:{port} cannot be reached: ")
    assert member.events == []


def test_a_dropped_member_is_told_why_and_is_no_loss(world: World) -> None:
    member = world.member(1)
    world.hub.send(1, Frame("last words"))
    world.hub.drop(1, "the run has moved on")
    assert set(world.hub.nodes) == set()
    world.until(lambda: member.seen(Refused), "refusal")
    assert member.heard("last words") == [Frame("last words")]
    assert member.seen(Refused) == [Refused("the run has moved on", {})]
    assert member.seen(Lost) == world.leader.seen(Lost) == []
    assert not member.of.joined


def test_another_version_is_refused_with_both_named(world: World) -> None:
    said = hello(world.token, {"node": 1}, "instance", "nonce", version=VERSION + 1)
    stranger = world.stranger(encode(said))
    (asked,) = frames_from(stranger, world)
    nonce = read_challenge(world.token, said.fields["proof"], asked)
    assert nonce is not None
    stranger.sendall(encode(answer(world.token, said.fields["proof"], nonce)))
    (refused,) = frames_from(stranger, world)
    assert refused.kind == "refused"
    assert refused.fields["fields"] == {"leader": VERSION, "member": VERSION + 1}
    assert refused.fields["reason"] == "the leader speaks version 1 of the link, this member version 2"
    assert world.leader.events == []


def test_a_node_that_is_there_keeps_its_place_and_the_refusal_is_told_once(world: World) -> None:
    first, second = world.member(1), world.line(1)
    world.until(lambda: second.seen(Refused), "refusal")
    world.skip(3.0)
    assert second.seen(Refused) == [Refused("node 1 is there already, as another process", {})]
    assert first.of.joined
    assert not second.of.joined
    first.of.close()
    world.ends.remove(first)
    world.until(lambda: world.leader.seen(Lost), "loss")
    world.skip(1.0)
    world.until(lambda: second.of.joined, "the second")
    assert [type(event) for event in world.leader.events] == [Joined, Lost, Joined]


def test_the_same_process_takes_its_own_place_again_without_a_loss(world: World) -> None:
    member = world.member(1)
    line = member.of
    assert isinstance(line, Line)
    instance = line._instance
    said = hello(world.token, {"node": 1, "again": True}, instance, "nonce")
    stranger = world.stranger(encode(said))
    (asked,) = frames_from(stranger, world)
    nonce = read_challenge(world.token, said.fields["proof"], asked)
    assert nonce is not None
    stranger.sendall(encode(answer(world.token, said.fields["proof"], nonce)) + encode(Frame("state", {"n": 1})))
    world.until(lambda: world.leader.heard("state"), "state from the new connection")
    assert world.leader.events[:2] == [Joined(1, {"node": 1}), Joined(1, {"node": 1, "again": True})]
    assert world.leader.seen(Lost) == []


def test_another_process_takes_a_place_that_has_been_silent(world: World) -> None:
    world.member(1).stopped = True
    world.leader.stopped = True
    second = world.line(1)
    for _ in range(20):
        world.pump()  # connects, and says hello
    world.now_s += 4.1
    world.leader.stopped = False
    world.until(lambda: world.leader.seen(Lost), "loss")
    world.skip(1.0)
    world.until(lambda: second.of.joined, "the second")
    assert [type(event) for event in world.leader.events] == [Joined, Lost, Joined]


def test_a_line_with_another_token_is_not_answered_and_says_what_may_be_wrong(world: World) -> None:
    wrong = Address(world.address.host, world.address.port, b"x" * 32)
    member = world.line(1, lambda: wrong)
    trouble = world.until(lambda: member.of.trouble, "trouble")
    assert trouble == "whoever listens there hung up on our hello; has it the same token?"
    assert world.leader.events == member.events == []


def test_whoever_does_not_prove_the_token_is_no_leader(world: World) -> None:
    impostor = socket.create_server(("127.0.0.1", 0))
    world.sockets.append(impostor)
    there = Address(*impostor.getsockname(), world.token)
    for said in (
        Frame("welcome", {"fields": {}}),
        Frame("refused", {"reason": "no"}),
        Frame("challenge", {"nonce": "a"}),
    ):
        member = world.line(1, lambda: there)
        world.pump()
        connection = impostor.accept()[0]
        world.sockets.append(connection)
        connection.sendall(encode(said))
        world.until(lambda member=member: member.of.trouble, "trouble")
        assert member.of.trouble == "whoever answers there does not have the leader's token"
        assert member.events == []
        member.stopped = True


@pytest.mark.parametrize("kind", ["beat", "refused", "welcome", "hello"])
def test_the_links_own_words_are_not_for_others(world: World, kind: str) -> None:
    member = world.member(1)
    for say in (member.of.send, member.of.post, lambda frame: world.hub.send(1, frame)):
        with pytest.raises(AssertionError, match="own word"):
            say(Frame(kind))


def test_who_does_not_take_what_it_is_sent_is_lost(world: World) -> None:
    member = world.member(1)
    member.stopped = True
    sent = 0
    while not world.leader.seen(Lost) and sent < 100:
        world.hub.send(1, Frame("log", {}, bytes(1 << 20)))
        world.pump()
        sent += 1
    assert world.leader.seen(Lost) == [Lost(1, "it does not take what it is sent: 8 MiB wait")]
    assert 8 < sent < 40  # the kernel holds some of it


def test_posts_to_one_that_does_not_read_take_no_room(world: World) -> None:
    member = world.member(1)
    member.stopped = True
    for n in range(60):
        world.hub.post(1, Frame("plan", {"n": n}, bytes(1 << 20)))
        world.pump()
    assert world.leader.seen(Lost) == []
    member.stopped = False
    world.until(lambda: [f for f in member.heard("plan") if f.fields["n"] == 59], "the newest post")
    assert len(member.heard("plan")) < 40


@pytest.mark.parametrize("unread", [False, True], ids=["read", "with something unread"])
def test_last_words_arrive_although_the_hub_is_closed_at_once(world: World, unread: bool) -> None:
    members = [world.member(node) for node in range(1, 4)]
    for node, member in enumerate(members, 1):
        member.stopped = True
        if unread:
            member.of.send(Frame("state", {}, bytes(1000)))
            member.of.pump(world.now_s)  # lies in the hub's kernel, so closing resets the connection
        world.hub.send(node, Frame("leave", {}, bytes(30_000)))
    world.hub.flush(5.0)
    world.leader.stopped = True
    world.ends.remove(world.leader)
    world.hub.close()
    for member in members:
        member.stopped = False
        world.until(lambda member=member: member.seen(Lost), "the end")
        assert len(member.heard("leave")) == 1


def test_last_words_of_a_member_arrive_too(world: World) -> None:
    member = world.member(1)
    member.of.send(Frame("ended", {}, bytes(30_000)))
    assert isinstance(member.of, Line)
    member.of.flush(5.0)
    world.ends.remove(member)
    member.of.close()
    world.until(lambda: world.leader.seen(Lost), "the end")
    assert [type(event) for event in world.leader.events] == [Joined, Heard, Lost]
    assert world.leader.seen(Lost) == [Lost(1, "the connection ended")]


def test_a_flush_to_one_that_does_not_read_gives_up(world: World) -> None:
    member: End = world.member(1)
    member.stopped = True
    for _ in range(7):
        world.hub.send(1, Frame("log", {}, bytes(1 << 20)))
    world.hub.flush(0.2)
    assert world.leader.seen(Lost) == []
