"""Tells people, once, in a process that the kernel ends: `python -m supervisor.report.send`.

Reads one JSON object from its standard input:

    {"messages": [{"id", "url", "title", "body", "kind"}], "pings": [{"id", "url"}]}
    {"check": [url, …]}

Of the first it prints the id of everything that has been told, a line each, as it is told; of the
second a JSON list that says which addresses Apprise understands. Each address has a thread, so one that
never answers holds up none of the others; and since no time-out of a library ends a talk in which a byte
comes now and then, an alarm clock ends the process. It runs whether or not the one who started this lives.

The only door to Apprise.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

#: How long telling may take, whatever happens [s].
LIMIT_S = 10


def main() -> None:
    """Do what the standard input asks."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    signal.alarm(LIMIT_S)
    asked = json.load(sys.stdin)
    if "check" in asked:
        sys.stdout.write(json.dumps(understood(asked["check"])))
    else:
        everything(asked)
    sys.stdout.flush()
    os._exit(0)  # threads that are not done are not waited for


def understood(urls: Sequence[str]) -> list[bool]:
    """Which addresses Apprise understands."""
    from apprise import Apprise

    return [Apprise.instantiate(url, suppress_exceptions=True) is not None for url in urls]


def everything(asked: Mapping[str, Any]) -> None:
    """Tell all at once, and say of each when it is told."""
    works = [*((_ping, one) for one in asked.get("pings", ())), *((_tell, one) for one in asked.get("messages", ()))]
    threads = [threading.Thread(target=_do, args=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _do(work: Callable[[Mapping[str, str]], bool], asked: Mapping[str, str]) -> None:
    try:
        if work(asked):
            os.write(1, f"{asked['id']}\n".encode())  # one write: lines of two threads do not mix
    except Exception:  # noqa: S110 - whatever it was, it is not told; and its words may hold the address
        pass


def _tell(message: Mapping[str, str]) -> bool:
    from apprise import Apprise, AppriseAsset

    asset = AppriseAsset(app_id="lora-supervisor", app_desc="lora-supervisor", secure_logging=True)
    apprise = Apprise(asset=asset)
    return apprise.add(message["url"]) and bool(
        apprise.notify(
            title=message["title"],
            body=message["body"],
            notify_type=message["kind"],
            body_format="text",
        )
    )


def _ping(ping: Mapping[str, str]) -> bool:
    import urllib.request

    asked = urllib.request.Request(ping["url"], headers={"User-Agent": "lora-supervisor"})  # noqa: S310 - http or https
    with urllib.request.urlopen(asked, timeout=LIMIT_S):  # noqa: S310 - the job file takes nothing else
        return True  # what is no success raises


if __name__ == "__main__":
    main()
