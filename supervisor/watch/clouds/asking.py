"""One question to a metadata service, and what came of it within a time.

Never through a proxy: a metadata address means this machine, and another one's answer would be worse than
none. The time limit is one for connecting, sending and reading together: a server may accept and never answer,
or send a byte a second. What it does not limit is the look-up of a name, which no default needs.
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

#: More than this is no answer [bytes]. Azure's list for a scale set of 1,000 machines has some 200 kB.
LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where a service listens."""

    host: str
    port: int = 80

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 80 else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service said.

    Attributes:
        status: HTTP's.
        headers: names in lower case.
        body: as it came.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", errors="replace").strip()


@dataclass(frozen=True, slots=True)
class Unclear:
    """No answer, or one that tells nothing.

    Attributes:
        reason: in words.
    """

    reason: str


def ask(
    place: Place,
    method: str,
    path: str,
    headers: Mapping[str, str],
    *,
    limit_s: float,
    body: bytes = b"",
) -> Answer | Unclear:
    """Ask once.

    Args:
        place: whom.
        method: `GET`, `PUT` or `POST`.
        path: with its query.
        headers: besides those that every request has.
        limit_s: for all of it [s].
        body: to send.
    """
    from http.client import HTTPException, HTTPResponse  # 6 ms and 1 MB that only machines in a cloud need

    lines = [f"{method} {path} HTTP/1.1", f"Host: {place}", "Connection: close", "Accept: */*"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if method != "GET":
        lines.append(f"Content-Length: {len(body)}")
    until_s = time.monotonic() + limit_s
    try:
        with socket.create_connection((place.host, place.port), timeout=limit_s) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
            response = HTTPResponse(cast("socket.socket", _Limited(connection, until_s)), method=method)
            response.begin()
            told = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, told, response.read())
    except TimeoutError:
        return Unclear(f"no answer from {place} within {limit_s:g} s")
    except OSError as error:
        return Unclear(f"{place}: {error.strerror or error}")
    except (HTTPException, ValueError) as error:
        return Unclear(f"{place} does not speak HTTP: {type(error).__name__}")


class _Limited:
    """What `HTTPResponse` reads from instead of a socket."""

    def __init__(self, connection: socket.socket, until_s: float) -> None:
        self._connection, self._until_s = connection, until_s

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self._connection, self._until_s))


class _Incoming(io.RawIOBase):
    """Bytes of a socket, until a moment, and not more than an answer may have."""

    def __init__(self, connection: socket.socket, until_s: float) -> None:
        self._connection, self._until_s, self._bytes = connection, until_s, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any writable buffer in truth
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._connection.settimeout(left_s)
        count = self._connection.recv_into(buffer)
        self._bytes += count
        if self._bytes > LIMIT_BYTES:
            raise OSError(f"answered with more than {LIMIT_BYTES >> 20} MiB")
        return count
