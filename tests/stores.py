"""Stores for tests: a real S3 server in a process of its own, a proxy that spoils what goes through it, checkpoints."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.checkpoint.commit import Committed, commit
from supervisor.checkpoint.parts import part_from_bytes
from tests.ports import own_port

RUN = "run-a"


@dataclass
class Server:
    """An S3 server; what it holds is in its memory.

    Attributes:
        port: on the loopback.
        process: the server.
    """

    port: int
    process: subprocess.Popen[bytes]

    def bucket(self, name: str) -> str:
        """Make a bucket, and say under which address it is mirrored to."""
        self.ask("PUT", f"/{name}")
        return f"s3://{name}/runs"

    def ask(self, method: str, path: str, data: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())

    def environment(self, port: int | None = None) -> dict[str, str]:
        """With it, a process finds this server, or what stands before it."""
        return {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port or self.port}",
        }


@contextmanager
def s3_server(environment: dict[str, str] | None = None) -> Iterator[Server]:
    port = own_port()
    program = "from moto.server import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )
    server = Server(port, process)
    end_s = time.monotonic() + 60
    try:
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            assert time.monotonic() < end_s, "the server did not start"
            assert process.poll() is None
            time.sleep(0.05)  # the pace of looking
        yield server
    finally:
        process.kill()
        process.wait()


@dataclass
class Proxy:
    """Stands before a server, and does to each request what `fault` says.

    Attributes:
        port: on the loopback.
        upstream: port of the server.
        fault: given the first line of a request, says what is to happen to it: "", "500", "hang", "cut" (the
            answer ends in its middle), "lost" (it is done, and nobody answers), "wrong" (a byte of the answer differs).
        seen: first lines of requests.
    """

    port: int
    upstream: int
    fault: Callable[[str], str] = lambda _line: ""
    seen: list[str] = field(default_factory=list)

    def serve(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with client, suppress(OSError, ValueError):
            request = _message(client)
            line = request.partition(b"\r\n")[0].decode()
            self.seen.append(line)
            fault = self.fault(line)
            if fault == "hang":
                client.settimeout(120)
                client.recv(1)  # until the other side has had enough
                return
            if fault == "500":
                client.sendall(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", self.upstream), 10) as server:
                server.sendall(_closing(request))
                answer = _all(server)
            if fault == "lost":
                return
            if fault == "cut":
                answer = answer[: max(1, len(answer) - 20)]
            if fault == "wrong":
                head, gap, body = answer.partition(b"\r\n\r\n")
                middle = len(body) // 2
                answer = head + gap + body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :] if body else answer
            client.sendall(answer)


@contextmanager
def proxy(upstream: int) -> Iterator[Proxy]:
    listening = socket.create_server(("127.0.0.1", 0))
    made = Proxy(listening.getsockname()[1], upstream)
    threading.Thread(target=made.serve, args=(listening,), daemon=True).start()
    try:
        yield made
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def now_and_then(faults: list[str], every: int, seed: int = 1) -> Callable[[str], str]:
    """Of so many requests one meets one of these faults."""
    chance = random.Random(seed)
    return lambda _line: chance.choice(faults) if chance.randrange(every) == 0 else ""


def _message(sock: socket.socket) -> bytes:
    """A whole request."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(1 << 16)
        if not more:
            raise ValueError("ended early")
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    headers = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
    if headers.get(b"expect") == b"100-continue":
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    while len(body) < int(headers.get(b"content-length", b"0")):
        more = sock.recv(1 << 20)
        if not more:
            raise ValueError("ended early")
        body += more
    return head + b"\r\n\r\n" + body


def _closing(request: bytes) -> bytes:
    line, _, rest = request.partition(b"\r\n")
    return line + b"\r\nConnection: close\r\n" + rest


def _all(sock: socket.socket) -> bytes:
    found = []
    while piece := sock.recv(1 << 20):
        found.append(piece)
    head, gap, body = b"".join(found).partition(b"\r\n\r\n")
    return head.replace(b"\r\nConnection: keep-alive", b"") + gap + body


def safetensors(**tensors: bytes) -> bytes:
    header, offset = {}, 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(tensors.values())


def made(checkpoints: Path, step: int, *, run_id: str = RUN, lineage: int = 0, size: int = 1000) -> Committed:
    """A small checkpoint; other steps hold other bytes, and all the same configuration."""
    fill = random.Random(step).randbytes(size)
    state = {"step": step, "world_size": 1, "ranks": {"0": {"rng": "00"}}}
    files = {
        "adapter_config.json": b'{"peft_type": "LORA"}',
        "adapter_model.safetensors": safetensors(a=fill),
        "optimizer.safetensors": safetensors(exp_avg=fill * 2),
        "state.json": json.dumps(state).encode(),
        "trainer_state.json": b'{"log_history": []}',
    }
    return commit(
        checkpoints,
        run_id=run_id,
        lineage=lineage,
        step=step,
        world_size=1,
        parts=[part_from_bytes(name, data) for name, data in files.items()],
        confirm=lambda: None,
        clock=time.monotonic,
    )


def tree(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}
