"""What the clouds' answers have in common: times, JSON, and a clock that may be wrong. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from supervisor.policy.notices import Notice
from supervisor.watch.clouds.asking import Answer, Unclear

#: A machine's clock that is this far from its cloud's is taken to be wrong [s]. `Date` counts whole seconds.
SKEW_S = 5.0

#: More notices than this at a time are more than anybody reads.
MOST = 50

Reading = tuple[Notice, ...] | Unclear


def moment_s(text: object) -> float | None:
    """A time as clouds write it [unix s]; None for anything else.

    >>> (
    ...     moment_s("2020-04-24T17:11:44Z"),
    ...     moment_s("Fri, 24 Apr 2020 17:11:44 GMT"),
    ...     moment_s("24 Apr 2020 17:11:44 GMT"),
    ... )
    (1587748304.0, 1587748304.0, 1587748304.0)
    >>> moment_s(""), moment_s("soon"), moment_s(None)
    (None, None, None)

    Source:
        ISO 8601: AWS, Alibaba. RFC 1123: Azure, and `Date` everywhere. The same without a day: AWS maintenance.
    """
    from datetime import datetime, timezone
    from email.utils import parsedate_to_datetime

    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text.strip().removesuffix("Z"))
    except ValueError:
        try:
            found = parsedate_to_datetime(text)
        except (TypeError, ValueError, IndexError):
            return None
    try:
        return (found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)).timestamp()
    except (OverflowError, ValueError):
        return None


def here_s(told_s: float | None, headers: Mapping[str, str], now_s: float) -> float | None:
    """A cloud's time as this machine's clock has it [unix s].

    Args:
        told_s: as the cloud told it.
        headers: of its answer.
        now_s: wall time here, when it came.

    >>> answered = {"date": "Fri, 24 Apr 2020 17:09:44 GMT"}
    >>> here_s(1587748304.0, answered, 1587748184.9), here_s(1587748304.0, answered, 1587751784.0)
    (1587748304.0, 1587751904.0)
    """
    there_s = moment_s(headers.get("date"))
    if told_s is None or there_s is None or abs(now_s - there_s) < SKEW_S:
        return told_s
    return told_s + (now_s - there_s)


def noticed(cloud: str, kind: str, deadline_s: float | None, detail: str, *, urgent: bool, key: str) -> Notice:
    r"""A notice whose words fit a line, however long the answer was.

    >>> noticed("aws", "stop", None, "a\n\x1b[2Jb" * 300, urgent=True, key="spot").detail[:12]
    'a [2Jba [2Jb'
    """
    return Notice(cloud, _line(kind, 80), deadline_s, _line(detail, 300), urgent, _line(key, 80))


def _line(text: str, most: int) -> str:
    words = " ".join("".join(c if c.isprintable() else " " if c.isspace() else "" for c in text[: 4 * most]).split())
    return words if len(words) <= most else f"{words[: most - 1]}…"


def parsed(answer: Answer) -> Any:
    """The JSON of an answer; None if it is none."""
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return None


def unexpected(what: str, answer: Answer) -> Unclear:
    """An answer that tells nothing of what was asked."""
    return Unclear(f"{what}: answered with {answer.status} {answer.text[:80]!r}")
