"""One question, to servers of every manner: it always ends, within its time, with an answer or a reason."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from fake_metadata import serving

from supervisor.watch.clouds.asking import LIMIT_BYTES, Answer, Place, Unclear, ask


@pytest.mark.parametrize(
    ("manner", "limit_s", "reason"),
    [
        ("silent", 0.4, "no answer from 127.0.0.1:{port} within 0.4 s"),
        ("trickle", 0.4, "no answer from 127.0.0.1:{port} within 0.4 s"),
        ("flood", 30.0, "127.0.0.1:{port}: answered with more than 1 MiB"),
        ("garbage", 30.0, "127.0.0.1:{port} does not speak HTTP: BadStatusLine"),
        ("hang up", 30.0, "127.0.0.1:{port}: Remote end closed connection without response"),
    ],
)
def test_a_server_of_bad_manners_is_given_up_in_time_with_a_reason(manner: str, limit_s: float, reason: str) -> None:
    with serving("aws") as fake:
        fake.manner = manner
        began_s = time.monotonic()
        answer = ask(Place("127.0.0.1", fake.port), "GET", "/", {}, limit_s=limit_s)
        assert answer == Unclear(reason.format(port=fake.port))
        assert time.monotonic() - began_s < 20.0  # a trickle lasts half an hour


def test_the_limit_is_one_for_all_of_an_answer_and_not_for_each_of_its_bytes() -> None:
    with serving("aws") as fake:
        fake.manner = "late"
        began_s = time.monotonic()
        assert isinstance(ask(Place("127.0.0.1", fake.port), "GET", "/", {}, limit_s=5.0), Unclear)
        assert time.monotonic() - began_s < 8.0  # 4 s until it begins, and 5 s more for the next byte


def test_nobody_there_is_a_reason() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        assert ask(Place("127.0.0.1", port), "GET", "/", {}, limit_s=30.0) == Unclear(
            f"127.0.0.1:{port}: Connection refused"
        )


def test_an_answer_in_chunks_and_one_that_ends_with_the_connection_are_read_whole() -> None:
    answers = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Of: Chunks\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nX-Of: End\r\n\r\nabcde",
    )
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for answer in answers:
                connection, _ = server.accept()
                connection.recv(4096)
                connection.sendall(answer)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        told = [ask(Place("127.0.0.1", server.getsockname()[1]), "GET", "/", {}, limit_s=30.0) for _ in answers]
        thread.join()
    assert [(one.text, one.headers["x-of"]) for one in told if isinstance(one, Answer)] == [
        ("abcde", "Chunks"),
        ("abcde", "End"),
    ]


def test_no_proxy_is_ever_asked() -> None:
    with serving("azure", name="vm-7") as fake, serving("azure", name="proxied") as proxy:
        program = (
            "from supervisor.watch.clouds.asking import Place, ask\n"
            "from supervisor.watch.clouds.azure import HEADERS, NAME\n"
            f"print(ask(Place('127.0.0.1', {fake.port}), 'GET', NAME, HEADERS, limit_s=30.0).text)"
        )
        proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"), proxy.url)
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **proxies, "no_proxy": ""},
            capture_output=True,
            text=True,
            check=True,
            timeout=180,
        )
    assert (done.stdout.strip(), proxy.asked) == ("vm-7", [])


def test_an_answer_of_the_greatest_length_is_still_read() -> None:
    with serving("azure", name="n" * (LIMIT_BYTES - 4096)) as fake:
        path = "/metadata/instance/compute/name?api-version=2021-02-01"
        answer = ask(Place("127.0.0.1", fake.port), "GET", path, {"Metadata": "true"}, limit_s=30.0)
    assert isinstance(answer, Answer)
    assert len(answer.body) == LIMIT_BYTES - 4096
