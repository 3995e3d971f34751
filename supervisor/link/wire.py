"""Frames: one line of JSON, and raw bytes behind it.

Rule 1: whatever comes in, the answer is frames or a `WireError`, in bounded memory.
Rule 2: however a stream is split, it gives the same frames.

A number may be NaN or infinite, as Python's json writes it: both ends are ours, and a loss can
be either. What is not known is null, as everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Of everything that is said after the handshake; the handshake itself never changes.
VERSION = 1

#: Bytes of one line of JSON, and of the raw payload behind it.
HEAD_LIMIT = 1 << 20
BODY_LIMIT = 1 << 20

#: Bytes of either before the token was proved.
UNPROVED_LIMIT = 4096


_JSON = json.JSONEncoder(separators=(",", ":"))
_READ = json.JSONDecoder()


class WireError(Exception):
    """A frame is malformed or too large; on a connection, it is the end of it."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One thing said.

    Attributes:
        kind: what it is about.
        fields: what JSON can hold; neither `kind` nor `body` is a field's name.
        body: raw bytes that go with it.
    """

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    body: bytes = b""


def encode(frame: Frame) -> bytes:
    r"""A frame as it goes over the wire.

    Raises:
        WireError: it is larger than the other end would take.

    >>> encode(Frame("state", {"step": 7, "loss": float("nan")}, b"\0\n"))
    b'{"kind":"state","step":7,"loss":NaN,"body":2}\n\x00\n'
    """
    assert not {"kind", "body"} & frame.fields.keys(), "a field's name is taken by the frame itself"
    head: dict[str, Any] = {"kind": frame.kind, **frame.fields}
    if frame.body:
        head["body"] = len(frame.body)
    line = _JSON.encode(head).encode()  # ASCII, and no line end within
    if len(line) > HEAD_LIMIT or len(frame.body) > BODY_LIMIT:
        raise WireError(f"a frame {frame.kind!r} of {len(line)} and {len(frame.body)} bytes is too large")
    return line + b"\n" + frame.body


class Decoder:
    """Turns a stream of bytes into frames, piece by piece.

    Attributes:
        limit: bytes that a line, and a body, may have; raised once the other end is known.
    """

    __slots__ = ("_body_bytes", "_buffer", "_flawed", "_head", "_searched", "limit")

    def __init__(self, limit: int = UNPROVED_LIMIT) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._searched = 0  # bytes of the unfinished line that hold no line end
        self._head: dict[str, Any] | None = None  # of the frame whose body is awaited
        self._body_bytes = 0
        self._flawed = False

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next piece of the stream.

        Returns:
            The frames that it completes, in order.

        Raises:
            WireError: the stream is flawed here; nothing after it can be read.
        """
        if self._flawed:
            raise WireError("the stream was flawed before")
        try:
            self._buffer += data
            return self._frames()
        except WireError:
            self._flawed = True
            self._buffer.clear()
            raise

    def _frames(self) -> list[Frame]:
        buffer, frames, begin = self._buffer, [], 0
        while True:
            if self._head is None:
                end = buffer.find(b"\n", begin + self._searched, begin + self.limit + 1)
                if end < 0:
                    self._searched = len(buffer) - begin
                    break
                self._head = _head(buffer[begin:end])
                self._body_bytes = _body_bytes(self._head, self.limit)
                begin, self._searched = end + 1, 0
            end = begin + self._body_bytes
            if end > len(buffer):
                break
            frames.append(Frame(self._head.pop("kind"), self._head, bytes(buffer[begin:end])))
            begin, self._head = end, None
        del buffer[:begin]
        if self._searched > self.limit:
            raise WireError(f"a line is longer than {self.limit} bytes")
        return frames


def _head(line: bytearray) -> dict[str, Any]:
    try:
        head = _READ.decode(line.decode())
    except (ValueError, RecursionError) as error:  # not UTF-8, no JSON, a number of 5,000 digits, nested too deep
        raise WireError(f"a line is no JSON: {type(error).__name__}") from error
    if not isinstance(head, dict) or not isinstance(head.get("kind"), str):
        raise WireError("a line is no frame: it names no kind")
    return head


def _body_bytes(head: dict[str, Any], limit: int) -> int:
    """Bytes that follow the line; takes the number out of it."""
    told = head.pop("body", 0)
    if not isinstance(told, int) or isinstance(told, bool) or not 0 <= told <= min(limit, BODY_LIMIT):
        raise WireError(f"a body has {str(told)[:32]} bytes, and {min(limit, BODY_LIMIT)} are the limit")
    return told
