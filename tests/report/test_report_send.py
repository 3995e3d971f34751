"""Telling once, in a real process that ends by itself, whatever the other end does."""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from endpoints import hole, sink
from harness import until

from supervisor.report.send import LIMIT_S
from supervisor.report.sending import LATE_S, Sending, handed


def message(name: str, url: str) -> dict[str, Any]:
    return {"id": name, "url": url, "title": "demo: started", "body": "a\n<b> & *c*", "kind": "info"}


def finished(sending: Sending) -> set[str]:
    def over() -> bool:
        sending.look()
        return sending.over

    until(over, "end of sending", LIMIT_S + LATE_S + 60)
    return sending.told


def test_those_who_answer_are_told_while_others_never_end() -> None:
    with sink() as people, hole() as silent, hole(b"x") as dripping:
        sending = Sending(
            {
                "messages": [
                    message("u0", f"json://127.0.0.1:{silent.port}"),
                    message("u1", people.url()),
                    message("u2", f"json://127.0.0.1:{dripping.port}"),
                    message("u3", "json://127.0.0.1:1"),
                    message("u4", "nonsense://x"),
                ],
                "pings": [
                    {"id": "p0", "url": f"http://127.0.0.1:{people.port}/ping"},
                    {"id": "p1", "url": f"http://127.0.0.1:{dripping.port}"},
                ],
            }
        )
        until(lambda: people.messages and people.pings, "message and ping")
        sending.look()
        assert not sending.over
        until(silent.open_ends, "talk with the one who says nothing")
        assert finished(sending) == {"u1", "p0"}
        assert people.messages[0]["message"] == "a\n<b> & *c*"
        assert people.pings == ["/ping"]
        until(lambda: not silent.open_ends() + dripping.open_ends(), "end of the connections")


def test_the_kernel_ends_it_although_nobody_is_left_who_would() -> None:
    with hole(b"x") as dripping:
        text = handed(json.dumps({"messages": [message("u0", f"json://127.0.0.1:{dripping.port}")]}))
        began_s = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "supervisor.report.send"], stdin=text)
        os.close(text)
        assert process.wait(LIMIT_S + 60) == -signal.SIGALRM
        assert time.monotonic() - began_s >= LIMIT_S - 1


def test_an_answer_that_is_no_success_is_none() -> None:
    with sink() as people:
        people.answer = 500
        pings = [{"id": "p0", "url": f"http://127.0.0.1:{people.port}/"}]
        assert finished(Sending({"messages": [message("u0", people.url())], "pings": pings})) == set()
        people.answer = 200
        assert finished(Sending({"pings": pings})) == {"p0"}


def test_nobody_sees_an_address_in_the_list_of_processes() -> None:
    with hole() as silent:
        sending = Sending({"messages": [message("u0", f"json://me:T0psecret@127.0.0.1:{silent.port}")]})
        until(lambda: silent.held, "connection")
        pid = sending._process.pid
        with open(f"/proc/{pid}/cmdline") as words, open(f"/proc/{pid}/environ") as environment:
            assert "T0psecret" not in words.read() + environment.read()
        assert any(
            "memfd:lora-supervisor" in os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")
        )
        sending.end()
        until(lambda: not silent.open_ends(), "end of the connection")
