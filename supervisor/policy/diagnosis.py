"""From evidence to one cause: root before echo, over all ranks and nodes.

Rule 1: what names its own cause wins against what is general, that against a death without a word, and all of them
against an echo, which is what a rank says because a peer is gone.
Rule 2: among equals the graver one, then the earlier.
Rule 3: a user's error is stopped at once, so nothing that may go away is taken for one. A `ValueError` before the first
step comes again; in the middle of training, or in a run that has trained before, the same program with the same input
has worked, and what is lost by one more try is minutes, by giving up a weekend.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from supervisor.policy.causes import CLASSES, Cause, CauseClass, RankEnd, Verdict
from supervisor.policy.oom import OutOfMemory, read_oom
from supervisor.policy.signatures import Match, Signature, best, recognise

#: Evidence is a sentence, and a line of detail is a line.
_LONG, _MANY = 500, 12
#: What argparse leaves with.
_USAGE_EXIT = 2
#: What may be read in the log of a process that was killed: it could not write down why, but others can.
_SAID_BY_OTHERS = (Cause.HOST_OOM, Cause.PREEMPTED, Cause.TIME_LIMIT, Cause.NODE_LOST)
#: A data-loader worker is gone, and its parent does not know why.
_OF_LOADERS = ("loader_gone", "loader_pipe")
#: What a log says of it is no evidence: see `_wrote`.
_RECORDED_ONLY = (Cause.USER_ERROR, Cause.BAD_CHECKPOINT)
#: The hub may not be asked; what wraps it speaks of a hub that does not answer: huggingface_hub 2.4, file_download.py,
#: `_raise_on_head_call_error`.
_OFFLINE = "hub_offline"


#: Alone such words are most often of a kill for memory.
_KILLED = "killed"


class _Standing(IntEnum):
    """Lower is more of a root."""

    NAMED = 0
    GENERAL = 1
    SILENT = 2  # a death that left no word
    ECHO = 3


#: Of two roots that name themselves: what took the machine's resources before what a program says, and that before what
#: may have been said because of either.
_GRAVE = (Cause.GPU_FAULT, Cause.HOST_OOM, Cause.GPU_OOM, Cause.DISK_FULL, Cause.STORAGE)
_PLAIN = (Cause.BAD_CHECKPOINT, Cause.DIVERGED, Cause.USER_ERROR)


@dataclass(frozen=True, slots=True)
class _Finding:
    """What one rank's end says."""

    end: RankEnd
    standing: _Standing
    cause: Cause
    root: str
    said: str
    usage: bool = False
    more: tuple[str, ...] = ()

    @property
    def order(self) -> tuple[int, int, float, int]:
        grave = 0 if self.cause in _GRAVE else 1 if self.cause in _PLAIN else 2
        return self.standing, grave if self.standing is _Standing.NAMED else 0, self.end.time_s, self.end.rank


def diagnose(
    ends: Sequence[RankEnd],
    launcher: str | None = None,
    *,
    oom_kills: int | None = None,
    trained_before: bool = False,
) -> Verdict:
    """Find the root among the ranks' ends.

    Args:
        ends: of the ranks that ended badly, in any order.
        launcher: last words of a launcher that ended before any rank, if that happened.
        oom_kills: processes that the kernel killed for memory since the attempt began, on any node; None while unknown.
        trained_before: the run has settled steps in an earlier attempt.

    Returns:
        The verdict; `Cause.UNKNOWN` where nothing was recorded.

    >>> diagnose([RankEnd(1, 5.0), RankEnd(0, 5.1, "builtins.RuntimeError", message="Connection closed by peer")])
    ... # doctest: +ELLIPSIS
    Verdict(cause=<Cause.CRASHED: 'crashed'>, evidence='rank 1 was killed...
    """
    if not ends:
        return _of_launcher(launcher, oom_kills, trained_before)
    found = sorted((_finding(end, trained_before) for end in ends), key=lambda one: one.order)
    root = _with_count(found[0], max([oom_kills or 0, *(end.oom_kills or 0 for end in ends)]))
    details = [*root.more, *_where(root.end), *_counted(found), *(_detail(one) for one in found[1:])]
    told = tuple(one[:_LONG] for one in details[:_MANY])
    return Verdict(root.cause, root.said, root.usage, root.root, told, root.end.node)


def _with_count(root: _Finding, kills: int) -> _Finding:
    """Whoever is gone without a name was killed for memory, if the kernel counted a kill."""
    if not kills or not (root.standing is _Standing.ECHO or root.root in _OF_LOADERS):
        return root
    return replace(root, cause=Cause.HOST_OOM, root="host_oom", said=f"{root.said}; {_kills(kills)}")


def _where(end: RankEnd) -> list[str]:
    at = f"at step {end.step}" if end.step is not None else "before any step"
    return [] if end.phase is None else [f"rank {end.rank} was {at}, in phase {end.phase}"]


def _of_launcher(words: str | None, oom_kills: int | None, trained_before: bool) -> Verdict:
    if words is None:
        return Verdict(Cause.UNKNOWN, "no rank recorded how it ended")
    said = f"the launcher ended before any rank did: {words}"
    if oom_kills and "exit code -9" in words:
        return Verdict(Cause.HOST_OOM, f"{said}; {_kills(oom_kills)}", root="host_oom")
    match = recognise(words, "log")
    if match is None or match.signature.cascade:
        return Verdict(Cause.CRASHED, said, root="launcher")
    return Verdict(_cause(match.signature, False, trained_before), said, root=match.signature.name)


def _finding(end: RankEnd, trained_before: bool) -> _Finding:
    if end.error_type is None:
        return _unrecorded(end)
    if end.error_type == "builtins.SystemExit" and end.exit_code == _USAGE_EXIT:
        said = f"rank {end.rank} refused its command line (exit code 2)"
        return _Finding(end, _Standing.NAMED, Cause.USER_ERROR, "command_line", said)
    said = f"rank {end.rank} raised {end.error_type}: {_first_line(end.message)}"
    match = _recorded(end)
    if match is None or match.signature.cascade:
        by_log = _wrote(end)
        if by_log is not None and not by_log.signature.cascade:
            finding = _matched(end, by_log, began=True, trained_before=trained_before)
            return replace(finding, said=f"rank {end.rank} wrote: {by_log.line[:_LONG]}", more=(said, *finding.more))
    if match is None:
        return _Finding(end, _Standing.GENERAL, Cause.CRASHED, _key(end), said)
    return replace(_matched(end, match, began=end.began, trained_before=trained_before), said=said)


def _recorded(end: RankEnd) -> Match | None:
    """What a record says: the exception, then those it came from, and its classes where none of their texts tells."""
    number = f" [Errno {end.errno}]" if end.errno is not None and f"[Errno {end.errno}]" not in end.message else ""
    texts = (f"{end.error_type}: {end.message}{number}", *end.chain)
    found = [match for match in map(recognise, texts) if match is not None]
    # A wrapper may say that its caller erred, and what it wraps that a server did not answer.
    found.sort(key=lambda match: (match.signature.name != _OFFLINE, match.signature.permanent))
    return best(found) or best(map(recognise, end.bases))


def _matched(end: RankEnd, match: Match, *, began: bool | None, trained_before: bool) -> _Finding:
    row = match.signature
    standing = (_Standing.NAMED, _Standing.GENERAL, _Standing.ECHO)[row.standing]
    cause = _cause(row, began, trained_before)
    named = not row.general or end.error_type is None or row.name in _OF_LOADERS
    root = row.name if named else _key(end)
    more = [row.says] if row.says is not None else []
    if cause is Cause.GPU_OOM:
        numbers = read_oom(end.message or match.line)
        if numbers is None and end.held_bytes is not None:  # cuBLAS, cuDNN and NCCL tell none
            numbers = OutOfMemory(ours_bytes=end.held_bytes)
        more += [f"rank {end.rank}: {numbers}"] if numbers is not None else []
        root = "gpu_oom_neighbour" if numbers is not None and numbers.neighbour else "gpu_oom"
    if end.error_type is not None and match.line not in f"{end.error_type}: {end.message}":
        more.append(f"rank {end.rank}, raised from {match.line}")
    usage = cause is Cause.USER_ERROR and any(one.startswith("supervisor.errors.") for one in end.bases)
    return _Finding(end, standing, cause, root, "", usage, tuple(more))


def _cause(row: Signature, began: bool | None, trained_before: bool) -> Cause:
    """What a row means here: some of what is wrong for good before the first step is a matter of the day afterwards."""
    early = began is False and not trained_before
    if row.later is not None and not early:
        return row.later
    if row.name == _KILLED:
        return Cause.CRASHED  # whether for memory is the kernel's to say, and its count has been asked
    if row.name == "not_importable" and trained_before and not began:
        return Cause.STORAGE  # what could be imported then cannot be read now
    if CLASSES[row.cause] is CauseClass.EXPECTED:
        return Cause.CRASHED  # nobody asked for it here: those who may are asked before ranks are
    return row.cause


def _wrote(end: RankEnd) -> Match | None:
    """What its log says; of equals the last line, since a process prints what it dies of last.

    An error of the user's is recorded; in a log it is one that was caught, such as a module that would have been nice.
    """
    found = (recognise(line, "log") for line in reversed(end.lines))
    return best(match for match in found if match is not None and match.signature.cause not in _RECORDED_ONLY)


def _unrecorded(end: RankEnd) -> _Finding:
    """A rank that left no record: its signal, the kernel's count, and the last words in its log."""
    killed = end.signal == "SIGKILL" or (end.signal is None and end.exit_code is None)
    if killed and end.oom_kills:
        how = f"was killed by {end.signal}" if end.signal else "was killed"
        said = f"rank {end.rank} {how}, and {_kills(end.oom_kills)} on its node"
        return _Finding(end, _Standing.NAMED, Cause.HOST_OOM, "host_oom", said)
    match = _wrote(end)
    if match is not None and end.signal == "SIGKILL" and match.signature.cause not in _SAID_BY_OTHERS:
        match = None
    if match is not None and not match.signature.cascade:
        finding = _matched(end, match, began=True, trained_before=False)
        ended = f", and {_how(end)}" if _how(end) else ""
        return replace(finding, said=f"rank {end.rank} wrote: {match.line[:_LONG]}{ended}")
    return _silent(end, match)


def _silent(end: RankEnd, echo: Match | None) -> _Finding:
    more = (f"rank {end.rank} wrote: {end.lines[-1]}",) if end.lines else ()
    if echo is not None and end.signal not in ("SIGKILL", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE"):
        # An NCCL watchdog aborts its own process: the signal is part of the echo.
        said = f"rank {end.rank} wrote: {echo.line[:_LONG]}"
        return _Finding(end, _Standing.ECHO, echo.signature.cause, echo.signature.name, said, more=more)
    if end.signal in (None, "SIGKILL", "SIGTERM") and end.exit_code is None:
        how = f"by {end.signal}" if end.signal else "from outside"
        said = f"rank {end.rank} was killed {how}, it recorded no error of its own"
        return _Finding(end, _Standing.SILENT, Cause.CRASHED, "killed", said, more=more)
    said = f"rank {end.rank} {_how(end)}, it recorded no error of its own"
    return _Finding(end, _Standing.GENERAL, Cause.CRASHED, end.signal or f"exit {end.exit_code}", said, more=more)


def _how(end: RankEnd) -> str:
    if end.signal is not None:
        return f"was ended by {end.signal}"
    return f"left with exit code {end.exit_code}" if end.exit_code is not None else ""


def _kills(count: int) -> str:
    return f"the kernel killed {count} process{'es' if count > 1 else ''} for memory"


def _counted(found: Sequence[_Finding]) -> list[str]:
    """What can be said of nodes rather than of ranks."""
    told = []
    for node in sorted({one.end.node for one in found}):
        there = [one.end for one in found if one.end.node == node]
        kills = max((end.oom_kills for end in there if end.oom_kills is not None), default=None)
        if kills:
            told.append(f"memory control group of node {node}: {_kills(kills)}")
        if len(there) > 1 and all(end.error_type is None and end.signal == "SIGKILL" for end in there):
            told.append(f"node {node}: all {len(there)} of its ranks that ended were killed by SIGKILL")
    return told


def _detail(one: _Finding) -> str:
    return f"{one.said} (an echo)" if one.standing is _Standing.ECHO else one.said


def _key(end: RankEnd) -> str:
    return f"{end.error_type}: {normalised(_first_line(end.message))}"


def normalised(text: str) -> str:
    """A message without what differs between two attempts: numbers, addresses, quoted paths.

    >>> normalised("worker (pid 812) at 0x7f3a read '/scratch/job_71/x.bin' at 10.0.0.2:4512")
    'worker (pid #) at # read PATH at #'
    """
    text = re.sub(r"(?:['\"]?)(?:~|\.{0,2})(?:/[\w.@+=,-]+)+/?(?:['\"]?)", "PATH", text)
    text = re.sub(r"\b0x[0-9a-f]+\b|\b(?=[0-9a-f-]*\d)[0-9a-f]{8,}(?:-[0-9a-f]+)*\b", "#", text, flags=re.IGNORECASE)
    return re.sub(r"\d+(?:[.:,]\d+)*", "#", text)[:160]


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0][:_LONG] if lines else "(no message)"
