"""A member's side: connects to the leader, stays connected, and says when it cannot.

Rule 1: nothing here waits; connecting does not either.
Rule 2: the leader is believed only once it has proved the token for this very connection.
Rule 3: what was queued does not outlive its connection. Whoever hears `Joined` says anew what
still holds.

`pump` wants to be called when `fd` is readable, and at least every `hub.PUMP_S`.
"""

from __future__ import annotations

import errno
import os
import secrets
import select
import socket
import uuid
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any

from supervisor.link.address import Address
from supervisor.link.events import Event, Heard, Joined, Lost, Refused
from supervisor.link.handshake import OWN_KINDS, answer, hello, read_challenge
from supervisor.link.hub import PATIENCE_S
from supervisor.link.stream import ENDED, Stream, settle
from supervisor.link.wire import HEAD_LIMIT, Frame
from supervisor.owner import whole

#: How long a member says nothing, or hears nothing, before it beats [s].
HEARTBEAT_S = 1.0

#: Between two tries to connect [s], and how long one may take. The kernel repeats what opens a
#: connection after 1 s, then after 2 more: a new try comes sooner.
RETRY_S = 0.3
_CONNECT_S = 2.0


class _Phase(Enum):
    AWAY = auto()  # no connection
    CONNECTING = auto()
    CHALLENGED = auto()  # said hello; the leader has to prove the token
    ANSWERED = auto()  # proved; the leader has to say whether it wants us
    JOINED = auto()


class Line:
    """A member's connection to its leader.

    Attributes:
        fd: readable when `pump` has something to do; the same over all connections.
        trouble: why the last try came to nothing; None while there is none.
    """

    def __init__(self, where: Callable[[], Address | None], hello: Mapping[str, Any]) -> None:
        """Make it; `pump` connects.

        Args:
            where: the leader, asked at each try; None while that is not known.
            hello: what the leader is told; its `node` is this member's number.
        """
        self._where = where
        self._token = b""
        self._there = ""  # for messages
        assert whole(hello["node"]) is not None, f"node {hello['node']!r}"
        self._hello = dict(hello)
        self._instance = uuid.uuid4().hex
        self._say_hello()  # whether it is too long shows here
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self.fd = self._epoll.fileno()
        self._epoll.register(self._bell, select.EPOLLIN)
        self._rung = False
        self._mask = 0  # what epoll looks for on the connection
        self._phase = _Phase.AWAY
        self._stream: Stream | None = None
        self._proof = ""  # of our hello
        self._deadline_s = 0.0  # of a try
        self._next_try_s = 0.0
        self._heard_s: float | None = None
        self._sent_s = 0.0
        self._beat_s = 0.0
        self._beats = 0
        self._refusal: str | None = None
        self.trouble: str | None = None

    @property
    def joined(self) -> bool:
        """Whether the leader is there."""
        return self._phase is _Phase.JOINED

    def silent_s(self, now_s: float) -> float:
        """How long nothing was heard of the leader, or since the first pump if nothing ever was [s]."""
        return 0.0 if self._heard_s is None else now_s - self._heard_s

    @property
    def waiting_bytes(self) -> int:
        """How much of what was queued has not left."""
        return 0 if self._stream is None else self._stream.waiting_bytes

    def send(self, frame: Frame) -> None:
        """Queue a frame; dropped while the leader is not there.

        Raises:
            WireError: it is too large.
        """
        self._put(frame, replacing=False)

    def post(self, frame: Frame) -> None:
        """Queue a frame in place of an older one of its kind that has not left yet.

        Raises:
            WireError: it is too large.
        """
        self._put(frame, replacing=True)

    def _put(self, frame: Frame, *, replacing: bool) -> None:
        assert frame.kind not in OWN_KINDS, f"{frame.kind!r} is the link's own word"
        if self._stream is None or self._phase is not _Phase.JOINED:
            return
        self._stream.put(frame, replacing=replacing)
        if not self._rung:
            os.eventfd_write(self._bell, 1)
            self._rung = True

    def pump(self, now_s: float) -> list[Event]:
        """Connect, read, write, beat, and find out whether the leader is gone.

        Args:
            now_s: monotonic time [s].

        Returns:
            What happened, in order.
        """
        if self._heard_s is None:
            self._heard_s = now_s
        events: list[Event] = []
        for fd, mask in self._epoll.poll(0, 2):
            if fd == self._bell:
                os.eventfd_read(fd)
            elif self._phase is _Phase.CONNECTING:
                self._connected(now_s)
            elif mask != select.EPOLLOUT:
                self._read(now_s, events)
        if self._stream is not None:
            self._speak(now_s, events)
        if self._stream is None and now_s >= self._next_try_s:
            self._connect(now_s)
        self._rung = False
        return events

    def flush(self, patience_s: float) -> None:
        """Before an exit: wait until what is queued has arrived at the leader's machine, or the patience is over."""
        if self._stream is not None and self._phase is _Phase.JOINED:
            settle([self._stream], patience_s)

    def close(self) -> None:
        """Hang up, and connect no more. Whoever wants the last words to arrive flushes first."""
        self._hang_up()
        os.close(self._bell)
        self._epoll.close()

    # Connecting.

    def _connect(self, now_s: float) -> None:
        self._next_try_s = now_s + RETRY_S
        address = self._where()
        if address is None:
            self.trouble = "it is not known where the leader is"
            return
        self._there = f"{address.host}:{address.port}"
        try:
            # A number, so nothing is looked up and this does not block.
            family, kind, protocol, _, where = socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )[0]
            connection = socket.socket(family, kind, protocol)
            stream = self._stream = Stream(connection, now_s)
            code = connection.connect_ex(where)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
        except OSError as error:
            self._end(self._unreachable(error.strerror), [])
            return
        self._token, self._phase = address.token, _Phase.CONNECTING
        self._deadline_s = now_s + _CONNECT_S
        self._mask = select.EPOLLOUT
        self._epoll.register(stream.fd, self._mask)

    def _unreachable(self, why: str | None) -> str:
        return f"the leader at {self._there} cannot be reached: {why}"

    def _connected(self, now_s: float) -> None:
        """The kernel has an answer: say hello, or note why not."""
        stream = self._stream
        assert stream is not None
        code = stream.error()
        if code:
            stream.ended = self._unreachable(os.strerror(code))
            return
        said = self._say_hello()
        self._proof = said.fields["proof"]
        self._phase, self._deadline_s = _Phase.CHALLENGED, now_s + PATIENCE_S
        stream.put(said)

    def _say_hello(self) -> Frame:
        return hello(self._token, self._hello, self._instance, secrets.token_hex(16))

    # Reading.

    def _read(self, now_s: float, events: list[Event]) -> None:
        stream = self._stream
        assert stream is not None
        for frame in stream.read(now_s):
            if self._phase is _Phase.JOINED:
                self._hear(stream, frame, events)
            else:
                self._shake(stream, frame, now_s, events)
            if stream.ended:
                return
        if self._phase is _Phase.JOINED:
            self._heard_s = stream.heard_s

    def _hear(self, stream: Stream, frame: Frame, events: list[Event]) -> None:
        if frame.kind == "refused":
            self._refused(stream, frame, events)
        elif frame.kind not in OWN_KINDS:
            events.append(Heard(0, frame))

    def _shake(self, stream: Stream, frame: Frame, now_s: float, events: list[Event]) -> None:
        """A step of the handshake."""
        if self._phase is _Phase.CHALLENGED:
            nonce = read_challenge(self._token, self._proof, frame)
            if nonce is None:
                stream.ended = "whoever answers there does not have the leader's token"
                return
            stream.decoder.limit = HEAD_LIMIT
            stream.put(answer(self._token, self._proof, nonce))
            self._phase = _Phase.ANSWERED
        elif frame.kind == "refused":
            self._refused(stream, frame, events)
        elif frame.kind == "welcome":
            self._phase, self._refusal, self.trouble = _Phase.JOINED, None, None
            self._sent_s = self._beat_s = self._heard_s = now_s
            events.append(Joined(0, frame.fields.get("fields", {})))

    def _refused(self, stream: Stream, frame: Frame, events: list[Event]) -> None:
        reason = str(frame.fields.get("reason"))
        if reason != self._refusal or self._phase is _Phase.JOINED:
            events.append(Refused(reason, frame.fields.get("fields", {})))
        self._refusal, self._phase = reason, _Phase.ANSWERED  # no loss, should it have been joined
        self._next_try_s = max(self._next_try_s, stream.heard_s + RETRY_S)
        stream.ended = f"the leader refuses this member: {reason}"

    # Writing, and noticing that the leader is gone.

    def _speak(self, now_s: float, events: list[Event]) -> None:
        stream = self._stream
        assert stream is not None
        if self._phase is _Phase.JOINED:
            self._beat(stream, now_s)
            if now_s - stream.heard_s > PATIENCE_S:
                stream.ended = stream.ended or f"silent for {PATIENCE_S} s"
        elif now_s > self._deadline_s:
            stream.ended = stream.ended or self._unreachable("it does not answer")
        if not stream.ended and self._phase is not _Phase.CONNECTING:
            stream.write()
        if stream.ended:
            self._end(stream.ended, events)
        elif self._phase is not _Phase.CONNECTING:
            mask = select.EPOLLIN | (select.EPOLLOUT if stream.waits else 0)
            if mask != self._mask:
                self._epoll.modify(stream.fd, mask)
                self._mask = mask

    def _beat(self, stream: Stream, now_s: float) -> None:
        """Say something if nothing was said for a while, or ask for an answer if nothing was heard."""
        if stream.waits or self._rung:
            self._sent_s = now_s
        quiet_s = now_s - min(self._sent_s, stream.heard_s)
        if quiet_s >= HEARTBEAT_S and now_s - self._beat_s >= HEARTBEAT_S:
            self._beats += 1
            self._beat_s = self._sent_s = now_s
            stream.put(Frame("beat", {"n": self._beats}), replacing=True)

    def _end(self, reason: str, events: list[Event]) -> None:
        if self._phase is _Phase.JOINED:
            events.append(Lost(0, reason))
        if self._phase is _Phase.CHALLENGED and reason == ENDED:
            reason = "whoever listens there hung up on our hello; has it the same token?"
        self.trouble = reason
        self._hang_up()

    def _hang_up(self) -> None:
        if self._stream is not None:
            if self._phase is not _Phase.AWAY:
                self._epoll.unregister(self._stream.fd)
            self._stream.close()
        self._stream, self._phase = None, _Phase.AWAY
