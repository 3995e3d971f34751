"""What error texts mean: a table of signatures, most specific first, and the search in it.

The rows are data and stand in three files beside this one, by what they speak of. A row says what it was read from.
Three ranks of rows: what names its own cause; what is general, such as an exception's bare name, and loses against
that wherever it stands; and echoes, what is said because something else ended first, which are a root only where
nothing else was said.

What this does not protect against: a program that prints such a line, goes on, and dies of something that says nothing.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from supervisor.policy.causes import CLASSES, Cause, CauseClass

#: Letter by letter, so that a place in the text stays where it is; `str.lower` makes some letters two.
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
#: So much of one text is looked at; a message longer than that repeats a tensor.
_LOOK = 20_000
#: A line of a log that has none of these is not searched for all rows, which takes a second for 64 KiB of progress.
_STEMS = (
    *("error", "errno", "exception", "fail", "fatal", "abort", "kill", "terminat", "sig", "dumped", "fault", "assert"),
    *("memory", "alloc", "oom", "space", "quota", "disk", "cuda", "hip", "gpu", "xid", "ecc", "nvlink", "nccl", "gloo"),
    *("timed out", "timeout", "limit", "closed", "reset", "broken", "refused", "denied", "lost", "stale", "corrupt"),
    *("can't", "cannot", "couldn", "could not", "unable", "invalid", "not ", "no ", "n't", "without", "missing"),
    *("preempt", "cancel", "due to", "node", "job", "interrupt", "hang", "stuck", "stall", "usage", "nan", " inf"),
    *("exit", "died", "dead", "unexpected", "mismatch", "undefined", "connect", "network", "peer", "busy", "required"),
    *("rank", "overflow", "ctrl", "control-c", "^c", "panic", "lockup", "evict", "kubelet", "detected"),
    *("blocked", "read-only", "hung", "wrote", "down", "compromised"),
)
#: Collectives fail with errors of this kind, and quote anything: no general word makes of one an error of the user's.
_OF_PEERS = ("torch.distributed.dist", "nccl error", "gloo/transport", "[c10d]")
#: What says so of itself may pass, whatever general word stands beside it.
_PASSING = (
    *("timed out", "try again", "temporarily", "reset by peer", "connection closed", "connection lost", "closed by"),
    *("unreachable", "tcpstore", "store->get", "stop_waiting", "interrupted system call", "server disconnected"),
    *("unable to connect", "failed to connect", "be reached", "request failed", "server returned", "no answer"),
    *("failed to fetch", "failed to send", "failed to read", "failed to write", "read failed", "write failed"),
    *("bytes but", "host down", "retried", "requests.exceptions.", "httpx.", "urllib3.", "botocore.", "aiohttp."),
    *("dataloader worker",),
)
#: With these the numbers matter: `[Errno 28]`, `exit code 137`, `Xid 79`, `503 Server Error`.
_NUMBERED = ("err", "exit", "xid", "signal", "status", "http", "code", "received")
_NO_DIGITS = str.maketrans("", "", string.digits)
#: What a healthy resume says: transformers 5.24, trainer_utils.py, `compare_trainer_and_checkpoint_args`; 4.x says the
#: same. It speaks of a checkpoint's file as an error does, and is often all that a rank other than the first ever says.
_COMPARED = re.compile(r"\(from args\) != .* \(from trainer_state\.json\)|arguments do not match the ones in the `tr")
#: A line of a log is cut there.
_LINE = 1_000
#: What a log says of a thing that is permanent counts only among its last lines: a program that printed it and
#: went on did not die of it.
_LAST_WORDS = 40


@dataclass(frozen=True, slots=True)
class Signature:
    """One row.

    Attributes:
        name: short and stable; the same root has the same name in every attempt.
        cause: what it is a sign of.
        pattern: regular expression, in lower case; one line of a text in lower case is searched for it.
        source: where the text is made, or who collected it.
        cascade: it is said because something else ended first.
        general: it is said of many things; a row that names its cause wins.
        bare: an exception's name of which no row knows the text: looked for when no other row was found.
        where: looked for in what a rank recorded, in its log, or in both.
        says: for people, beside the text.
        later: what it is a sign of once training has begun, in this attempt or an earlier one: a program that could
            read its data an hour ago is not wrong now.
    """

    name: str
    cause: Cause
    pattern: str
    source: str
    cascade: bool = False
    general: bool = False
    where: str = "any"
    bare: bool = False
    says: str | None = None
    later: Cause | None = None

    @property
    def standing(self) -> int:
        """Lower wins: 0 names its cause, 1 is general, 2 an echo."""
        return 2 if self.cascade else 1 if self.general else 0

    @property
    def permanent(self) -> bool:
        """Whether it comes again however often it is tried."""
        return CLASSES[self.cause] is CauseClass.PERMANENT


@dataclass(frozen=True, slots=True)
class Match:
    """A signature that was found.

    Attributes:
        signature: the row.
        line: the line that it was found in.
    """

    signature: Signature
    line: str


@cache
def table() -> tuple[Signature, ...]:
    """Every row in the order in which it is looked for; made when it is asked for, since starts must be quick."""
    from supervisor.policy.signatures_machine import HOST_FIRST, MACHINE, SHARED_MEMORY
    from supervisor.policy.signatures_network import NETWORK
    from supervisor.policy.signatures_program import PROGRAM
    from supervisor.policy.signatures_scheduler import SCHEDULER
    from supervisor.policy.signatures_storage import DISKS, FULL
    from supervisor.policy.signatures_types import STATUS, TYPES

    rows = (*HOST_FIRST, *SHARED_MEMORY, *FULL, *MACHINE, *DISKS, *SCHEDULER, *STATUS, *NETWORK, *PROGRAM, *TYPES)
    return tuple(sorted(rows, key=lambda row: (row.bare, row.standing)))


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """A row's search; in lower case, for a search without regard to case cannot skip to a pattern's first letters."""
    return re.compile(pattern, re.MULTILINE)


def recognise(text: str, where: str = "record") -> Match | None:
    """The row that says most about a text.

    Args:
        text: a message, with its exception's name before it, or lines of a log.
        where: `record` or `log`.

    >>> recognise("RuntimeError: CUDA error: out of memory").signature.cause.value
    'gpu_oom'
    >>> recognise("all is well") is None
    True
    """
    looked = text[:_LOOK]
    lower = looked.translate(_LOWER)
    may_pass = any(words in lower for words in (*_OF_PEERS, *_PASSING))
    for row in table():
        if may_pass and row.general and row.permanent:
            continue
        if row.where in ("any", where) and (found := _compiled(row.pattern).search(lower)):
            return Match(row, _line_at(looked, found.start()))
    return None


def telling_lines(text: str) -> list[str]:
    r"""The lines of a log that say why a process ended, oldest first, and its last line.

    What the Trainer says of its arguments at each resume is left out.

    >>> telling_lines("step 1\nCUDA error: out of memory\nstep 2\nbye\n")
    ['CUDA error: out of memory', 'bye']
    """
    lines = [line.strip()[:_LINE] for line in text.splitlines() if line.strip() and not _COMPARED.search(line)]
    if not lines:
        return []
    told, dull = [], set[str]()
    for index, line in enumerate(lines):
        shape = _shape(line)
        if shape is None or shape in dull:
            found = None
        elif (found := recognise(line, "log")) is None:
            dull.add(shape)
        counts = found is not None and (index >= len(lines) - _LAST_WORDS or not found.signature.permanent)
        if counts or index == len(lines) - 1:
            told.append(line)
    return told


def _shape(line: str) -> str | None:
    """A line without its numbers, where they are not what it says; None for one that says nothing."""
    lower = line.translate(_LOWER)
    if not any(stem in lower for stem in _STEMS):
        return None
    return lower if any(stem in lower for stem in _NUMBERED) else lower.translate(_NO_DIGITS)


def _line_at(text: str, index: int) -> str:
    begin, end = text.rfind("\n", 0, index) + 1, text.find("\n", index)
    return text[begin : len(text) if end < 0 else end].strip()


def best(matches: Iterable[Match | None]) -> Match | None:
    """Of several texts about one end, the match that says most; of equals the first."""
    found: Iterator[Match] = (match for match in matches if match is not None)
    return min(found, key=lambda match: match.signature.standing, default=None)
