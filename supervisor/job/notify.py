"""Where people are told of a run: what stands under `notify`, checked, and never shown as it stands.

An address is a secret: who has it can write there. So messages name an entry by its place and its kind, and
what understands addresses (Apprise) is asked in a process of its own, through its standard input.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from supervisor.errors import JobError

#: Tells and checks; the one file that imports Apprise.
SENDER = "supervisor.report.send"
#: How long Apprise may take to say which addresses it understands [s]; without an answer they are taken.
CHECK_S = 20.0

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,19})://", re.ASCII | re.IGNORECASE)
_PORT = re.compile(r"(?P<host>[A-Za-z0-9.-]*|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})", re.ASCII)


def kind_of(entry: Any) -> str | None:
    """Which kind of entry something is meant as; None for what is none.

    >>> kind_of("mailto://me"), kind_of({"metrics": "file"}), kind_of({"dead_man": "http://x"}), kind_of(7)
    ('url', 'figures', 'alarm', None)
    """
    if isinstance(entry, str):
        return "url"
    if not isinstance(entry, dict):
        keys = getattr(type(entry), "model_fields", {})
        return "figures" if "metrics" in keys else "alarm" if "dead_man" in keys else None
    if any(not isinstance(key, str) or ":" in key for key in entry):
        return None  # an address that YAML took for a key
    if "metrics" in entry:
        return "figures" if len(entry) == 1 else None
    return "alarm"


def url(value: str) -> str:
    """An address as Apprise has them.

    Raises:
        ValueError: it is none.
    """
    if _SCHEME.match(value) and value.isprintable():
        return value
    raise ValueError("an Apprise URL begins with its service, such as mailto:// or slack://")


def web_address(value: Any) -> str:
    """An address that can be asked for.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, str) and value.isascii() and value.isprintable() and " " not in value:
        try:
            parts = urlsplit(value)
            if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
                return value
        except ValueError:  # a port that is no number
            pass
    raise ValueError("an address that begins with http:// or https://")


def metrics_place(value: Any) -> str:
    """Where metrics go: `file`, the absolute path of a .prom file, or `[host]:port`.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(value, str) and (value == "file" or port_of(value) is not None):
        return value
    if isinstance(value, str) and value.startswith("/") and value.endswith(".prom") and "\0" not in value:
        return value
    raise ValueError("file, an absolute path that ends in .prom, or a port such as ':9400' or '127.0.0.1:9400'")


def port_of(place: str) -> tuple[str, int] | None:
    """The host and port that a place of metrics names; None for a file.

    >>> port_of(":9400"), port_of("[::1]:9400"), port_of("file"), port_of(":99999")
    (('', 9400), ('::1', 9400), None, None)
    """
    found = _PORT.fullmatch(place)
    if found is None or not 0 < int(found["port"]) < 1 << 16:
        return None
    return found["host"].strip("[]"), int(found["port"])


def masked(value: Any) -> str:
    """What may be shown of an entry, or of an address in one: its kind.

    >>> masked("slack://tokenA/tokenB"), masked("https://hc-ping.com/uuid"), masked({"dead_man": "x"}), masked(7)
    ("'slack://…'", "'https://…'", '{…}', 'int')
    """
    if isinstance(value, dict):
        return "{…}"
    if not isinstance(value, str):
        return type(value).__name__
    found = _SCHEME.match(value)
    return f"'{found[1].lower()}://…'" if found else "'…'"


def check_urls(urls: Sequence[tuple[str, str]]) -> None:
    """See that Apprise is there and understands every address.

    Args:
        urls: each with its place, such as `job.yaml:7`.

    Raises:
        JobError: it is not there, or does not understand one.
    """
    if not urls:
        return
    if importlib.util.find_spec("apprise") is None:
        raise JobError(
            f"notify: {masked(urls[0][0])} is told by Apprise, which is not installed",
            "pip install 'lora-supervisor[notify]'",
            urls[0][1],
        )
    understood = _understood(tuple(address for address, _ in urls))
    for (address, where), known in zip(urls, understood, strict=True):
        if not known:
            raise JobError(
                f"notify: Apprise does not understand {masked(address)}",
                "its services and how their URLs are written: https://appriseit.com/services/",
                where,
            )


@cache
def _understood(urls: tuple[str, ...]) -> list[bool]:
    """Which of these Apprise understands; all of them if it does not say."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", SENDER],
            input=json.dumps({"check": urls}).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=CHECK_S,
            check=False,
        )
        answer = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return [True] * len(urls)
    if not isinstance(answer, list) or len(answer) != len(urls):
        return [True] * len(urls)
    return [bool(one) for one in answer]


def settings(name: str, run_dir: Path, host: str, entries: Sequence[Any]) -> dict[str, Any]:
    """What the process that tells people is given, as JSON: `supervisor.report.settings` reads it."""
    urls: list[list[Any]] = []
    alarms: list[list[Any]] = []
    places: list[Any] = []
    for index, entry in enumerate(entries):
        match kind_of(entry):
            case "url":
                urls.append([f"notify.{index} ({masked(entry)[1:-1]})", entry])
            case "alarm":
                alarms.append([f"notify.{index} (dead_man)", entry.dead_man, entry.every.s])
            case "figures":
                at = port_of(entry.metrics)
                file = str(run_dir / "metrics.prom") if entry.metrics == "file" else entry.metrics
                places.append(file if at is None else list(at))
    return {
        "name": name, "run_dir": str(run_dir), "host": host, "urls": urls, "alarms": alarms, "metrics": places
    }  # fmt: skip
