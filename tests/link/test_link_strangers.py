"""A port scan, a fuzzer, and whoever has no token: the hub lives on, members notice nothing, nobody gets a byte."""

from __future__ import annotations

import random
import resource
import socket
import subprocess
import sys
import time

import pytest
from link_ends import World, frames_from, got
from link_flaws import FLAWED

from supervisor.link.address import Address
from supervisor.link.events import Heard, Joined, Lost
from supervisor.link.handshake import answer, hello, read_challenge
from supervisor.link.hub import UNPROVED_MOST
from supervisor.link.wire import UNPROVED_LIMIT, Frame, encode

TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(190))
SSH = b"SSH-2.0-OpenSSH_9.6\r\n"

#: What ends a connection at once; none of it proves anything.
SAID = {
    **FLAWED,
    "tls": TLS_HELLO + b"\n" + bytes(5000),
    "ssh": SSH,
    "zeroes": bytes(100_000),
    "a frame of another kind": encode(Frame("state", {"step": 1})),
    "a beat": encode(Frame("beat", {"n": 1})),
    "an answer before the question": encode(Frame("answer", {"proof": "a" * 64})),
    "a hello without a proof": encode(Frame("hello", {"version": 1, "node": 1})),
    "a hello of another token": encode(hello(b"x" * 32, {"node": 1}, "instance", "nonce")),
    "a hello with a body too large": b'{"kind":"hello","proof":"a","body":4097}\n',
}


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
def test_who_proves_nothing_is_hung_up_on_without_a_byte(world: World, said: bytes) -> None:
    member = world.member(1)
    assert got(world.stranger(said), world) == b""
    member.of.send(Frame("still here"))
    world.until(lambda: world.leader.heard("still here"), "the member's word")
    assert world.leader.seen(Joined) == [Joined(1, {"node": 1})]
    assert world.leader.seen(Lost) == member.seen(Lost) == []


def test_random_bytes_from_a_thousand_connections_change_nothing(world: World) -> None:
    member, rng = world.member(1), random.Random(7)
    right = encode(hello(world.token, {"node": 1}, "instance", "nonce"))
    for n in range(1000):
        said = rng.randbytes(rng.randrange(300))
        if n % 3 == 1:  # a right hello with a byte changed, which is nearer to the goal than noise
            flawed = bytearray(right)
            flawed[rng.randrange(len(flawed))] ^= 1 << rng.randrange(8)
            said = bytes(flawed[: rng.randrange(len(flawed) + 1)])
        stranger = world.stranger(said)
        world.pump()
        if n % 2:
            stranger.close()
    world.rounds(100)
    member.of.send(Frame("still here"))
    world.until(lambda: world.leader.heard("still here"), "the member's word")
    assert world.leader.seen(Joined) == [Joined(1, {"node": 1})]
    assert member.seen(Lost) == []
    for stranger in world.sockets:
        if stranger.fileno() >= 0:
            stranger.setblocking(False)
            try:
                assert stranger.recv(1) == b""
            except (BlockingIOError, ConnectionError):
                pass  # it waits for more, or was hung up on with something unread


def joined_as(world: World, node: int) -> socket.socket:
    """A socket that is through with the handshake, and may now say anything."""
    said = hello(world.token, {"node": node}, "instance", "nonce")
    stranger = world.stranger(encode(said))
    (asked,) = frames_from(stranger, world)
    nonce = read_challenge(world.token, said.fields["proof"], asked)
    assert nonce is not None
    stranger.sendall(encode(answer(world.token, said.fields["proof"], nonce)))
    assert frames_from(stranger, world)[0].kind == "welcome"
    return stranger


@pytest.mark.parametrize(
    "said", [said for said in FLAWED.values() if len(said) < UNPROVED_LIMIT and said[-1:] == b"\n"]
)
def test_a_member_that_goes_mad_is_lost_and_nobody_else(world: World, said: bytes) -> None:
    member, mad = world.member(1), joined_as(world, 2)
    if b"4097" in said:  # which a member may send
        said = said.replace(b"4097", b"1048577")
    mad.sendall(said)
    (lost,) = world.until(lambda: world.leader.seen(Lost), "loss")
    assert lost.node == 2
    assert lost.reason.startswith("it does not speak our language: ")
    assert member.of.joined


def test_a_member_that_says_what_only_the_link_says_changes_nothing(world: World) -> None:
    member = joined_as(world, 2)
    for frame in (hello(world.token, {"node": 3}, "x", "y"), Frame("welcome"), Frame("refused"), Frame("answer")):
        member.sendall(encode(frame))
    member.sendall(encode(Frame("state", {"step": 1})))
    world.until(lambda: world.leader.heard("state"), "state")
    assert [event for event in world.leader.events if not isinstance(event, Joined)] == [
        Heard(2, Frame("state", {"step": 1}))
    ]
    assert set(world.hub.nodes) == {2}


def test_who_says_nothing_has_five_seconds(world: World) -> None:
    silent, half = world.stranger(), world.stranger(b'{"kind":"hel')
    world.rounds(10)
    world.skip(4.5)
    for connection in (silent, half):
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)
    world.skip(1.0)
    assert got(silent, world) == got(half, world) == b""


def test_who_speaks_slowly_has_no_more_time(world: World) -> None:
    slow = world.stranger()
    world.rounds(5)
    for _ in range(25):
        try:
            slow.sendall(b" ")
        except ConnectionError:
            return
        world.skip(0.25)
    assert got(slow, world) == b""


def test_a_recorded_hello_gets_a_question_that_it_cannot_answer(world: World) -> None:
    recorded = encode(hello(world.token, {"node": 1}, "instance", "nonce"))
    for reply in (recorded, encode(Frame("answer", {"proof": "a" * 64})), encode(Frame("state", {"step": 1}))):
        stranger = world.stranger(recorded)
        (asked,) = frames_from(stranger, world)
        assert asked.kind == "challenge"
        assert asked.fields.keys() == {"nonce", "proof"}
        stranger.sendall(reply)
        assert got(stranger, world) == b""
    assert world.leader.events == []


def test_a_recorded_hello_does_not_take_its_members_place(world: World) -> None:
    member = world.member(1)
    recorded = encode(hello(world.token, {"node": 1}, member.of._instance, "nonce"))
    world.stranger(recorded)
    world.skip(6.0)
    assert world.leader.events == [Joined(1, {"node": 1})]
    assert member.of.joined


def test_more_of_them_than_allowed_push_the_oldest_out(world: World) -> None:
    crowd = [world.stranger() for _ in range(UNPROVED_MOST)]
    world.rounds(UNPROVED_MOST)
    late = world.stranger()
    world.skip(0.75)
    assert got(crowd[0], world) == b""
    for connection in (crowd[1], late):
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)


def test_a_member_gets_through_a_crowd_that_says_nothing(world: World) -> None:
    for _ in range(3 * UNPROVED_MOST):
        world.stranger()
    member = world.line(1)
    world.rounds(50)
    for _ in range(40):
        world.skip(0.25)
        if member.of.joined:
            break
    assert member.of.joined
    assert member.seen(Joined) == [Joined(0, {"run": "r"})]


def test_two_hundred_members_join_at_once_and_none_is_pushed_out(world: World) -> None:
    """More than may be unproved at a time: the rest waits in the kernel's queue."""
    tries: list[int] = []
    members = [world.line(n, lambda n=n: tries.append(n) or world.address) for n in range(1, 201)]
    world.until(lambda: all(member.of.joined for member in members), "all members")
    assert len(world.leader.seen(Joined)) == 200
    assert sorted(tries) == list(range(1, 201))


def test_memory_before_the_proof_is_little(world: World) -> None:
    """Whoever sends on and on is hung up on after one piece."""
    flood = world.stranger()
    flood.settimeout(60.0)
    sent = 0
    try:
        while sent < 100 << 20:
            world.pump()
            sent += flood.send(bytes(UNPROVED_LIMIT))
    except ConnectionError:
        pass
    assert sent < 10 << 20


MANY = """
import os, resource, select, sys, time
from supervisor.link.hub import Hub
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), min(hard, int(sys.argv[2]))))
hub = Hub("127.0.0.1", 0, bytes.fromhex(sys.argv[3]), {})
print(hub.address[1], flush=True)
joined, left_s = 0, time.monotonic() + 60
while joined < int(sys.argv[4]) and time.monotonic() < left_s:
    select.select([hub.fd], [], [], 0.25)
    joined += len([e for e in hub.pump(time.monotonic()) if type(e).__name__ == "Joined"])
low = os.open("/", os.O_RDONLY)
print(joined, len(hub.nodes), low < 1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)
"""


def many(world: World, soft: int, hard: int, members: int) -> list[str]:
    command = [sys.executable, "-c", MANY, str(soft), str(hard), world.token.hex(), str(members)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        there = Address("127.0.0.1", int(process.stdout.readline()), world.token)
        for node in range(1, members + 1):
            world.line(node, lambda: there)
        world.until(lambda: process.poll() is not None, "end of the hub")
        return process.stdout.read().split()


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 8000, reason="few descriptors allowed here")
def test_more_members_than_select_can_count_join_and_low_descriptors_stay_free(world: World) -> None:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (8000, soft[1]))
    try:
        joined, there, low, limit = many(world, 1024, 20_000, 1100)
    finally:
        world.close()
        world.ends.clear()
        resource.setrlimit(resource.RLIMIT_NOFILE, soft)
    assert (joined, there, low) == ("1100", "1100", "True")
    assert int(limit) > 1024


FEW = """
import os, resource, select, sys, time
from supervisor.link.hub import Hub
hub = Hub("127.0.0.1", 0, bytes.fromhex(sys.argv[1]), {})
free = os.dup(0)
os.close(free)
resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, free + 1))
print(hub.address[1], flush=True)
pumps, joined = 0, []
while len(joined) < 2:
    select.select([hub.fd], [], [], 0.25)
    pumps += 1
    for event in hub.pump(time.monotonic()):
        print(type(event).__name__, event.node, pumps, flush=True)
        joined += [event] if type(event).__name__ == "Joined" else []
"""


def test_a_hub_out_of_descriptors_neither_ends_nor_spins(world: World) -> None:
    """One member fits; the next is let in when the first has left."""
    command = [sys.executable, "-c", FEW, world.token.hex()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        there = Address("127.0.0.1", int(process.stdout.readline()), world.token)
        first = world.line(1, lambda: there)
        world.until(lambda: first.of.joined, "the first")
        second, began_s = world.line(2, lambda: there), time.monotonic()
        world.until(lambda: time.monotonic() > began_s + 1.5, "a while")
        assert not second.of.joined
        first.of.close()
        world.ends.remove(first)
        world.until(lambda: second.of.joined, "the second")
        told = [line.split() for line in process.stdout]
    assert [line[:2] for line in told] == [["Joined", "1"], ["Lost", "1"], ["Joined", "2"]]
    assert int(told[-1][2]) < 100, "it was pumped for nothing"
