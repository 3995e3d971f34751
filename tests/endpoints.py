"""Real endpoints on this machine, for what is told to people: one that answers, and those that never end."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Sink:
    """A small HTTP server that keeps what it is told.

    Attributes:
        messages: bodies of what was posted, as JSON, with the path.
        pings: paths that were asked for.
        answer: the status that it answers with.
    """

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.pings: list[str] = []
        self.answer = 200
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if sink.answer == 200:
                    sink.messages.append({**json.loads(body), "path": self.path})
                self.send_response(sink.answer)
                self.end_headers()

            def do_GET(self) -> None:
                sink.pings.append(self.path)
                self.send_response(sink.answer)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    def url(self, path: str = "") -> str:
        return f"json://127.0.0.1:{self.port}/{path}"

    def titles(self, path: str = "") -> list[str]:
        return [one["title"] for one in self.messages if one["path"] == f"/{path}"]


@contextmanager
def sink() -> Iterator[Sink]:
    made = Sink()
    threading.Thread(target=made.server.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()


class Hole:
    """Takes every connection, and never lets one go.

    Attributes:
        held: connections that are open, as far as it knows.
    """

    def __init__(self, drip: bytes = b"") -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.held: list[socket.socket] = []
        self.drip = drip
        self.over = threading.Event()

    def serve(self) -> None:
        self.socket.settimeout(0.2)
        while not self.over.is_set():
            try:
                connection, _ = self.socket.accept()
            except TimeoutError:
                continue
            self.held.append(connection)
            threading.Thread(target=self.keep, args=(connection,), daemon=True).start()

    def keep(self, connection: socket.socket) -> None:
        """One byte a second of an answer that never ends, or nothing at all."""
        try:
            if self.drip:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while not self.over.wait(1.0):
                if self.drip:
                    connection.sendall(self.drip)
        except OSError:
            return

    def open_ends(self) -> int:
        """How many connections somebody still holds at the other end."""
        return sum(not _closed(one) for one in self.held)


@contextmanager
def hole(drip: bytes = b"") -> Iterator[Hole]:
    made = Hole(drip)
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.over.set()
        thread.join()
        for connection in made.held:
            connection.close()
        made.socket.close()


def _closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while data := connection.recv(65536):
            del data
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
