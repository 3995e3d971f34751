"""Metrics on a port: whoever asks gets the last text, and can hold up nobody but himself."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from supervisor.report.metrics import CONTENT_TYPE

#: How long one who asks may be silent [s], and how many are listened to at once.
SILENT_S = 5.0
MOST = 8


class MetricsPort:
    """Serves one text, which is replaced from outside, on threads of its own.

    Attributes:
        text: what is served now.
        port: it is listened on.

    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(self, host: str, port: int) -> None:
        self.text = ""
        self._free = threading.BoundedSemaphore(MOST)
        outer = self

        class Answer(BaseHTTPRequestHandler):
            timeout = SILENT_S

            def do_GET(self) -> None:
                known = self.path.partition("?")[0] in ("/", "/metrics")
                body = outer.text.encode() if known else b"only /metrics is here\n"
                self.send_response(200 if known else 404)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
                pass

        class Server(ThreadingTCPServer):  # http.server's own asks the name service for its name, which may hang
            daemon_threads = True
            allow_reuse_address = True
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

            def process_request(self, request: Any, client_address: Any) -> None:
                if outer._free.acquire(blocking=False):
                    super().process_request(request, client_address)
                else:
                    self.shutdown_request(request)

            def process_request_thread(self, request: Any, client_address: Any) -> None:
                try:
                    super().process_request_thread(request, client_address)
                finally:
                    outer._free.release()

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # who asks has gone

        server = Server((host, port), Answer)
        self.port: int = server.server_address[1]
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
