"""The leader's side: who has joined, what they say, and who is gone.

Rule 1: nothing here waits. `pump` takes what has come, writes what can leave, and returns.
Rule 2: whoever has not proved the token gets no byte, little memory, and little time.
Rule 3: a member is there until its connection ends or it is silent; silence counts from the
last byte that was read, so a leader that was busy reads first and judges then.

`pump` wants to be called when `fd` is readable, and at least every `PUMP_S`.
"""

from __future__ import annotations

import os
import secrets
import select
from collections.abc import KeysView, Mapping
from dataclasses import dataclass
from typing import Any

from supervisor.link.door import Door
from supervisor.link.events import Event, Heard, Joined, Lost
from supervisor.link.handshake import OWN_KINDS, Hello, answered, challenge, read_hello
from supervisor.link.stream import Stream, settle
from supervisor.link.wire import HEAD_LIMIT, VERSION, Frame, encode

#: Silence after which the other end is lost [s]; a member beats every second (`line.HEARTBEAT_S`).
PATIENCE_S = 4.0

#: How often `pump` has to be called for that to be noticed in time [s].
PUMP_S = 0.25

#: How long a connection may take to prove the token [s], and how many may be about it at a time.
PROVE_S = 5.0
UNPROVED_MOST = 64

#: With as many as that, how long the oldest of them is left alone nevertheless [s]. A thousand
#: members that join at once wait in the kernel's queue; 64 that say nothing do not keep them out.
_CROWD_S = 0.5

#: How long one that was refused has to read why [s].
_PARTING_S = 1.0

_READ = select.EPOLLIN
_WRITE = select.EPOLLOUT


@dataclass(slots=True, eq=False)
class _Peer:
    """Whoever has connected.

    Attributes:
        since_s: when it connected; once it is refused, since then.
        hello: what it said about itself, if the proof was right.
        nonce: that it has to answer.
        node: once it has joined.
        parting: it was refused, and only reads what is left.
        blocked: the kernel takes no more for now; epoll says when.
    """

    stream: Stream
    since_s: float
    hello: Hello | None = None
    nonce: str = ""
    node: int | None = None
    parting: bool = False
    blocked: bool = False


class Hub:
    """Listens for members, and talks with them.

    Attributes:
        address: where it listens: a number and a port.
        fd: readable when `pump` has something to do; for `select`.
    """

    def __init__(self, host: str, port: int, token: bytes, welcome: Mapping[str, Any]) -> None:
        """Listen.

        Args:
            host: the address to listen on, and no other.
            port: 0 for any.
            token: that members prove.
            welcome: what each is told when it joins.

        Raises:
            OSError: that address cannot be listened on.
        """
        self._token = token
        self._welcome = Frame("welcome", {"fields": dict(welcome)})
        encode(self._welcome)
        self._door = Door(host, port)
        self.address = self._door.address
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self.fd = self._epoll.fileno()
        self._epoll.register(self._bell, _READ)
        self._epoll.register(self._door.fd, _READ)
        self._open = True  # whether the door is watched
        self._peers: dict[int, _Peer] = {}  # everybody, by descriptor
        self._unproved: dict[int, _Peer] = {}  # by descriptor, oldest first
        self._parting: dict[int, _Peer] = {}
        self._members: dict[int, _Peer] = {}  # by node
        self._changed: set[_Peer] = set()  # to be written to, or found to have ended
        self._look_s = 0.0  # when to look for silences again
        self._now_s = 0.0  # of the last pump

    @property
    def nodes(self) -> KeysView[int]:
        """The nodes that have joined and are not lost; a live view."""
        return self._members.keys()

    def send(self, node: int, frame: Frame) -> None:
        """Queue a frame; one to a node that is not there is dropped.

        Raises:
            WireError: it is too large.
        """
        self._put(node, frame, replacing=False)

    def post(self, node: int, frame: Frame) -> None:
        """Queue a frame in place of an older one of its kind that has not left yet.

        Raises:
            WireError: it is too large.
        """
        self._put(node, frame, replacing=True)

    def _put(self, node: int, frame: Frame, *, replacing: bool) -> None:
        assert frame.kind not in OWN_KINDS, f"{frame.kind!r} is the link's own word"
        peer = self._members.get(node)
        if peer is not None:
            peer.stream.put(frame, replacing=replacing)
            self._note(peer)

    def _note(self, peer: _Peer) -> None:
        """See to it that the next pump looks at this one, and that it comes."""
        if not self._changed:
            os.eventfd_write(self._bell, 1)
        self._changed.add(peer)

    def drop(self, node: int, reason: str) -> None:
        """Refuse a member from now on to its next try; it is told why, and no loss is reported."""
        peer = self._members.pop(node, None)
        if peer is not None:
            self._refuse(peer, reason)

    def pump(self, now_s: float) -> list[Event]:
        """Read, write, let in, and find who is silent.

        Args:
            now_s: monotonic time [s].

        Returns:
            What happened, in order.
        """
        self._now_s = now_s
        events: list[Event] = []
        at_the_door = False
        for fd, mask in self._epoll.poll(0, len(self._peers) + 2):
            peer = self._peers.get(fd)
            if peer is not None:
                if mask != _WRITE:
                    self._read(peer, events)
                if mask & _WRITE:
                    self._changed.add(peer)
            elif fd == self._bell:
                os.eventfd_read(fd)
            elif fd == self._door.fd:
                at_the_door = True
        if at_the_door:
            self._let_in()
        if now_s >= self._look_s:
            self._look_s = now_s + PUMP_S
            self._look(events)
        self._write(events)
        self._watch_door()
        return events

    def flush(self, patience_s: float) -> None:
        """Before an exit: wait until what is queued has arrived at the members' machines, or the patience is over."""
        settle([peer.stream for peer in self._peers.values()], patience_s)

    def close(self) -> None:
        """Hang up and stop listening. Whoever wants the last words to arrive flushes first."""
        for peer in list(self._peers.values()):
            self._forget(peer)
        self._door.close()
        os.close(self._bell)
        self._epoll.close()

    # Reading.

    def _read(self, peer: _Peer, events: list[Event]) -> None:
        stream = peer.stream
        for frame in stream.read(self._now_s):
            if peer.parting or stream.closed:
                break
            if peer.node is None:
                self._prove(peer, frame, events)
            elif frame.kind == "beat":
                stream.put(frame, replacing=True)
                self._changed.add(peer)
            elif frame.kind not in OWN_KINDS:
                events.append(Heard(peer.node, frame))
        if stream.ended:
            self._changed.add(peer)

    def _prove(self, peer: _Peer, frame: Frame, events: list[Event]) -> None:
        if peer.hello is None:
            peer.hello = read_hello(self._token, frame)
            if peer.hello is None:
                self._forget(peer)
                return
            peer.nonce = secrets.token_hex(16)
            peer.stream.put(challenge(self._token, peer.hello.proof, peer.nonce))
            self._changed.add(peer)
        elif answered(self._token, peer.hello.proof, peer.nonce, frame):
            self._admit(peer, peer.hello, events)
        else:
            self._forget(peer)

    def _admit(self, peer: _Peer, said: Hello, events: list[Event]) -> None:
        """A member has proved who it is: take it in, unless it speaks otherwise or its place is taken."""
        del self._unproved[peer.stream.fd]
        if said.version != VERSION:
            self._refuse(
                peer,
                f"the leader speaks version {VERSION} of the link, this member version {said.version}",
                leader=VERSION,
                member=said.version,
            )
            return
        before = self._members.get(said.node)
        if before is not None and before.hello is not None:
            if before.hello.instance != said.instance:
                if self._now_s - before.stream.heard_s <= PATIENCE_S:
                    self._refuse(peer, f"node {said.node} is there already, as another process")
                    return
                events.append(Lost(said.node, "another process took its place"))
            self._forget(before)
        peer.node = said.node
        peer.stream.decoder.limit = HEAD_LIMIT
        peer.stream.put(self._welcome)
        self._changed.add(peer)
        self._members[said.node] = peer
        events.append(Joined(said.node, said.fields))

    def _refuse(self, peer: _Peer, reason: str, **fields: Any) -> None:
        peer.stream.put(Frame("refused", {"reason": reason, "fields": fields}))
        peer.parting, peer.since_s = True, self._now_s
        self._parting[peer.stream.fd] = peer
        self._note(peer)

    # Letting in.

    def _let_in(self) -> None:
        while self._room() and (connection := self._door.open()) is not None:
            if len(self._unproved) >= UNPROVED_MOST:
                self._forget(next(iter(self._unproved.values())))
            peer = _Peer(Stream(connection, self._now_s), self._now_s)
            self._peers[peer.stream.fd] = self._unproved[peer.stream.fd] = peer
            self._epoll.register(peer.stream.fd, _READ)

    def _room(self) -> bool:
        if len(self._unproved) < UNPROVED_MOST:
            return True
        return self._now_s - next(iter(self._unproved.values())).since_s >= _CROWD_S

    def _watch_door(self) -> None:
        """Look at the door only while somebody could be let in, or `fd` would be readable for nothing."""
        wanted = self._room() and not self._door.shut(self._now_s)
        if wanted != self._open:
            self._epoll.modify(self._door.fd, _READ if wanted else 0)
            self._open = wanted

    # Writing, and looking for silences.

    def _write(self, events: list[Event]) -> None:
        for peer in self._changed:
            stream = peer.stream
            if stream.closed:
                continue
            if not stream.ended:
                stream.write()
            if peer.parting and not stream.waits:
                stream.finish()
            if stream.ended:
                self._lose(peer, stream.ended, events)
            elif stream.waits != peer.blocked:
                peer.blocked = stream.waits
                self._epoll.modify(stream.fd, _READ | _WRITE if peer.blocked else _READ)
        self._changed.clear()

    def _look(self, events: list[Event]) -> None:
        now_s = self._now_s
        silent = [peer for peer in self._members.values() if now_s - peer.stream.heard_s > PATIENCE_S]
        for peer in silent:
            self._lose(peer, f"silent for {PATIENCE_S} s", events)
        for peers, limit_s in ((self._unproved, PROVE_S), (self._parting, _PARTING_S)):
            for peer in [peer for peer in peers.values() if now_s - peer.since_s > limit_s]:
                self._forget(peer)

    def _lose(self, peer: _Peer, reason: str, events: list[Event]) -> None:
        if peer.node is not None and not peer.parting:
            events.append(Lost(peer.node, reason))
        self._forget(peer)

    def _forget(self, peer: _Peer) -> None:
        fd = peer.stream.fd
        # Unregistered first: a child that was just forked may hold a copy, and epoll would go on reporting it.
        self._epoll.unregister(fd)
        peer.stream.close()
        for peers in (self._peers, self._unproved, self._parting):
            peers.pop(fd, None)
        if peer.node is not None and self._members.get(peer.node) is peer:
            del self._members[peer.node]
