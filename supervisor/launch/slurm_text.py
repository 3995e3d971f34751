"""SLURM's text forms, read: a job's line, a node's line, a list of nodes.

Pure. Text is read, since its forms hold from 21.08 to 25.11, while the JSON ones change with
each release.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence

from supervisor.policy.scheduler import JobSeen

#: Longer ranges SLURM itself refuses (MAX_RANGE of its hostlist).
MAX_NODES = 65_536
_FIELD = re.compile(r"(?:^|\s)([A-Za-z]+)=(\S*)")
_LIMIT = re.compile(r"(?:(\d+)-)?(\d+):(\d+):(\d+)")
_BRACKET = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?", re.ASCII)


def parse(text: str) -> JobSeen | None:
    """Read one line of `scontrol show job -o`; None if it is none.

    >>> parse("JobId=5 JobName=a JobState=RUNNING Requeue=1 Restarts=2 TimeLimit=1-00:00:10 PreemptTime=None").limit_s
    86410.0
    """
    # A job's name may hold anything, even `JobState=`; it comes first, the user's comments come last.
    fields = dict(reversed(_FIELD.findall(text.partition(" UserId=")[2] or text)))
    if "JobState" not in fields:
        return None
    restarts = fields.get("Restarts", "")
    return JobSeen(
        state=fields["JobState"].partition("+")[0],
        restarts=int(restarts) if restarts.isdigit() else None,
        may_requeue={"1": True, "0": False}.get(fields.get("Requeue", "")),
        start_s=_time(fields.get("StartTime")),
        end_s=_time(fields.get("EndTime")),
        limit_s=_duration(fields.get("TimeLimit")),
        preempted_s=_time(fields.get("PreemptTime")),
    )


def addresses_in(text: str) -> dict[str, str]:
    """Where each node of `scontrol show node -o` listens; its name where nothing else stands there.

    >>> addresses_in("NodeName=n1 NodeAddr=10.0.0.1 NodeHostName=a OS=Linux NodeAddr=x")
    {'n1': '10.0.0.1'}
    """
    found = {}
    for line in text.splitlines():
        fields = dict(reversed(_FIELD.findall(line)))  # comments come last
        if name := fields.get("NodeName"):
            told = (fields.get("NodeAddr"), fields.get("NodeHostName"))
            found[name] = next((one for one in told if one and one != "(null)"), name)
    return found


def expand(nodes: str) -> tuple[str, ...]:
    """The names in SLURM's short form, in its order.

    Raises:
        ValueError: it is no such list.

    >>> expand("n[1-3,07],m")
    ('n1', 'n2', 'n3', 'n07', 'm')
    >>> expand("r[1-2]n[08-10]-ib")
    ('r1n08-ib', 'r1n09-ib', 'r1n10-ib', 'r2n08-ib', 'r2n09-ib', 'r2n10-ib')
    >>> expand("")
    ()
    """
    names = tuple(name for part in _parts(nodes) for name in _names(part))
    if len(names) > MAX_NODES:
        raise ValueError(f"{nodes!r} is more than {MAX_NODES} nodes")
    return names


def _parts(nodes: str) -> Iterator[str]:
    """Split at the commas that stand outside of brackets."""
    if not nodes:
        return
    yield from re.split(r",(?![^\[\]]*\])", nodes)


def _names(part: str) -> list[str]:
    bracket = _BRACKET.search(part)
    if bracket is None:
        if not part or set(part) & set("[],"):
            raise ValueError(f"{part!r} is no list of nodes")
        return [part]
    before, after = part[: bracket.start()], part[bracket.end() :]
    rest = _names(after) if after else [""]
    numbers = [number for one in bracket[1].split(",") for number in _numbers(one)]
    if len(numbers) * len(rest) > MAX_NODES or set(before) & set("[],"):
        raise ValueError(f"{part!r} is no list of nodes")
    return [f"{before}{number}{end}" for number in numbers for end in rest]


def _numbers(one: str) -> Sequence[str]:
    match = _RANGE.fullmatch(one)
    if match is None:
        raise ValueError(f"[{one}] is no range")
    first, last = match[1], match[2] or match[1]
    if not 0 <= int(last) - int(first) < MAX_NODES:
        raise ValueError(f"[{one}] is no range")
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


def _time(word: str | None) -> float | None:
    """SLURM prints local time without a zone."""
    try:
        return time.mktime(time.strptime(word or "", "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return None  # None, Unknown, N/A


def _duration(word: str | None) -> float | None:
    match = _LIMIT.fullmatch(word or "")
    if match is None:
        return None  # UNLIMITED, Partition_Limit
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
