"""One connection: bytes in and out without ever waiting, and a bounded queue in front of it."""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
import time
from collections.abc import Iterable
from itertools import count

from supervisor.link.wire import Decoder, Frame, WireError, encode

#: Bytes that may wait to leave. Who does not take them is lost: 1,000 states of 300 bytes are 0.3 MB.
OUT_LIMIT = 8 << 20

#: What a stream says when the other end, or its machine, has closed it.
ENDED = "the connection ended"

_CHUNK = 1 << 16  # bytes per system call, either way
_TICK_S = 0.01  # between two questions whether everything has arrived

#: What is set on a connection; an older kernel may not know all of it, and then it takes longer after a cut.
_OPTIONS: tuple[tuple[int, int | bytes], ...] = (
    (socket.TCP_NODELAY, 1),
    # TCP_THIN_LINEAR_TIMEOUTS (linux/tcp.h, since 2.6.34). What was not acknowledged is repeated every 0.2 s,
    # seven times, before it backs off; so a cut of 2 s is a silence of 3.6 s at most, and of 4.0 s without.
    (16, 1),
    # A stream is thin only once its slow-start threshold is finite (tcp_stream_is_thin), and BBR never sets one:
    # with it, measured on 6.18, the option above has no effect. Reno is in every kernel and open to everybody.
    (socket.TCP_CONGESTION, b"reno"),
    # TCP_RTO_MAX_MS (since 6.15): after that it never backs off beyond a second.
    (44, 1000),
    # TCP_USER_TIMEOUT [ms]: what a closed connection had left to say does not stay for a quarter of an hour.
    (18, 10_000),
)


class Outbox:
    """What waits to leave, in order.

    Attributes:
        waiting_bytes: how much that is.
    """

    __slots__ = ("_leaving", "_numbers", "_waiting", "waiting_bytes")

    def __init__(self) -> None:
        self.waiting_bytes = 0
        self._waiting: dict[int | str, bytes] = {}  # by number, or by the kind of what may be replaced
        self._leaving = memoryview(b"")  # begun, or about to be
        self._numbers = count()

    def put(self, data: bytes, kind: str | None = None) -> None:
        """Queue a frame's bytes; of those with the same ``kind``, only the newest waits, at the newest's place."""
        if kind is not None:
            self.waiting_bytes -= len(self._waiting.pop(kind, b""))
        self._waiting[next(self._numbers) if kind is None else kind] = data
        self.waiting_bytes += len(data)

    def next(self) -> memoryview:
        """The bytes to write now; empty if nothing waits. They are not replaced any more."""
        if not self._leaving and self._waiting:
            taken, size = [], 0
            while self._waiting and size < _CHUNK:
                taken.append(self._waiting.pop(next(iter(self._waiting))))
                size += len(taken[-1])
            self._leaving = memoryview(taken[0] if len(taken) == 1 else b"".join(taken))
        return self._leaving

    def left(self, size: int) -> None:
        """Note that so many of them were written."""
        self._leaving = self._leaving[size:]
        self.waiting_bytes -= size


class Stream:
    """A connected socket that carries frames; it never blocks, and it remembers how it ended.

    Attributes:
        fd: of the socket.
        decoder: of what comes in.
        ended: why nothing comes or goes any more; None while it does, and until all that has come is read.
        heard_s: when bytes came last, or when it was made [s, monotonic].
    """

    __slots__ = ("_failure", "_outbox", "_socket", "decoder", "ended", "fd", "heard_s")

    def __init__(self, connection: socket.socket, now_s: float) -> None:
        self._socket = connection
        self._outbox = Outbox()
        self._failure: str | None = None  # why nothing can be written any more
        self.fd = connection.fileno()
        self.decoder = Decoder()
        self.ended: str | None = None
        self.heard_s = now_s
        connection.setblocking(False)
        for option, value in _OPTIONS:
            try:
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
            except OSError:
                pass

    @property
    def waiting_bytes(self) -> int:
        """How much is left to write."""
        return self._outbox.waiting_bytes

    @property
    def waits(self) -> bool:
        """Whether something is left to write."""
        return self._outbox.waiting_bytes > 0

    def put(self, frame: Frame, *, replacing: bool = False) -> None:
        """Queue a frame; ``replacing`` those of its kind that have not left.

        Raises:
            WireError: it is too large for any connection.
        """
        data = encode(frame)
        if self._failure is None:
            self._outbox.put(data, frame.kind if replacing else None)
        if self._outbox.waiting_bytes > OUT_LIMIT:
            self.ended = self.ended or f"it does not take what it is sent: {OUT_LIMIT >> 20} MiB wait"

    def read(self, now_s: float) -> list[Frame]:
        """The frames that have come."""
        try:
            data = self._socket.recv(_CHUNK)
            if data:
                self.heard_s = now_s
                return self.decoder.feed(data)
            self.ended = self.ended or self._failure or ENDED
        except BlockingIOError:
            pass
        except OSError as error:
            self.ended = self.ended or self._failure or _reason(error)
        except WireError as error:
            self.ended = self.ended or f"it does not speak our language: {error}"
        return []

    def write(self) -> None:
        """Write what waits, as far as the kernel takes it.

        Where it cannot be written any more, the end comes only when all is read: whoever has left may
        have said why.
        """
        try:
            while data := self._outbox.next():
                self._outbox.left(self._socket.send(data))
        except BlockingIOError:
            pass
        except OSError as error:
            self._failure = _reason(error)
            self._outbox = Outbox()
            try:
                self._socket.shutdown(socket.SHUT_RDWR)  # so that reading surely comes to an end
            except OSError:
                pass

    def error(self) -> int:
        """How connecting came out: an error number, 0 if it is connected."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def finish(self) -> None:
        """Say that nothing more will be sent; the other end can still read what was."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.ended = self.ended or ENDED

    @property
    def closed(self) -> bool:
        """Whether this end has closed it."""
        return self._socket.fileno() < 0

    def close(self) -> None:
        """Close the socket. If something was not read, what has not arrived at the other end is lost."""
        self._socket.close()

    def arrived(self) -> bool:
        """Whether the other end's kernel has all that was queued, or never will; writes what it can.

        Source:
            SIOCOUTQ, tcp(7): bytes that were not acknowledged.
        """
        self.write()
        if self.ended or self._failure:
            return True
        unsent = fcntl.ioctl(self.fd, termios.TIOCOUTQ, struct.pack("i", 0))
        return not self.waits and struct.unpack("i", unsent)[0] == 0


def _reason(error: OSError) -> str:
    return ENDED if isinstance(error, ConnectionError) else f"the connection broke: {error.strerror}"


def settle(streams: Iterable[Stream], patience_s: float) -> None:
    """Wait until what is queued has arrived at the other ends' kernels, or the patience is over."""
    end_s, left = time.monotonic() + patience_s, list(streams)
    while (left := [stream for stream in left if not stream.arrived()]) and (wait_s := end_s - time.monotonic()) > 0:
        poll = select.poll()
        for stream in left:
            if stream.waits:
                poll.register(stream.fd, select.POLLOUT)
        poll.poll(1000 * min(wait_s, _TICK_S))
