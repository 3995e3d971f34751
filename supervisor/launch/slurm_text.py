"""SLURM's text forms, read: a job's line, a node's line, a list of nodes.

Pure. Text is read, since its forms hold from 21.08 to 25.11, while the JSON ones change with
each release.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from supervisor.policy.handback import Answer
from supervisor.policy.scheduler import JobSeen

#: Longer ranges SLURM itself refuses (MAX_RANGE of its hostlist).
MAX_NODES = 65_536
_FIELD = re.compile(r"(?:^|\s)([A-Za-z/]+)=(\S*)")
_OWNER = re.compile(r"(?<=\s)UserId=[^\s()]*\(\d+\) GroupId=")
_LIMIT = re.compile(r"(?:(\d+)-)?(\d+):(\d+):(\d+)")
_BRACKET = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?", re.ASCII)
#: Short states of nodes that run nothing, and will run nothing until somebody mends them.
_UNUSABLE = ("down", "drain", "drng", "fail", "unk", "inval", "futr", "maint", "resv", "boot")
_SIGNS: dict[Answer, tuple[str, ...]] = {
    Answer.DONE: ("pending execution",),  # somebody else has requeued it
    Answer.DISABLED: ("presently disabled",),
    Answer.ABSENT: ("authentication", "credential", "unge", "configuration source", "No such file"),
    Answer.SILENT: (
        "Unable to contact",
        "Unexpected message received",
        "timed out",
        "Timed out",
        "Zero Bytes",
        "onnection",
        "standby",
        "try again later",
        "temporarily unable",
        "ransport endpoint",
    ),
}


def parse(text: str) -> JobSeen | None:
    """Read one line of `scontrol show job -o`; None if it is none.

    Of several lines (a heterogeneous job's parts) the first one counts: that of the leading part.

    >>> parse("JobId=5 JobName=a JobState=RUNNING Requeue=1 Restarts=2 TimeLimit=1-00:00:10 PreemptTime=None").limit_s
    86410.0
    """
    fields = fields_of(text)
    if "JobState" not in fields:
        return None
    return JobSeen(
        state=fields["JobState"].partition("+")[0],
        restarts=_whole(fields.get("Restarts")),
        may_requeue={"1": True, "0": False}.get(fields.get("Requeue", "")),
        start_s=_time(fields.get("StartTime")),
        end_s=_time(fields.get("EndTime")),
        limit_s=_duration(fields.get("TimeLimit")),
        preempted_s=_time(fields.get("PreemptTime")),
        reason=fields.get("Reason"),
        priority=_whole(fields.get("Priority")),
        batch={"1": True, "0": False}.get(fields.get("BatchFlag", "")),
        partition=fields.get("Partition"),
        nodes=_whole(fields.get("NumNodes", "").partition("-")[0]),
        requested=_list(fields.get("ReqNodeList")),
        excluded=_list(fields.get("ExcNodeList")),
    )


def fields_of(text: str) -> dict[str, str]:
    """The fields of a job's line that hold no spaces.

    A job's name may hold anything, even `JobState=`; it stands before the user's id, and what else users may
    write (comments, paths, their command line) stands last. So of two the first counts, from the id on.
    """
    owner = _OWNER.search(text)
    return dict(reversed(_FIELD.findall(text[owner.start() :] if owner else text)))


def answer(words: str) -> Answer:
    """What SLURM means by a refusal.

    >>> answer("Requested operation is presently disabled for job 11"), answer("Access/permission denied for job 7")
    (<Answer.DISABLED: 'disabled'>, <Answer.REFUSED: 'refused'>)

    Source: slurm_errno.c of 21.08 to 25.11; the words of a 22.05 whose slurmctld was killed.
    """
    for found, signs in _SIGNS.items():
        if any(sign in words for sign in signs):
            return found
    return Answer.REFUSED


@dataclass(frozen=True, slots=True)
class Site:
    """What a cluster's settings mean for the way back.

    Attributes:
        kill_wait_s: from SIGTERM to SIGKILL [s]; None where it is not told.
        requeue_exit: exit codes of jobs that SLURM requeues by itself.
        hold_exit: exit codes of jobs that it requeues and holds.
    """

    kill_wait_s: float | None = None
    requeue_exit: frozenset[int] = frozenset()
    hold_exit: frozenset[int] = frozenset()


def site_in(text: str) -> Site:
    """Read `scontrol show config`.

    >>> sorted(site_in("RequeueExit             = 1-3,75").requeue_exit)
    [1, 2, 3, 75]
    """
    told = dict(re.findall(r"^(\w+)\s*= (.*?)\s*$", text, re.MULTILINE))
    wait = _whole(told.get("KillWait", "").partition(" ")[0])
    codes = {name: frozenset(_codes(told.get(name, ""))) for name in ("RequeueExit", "RequeueExitHold")}
    return Site(None if wait is None else float(wait), codes["RequeueExit"], codes["RequeueExitHold"])


def nodes_up(text: str) -> tuple[str, ...]:
    """The nodes of `sinfo -h -N -o "%N %t"` that can run a job now or later.

    >>> nodes_up("n1 mix~"), nodes_up("n2 down*"), nodes_up("n3 idle*")
    (('n1',), (), ())
    """
    rows = (line.split() for line in text.splitlines())
    return tuple(
        dict.fromkeys(
            row[0] for row in rows if len(row) == 2 and not row[1].startswith(_UNUSABLE) and row[1][-1] != "*"
        )
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


def _codes(told: str) -> Iterator[int]:
    """Exit codes in SLURM's short form; `(null)` has none."""
    for match in _RANGE.finditer(told):
        yield from range(int(match[1]), min(int(match[2] or match[1]), 255) + 1)


def _list(word: str | None) -> str:
    return "" if word in (None, "(null)") else str(word)


def _whole(word: str | None) -> int | None:
    return int(word) if word and word.isascii() and word.isdigit() else None


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
