"""Metadata services of four clouds on the loopback, answering as the real ones do: headers, tokens, codes, manners.

In a test: `with serving("aws") as fake: fake.facts["action"] = {...}`. As a program, for a run by hand:

    python -m tests.fake_metadata --cloud aws --port 1338 --script script.json

where the script is a list like `[{"after_s": 5, "facts": {"action": {"action": "terminate", "in_s": 120}}}]`. A time
may be given as `in_s`: seconds from the moment at which somebody first asks for the fact.

Facts: aws `action`, `rebalance`, `maintenance`; gcp `preempted`, `maintenance-event`; azure `events`, `name`; alibaba
`termination`. Manners (`fake.manner`): "silent" accepts and never answers, "trickle" sends a byte now and then, "late"
begins late and never ends, "flood" sends 10 MB, "garbage" speaks something else, "hang up" closes at once, "error"
answers 503.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import format_datetime, formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

FLOOD_BYTES = 10_000_000


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc1123(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, timezone.utc), usegmt=True)


@dataclass
class Fake:
    """What a service knows and how it behaves; both may be changed while it serves."""

    cloud: str
    facts: dict[str, Any] = field(default_factory=dict)
    manner: str = ""
    token_life_s: float | None = None  # instead of what was asked for
    clock_ahead_s: float = 0.0  # of this machine's
    port: int = 0
    asked: list[str] = field(default_factory=list)  # method and path, in order
    started: dict[str, float] = field(default_factory=dict)  # events that a machine approved of, and when
    incarnation: int = 1
    changed: threading.Condition = field(default_factory=threading.Condition)
    over: threading.Event = field(default_factory=threading.Event)
    _tokens: dict[str, float] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def say(self, **facts: Any) -> None:
        """Change facts; whoever waits for a change hears of it."""
        with self.changed:
            for name, fact in facts.items():
                self.facts[name.replace("_", "-") if self.cloud == "gcp" else name] = fact
            self.incarnation += 1
            self.changed.notify_all()

    def fact(self, name: str) -> Any:
        """As it is told from now on: times begin to run when somebody first asks for them."""
        with self.changed:
            self.facts[name] = timed(self.facts.get(name), self.cloud)
            return self.facts[name]

    def token(self, asked_s: float) -> str:
        token = f"AQAEA{len(self._tokens):06d}=="
        self._tokens[token] = time.monotonic() + (asked_s if self.token_life_s is None else self.token_life_s)
        return token

    def knows(self, token: str | None) -> bool:
        return self._tokens.get(token or "", 0.0) > time.monotonic()

    def forget_tokens(self) -> None:
        self._tokens.clear()

    def now(self) -> float:
        return time.time() + self.clock_ahead_s


class Service(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    fake: ClassVar[Fake]
    software: ClassVar[dict[str, str]] = {
        "aws": "EC2ws",
        "gcp": "Metadata Server for VM",
        "azure": "Microsoft-IIS/10.0",
        "alibaba": "ECS",
    }

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the standard library's
        return

    def do_GET(self) -> None:
        self.serve()

    def do_PUT(self) -> None:
        self.serve()

    def do_POST(self) -> None:
        self.serve()

    def serve(self) -> None:
        fake = self.fake
        self.sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fake.asked.append(f"{self.command} {self.path}")
        self.close_connection = True
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if fake.manner:
                self.misbehave(fake.manner)
            else:
                {"aws": self.aws, "gcp": self.gcp, "azure": self.azure, "alibaba": self.alibaba}[fake.cloud]()

    def misbehave(self, manner: str) -> None:
        if manner == "silent":
            self.fake.over.wait()
        elif manner == "trickle":
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000:
                self.wfile.write(bytes([byte]))
                if self.fake.over.wait(0.02):
                    return
        elif manner == "late":
            self.fake.over.wait(4.0)
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            self.fake.over.wait()
        elif manner == "flood":
            self.reply(200, b"x" * FLOOD_BYTES)
        elif manner == "garbage":
            self.wfile.write(b"\x16\x03\x01\x00\xa5 220 mail ready\r\n\x00\xff" * 9)
        elif manner == "error":
            self.reply(503, b"<html>Service Unavailable</html>", {"Content-Type": "text/html"})

    def reply(self, status: int, body: bytes | str, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else body.encode()
        self.send_response_only(status)
        told = {"Content-Type": "text/plain", **(headers or {})}
        told |= {"Content-Length": str(len(content)), "Connection": "close", "Server": self.software[self.fake.cloud]}
        told["Date"] = formatdate(self.fake.now(), usegmt=True)
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def has_token(self, header: str) -> bool:
        """Whether a question comes with a token that is good; else it has been answered: with one, or a refusal."""
        if self.command == "PUT" and self.path == "/latest/api/token":
            life = self.headers.get(f"{header}-ttl-seconds")
            if life is None or not life.isdigit() or not 1 <= int(life) <= 21600:
                self.reply(400, HTML.format("400 - Bad Request"), {"Content-Type": "text/html"})
            else:
                self.reply(200, self.fake.token(float(life)), {f"{header}-ttl-seconds".title(): life})
            return False
        if not self.fake.knows(self.headers.get(header)):
            self.reply(401, HTML.format("401 - Unauthorized"), {"Content-Type": "text/html"})
            return False
        return True

    # -- AWS, IMDSv2

    def aws(self) -> None:
        fake = self.fake
        if not self.has_token("X-aws-ec2-metadata-token"):
            return
        facts = {
            "/latest/meta-data/spot/instance-action": "action",
            "/latest/meta-data/events/recommendations/rebalance": "rebalance",
            "/latest/meta-data/events/maintenance/scheduled": "maintenance",
        }
        fact = fake.fact(facts.get(self.path, ""))
        if facts.get(self.path) == "maintenance" and fact is None:
            fact = []
        if fact is None:
            self.reply(404, HTML.format("404 - Not Found"), {"Content-Type": "text/html"})
        else:
            told = fact if isinstance(fact, str) else json.dumps(fact, separators=(",", ":"))
            self.reply(200, told, {"Accept-Ranges": "none"})

    # -- GCP

    def gcp(self) -> None:
        fake, split = self.fake, urlsplit(self.path)
        flavor = {"Metadata-Flavor": "Google", "Content-Type": "application/text"}
        name = split.path.removeprefix("/computeMetadata/v1/instance/")
        if self.headers.get("Metadata-Flavor") != "Google":
            self.reply(
                403, "<p>Your client does not have permission to get this URL.</p>", {"Content-Type": "text/html"}
            )
            return
        if name not in ("preempted", "maintenance-event"):
            self.reply(404, "<p>The requested URL was not found on this server.</p>", flavor)
            return
        query = {key: values[0] for key, values in parse_qs(split.query).items()}
        with fake.changed:
            if query.get("wait_for_change") == "true":
                wait_s = float(query.get("timeout_sec", "3600"))
                fake.changed.wait_for(lambda: self.etag(name) != query.get("last_etag", self.etag(name)), wait_s)
            value, etag = self.value(name), self.etag(name)
        self.reply(200, value, {**flavor, "ETag": etag, "X-XSS-Protection": "0", "X-Frame-Options": "SAMEORIGIN"})

    def value(self, name: str) -> str:
        return str(self.fake.facts.get(name, {"preempted": "FALSE", "maintenance-event": "NONE"}[name]))

    def etag(self, name: str) -> str:
        return f"{sum(self.value(name).encode()) * 2654435761 % 2**64:016x}"

    # -- Azure

    def azure(self) -> None:
        fake, split = self.fake, urlsplit(self.path)
        told = {"Content-Type": "application/json; charset=utf-8"}
        if self.headers.get("Metadata", "").lower() != "true":
            self.reply(400, '{"error":"Bad request. Required metadata header not specified"}', told)
        elif "api-version" not in parse_qs(split.query):
            self.reply(400, '{"error":"Bad request. api-version was not specified in the request"}', told)
        elif split.path == "/metadata/instance/compute/name":
            self.reply(200, str(fake.facts.get("name", "vm-0")), {"Content-Type": "text/plain; charset=utf-8"})
        elif split.path != "/metadata/scheduledevents":
            self.reply(404, '{"error":"Not found"}', told)
        elif self.command == "POST":
            self.start_events(told)
        else:
            document = {"DocumentIncarnation": fake.incarnation, "Events": fake.fact("events") or []}
            self.reply(200, json.dumps(document, separators=(",", ":")), told)

    def start_events(self, told: dict[str, str]) -> None:
        known = {event["EventId"] for event in self.fake.facts.get("events", [])}
        try:
            asked = [str(one["EventId"]) for one in json.loads(self.sent)["StartRequests"]]
        except (ValueError, KeyError, TypeError):
            asked = []
        if not asked or not set(asked) <= known:
            self.reply(400, '{"error":"Bad request"}', told)
            return
        self.fake.started |= dict.fromkeys(asked, time.time())
        self.reply(200, "", told)

    # -- Alibaba

    def alibaba(self) -> None:
        fake = self.fake
        if not self.has_token("X-aliyun-ecs-metadata-token"):
            return
        if self.path == "/latest/meta-data/instance/spot/termination-time" and fake.fact("termination"):
            self.reply(200, str(fake.fact("termination")))
        else:
            self.reply(404, HTML.format("404 - Not Found"), {"Content-Type": "text/html"})


HTML = """<?xml version="1.0" encoding="iso-8859-1"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
 <head>
  <title>{0}</title>
 </head>
 <body>
  <h1>{0}</h1>
 </body>
</html>
"""


@contextlib.contextmanager
def serving(cloud: str, port: int = 0, **facts: Any) -> Iterator[Fake]:
    """A service, as long as the block lasts."""
    fake = Fake(cloud, dict(facts))
    server = ThreadingHTTPServer(("127.0.0.1", port), type("OneService", (Service,), {"fake": fake}))
    server.daemon_threads = True
    fake.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        fake.over.set()
        server.shutdown()
        server.server_close()


def timed(fact: Any, cloud: str) -> Any:
    """A fact with `in_s` made into a time."""
    write = rfc1123 if cloud == "azure" else iso
    if isinstance(fact, list):
        return [timed(one, cloud) for one in fact]
    if not isinstance(fact, dict):
        return fact
    if set(fact) == {"in_s"}:
        return write(time.time() + fact["in_s"])
    key = {"aws": "time", "azure": "NotBefore"}.get(cloud, "time")
    return {key if k == "in_s" else k: write(time.time() + v) if k == "in_s" else v for k, v in fact.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cloud", choices=("aws", "gcp", "azure", "alibaba"), required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", type=Path)
    options = parser.parse_args()
    with serving(options.cloud, options.port) as fake:
        print(fake.url, flush=True)
        for line in json.loads(options.script.read_text()) if options.script else []:
            time.sleep(line["after_s"])
            fake.manner = line.get("manner", fake.manner)
            fake.say(**line.get("facts", {}))
        threading.Event().wait()


if __name__ == "__main__":
    main()
