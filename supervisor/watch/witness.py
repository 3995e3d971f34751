"""What a process that says nothing is at: its state, its stacks, and what the kernel has it wait for.

Every rank answers a real-time signal with the stacks of its threads, written by faulthandler without the
interpreter's lock. A process that is stopped, or that waits for a disk, cannot answer; its state tells. py-spy, where
it is installed, reads the stacks of those from outside, and adds what lies below Python for the others.

What this does not protect against: a program that takes the signal for itself, whose stacks are then missing; a
file system that hangs, on which the answers are written. So it is done on a thread, and is not waited for.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from supervisor.owner import start_ticks
from supervisor.policy.stalls import Account

#: How often is looked whether an answer has come [s].
_PAUSE_S = 0.02
#: An answer is whole when it has not grown for so long [s].
_STILL_S = 0.06
#: So much of the time is for the answers, the rest for py-spy.
_ANSWERS = 0.5
#: Frames that an account carries; the file has all.
_FRAMES = 16

_THREAD = re.compile(r"^(?:Current thread|Thread) 0x[0-9a-f]+.*\(most recent call first\)")
_FRAME = re.compile(r'^  File "(.*)", line \S+ in (.*)$')
_SPY_MAIN = re.compile(r'^Thread .*"MainThread"')
_SPY_FRAME = re.compile(r"^ {4}(.+) \((.+):\d+\)$")
_PLACES = re.compile(r"^.*/(?:site-packages|dist-packages|lib/python3\.\d+)/")


@dataclass(frozen=True, slots=True)
class Suspect:
    """A rank that is asked.

    Attributes:
        rank: global rank.
        pid: of its process.
        start_ticks: when that started: another process may have its number by now.
        stacks: the file that it answers into.
    """

    rank: int
    pid: int
    start_ticks: int
    stacks: Path


def accounts_of(
    suspects: Sequence[Suspect], *, signum: int, heading: str, limit_s: float, native: bool
) -> list[Account]:
    """Ask each rank what it is at.

    Args:
        suspects: ranks of this machine.
        signum: what they answer to.
        heading: what is written over the answers.
        limit_s: how long all of it may take [s]; answers that come later are in the files only.
        native: whether py-spy is to tell what lies below Python, for which it stops a process for a moment.
    """
    began_s = time.monotonic()
    bare = {one.rank: bare_account(one) for one in suspects}
    living = [one for one in suspects if bare[one.rank].pid]
    before = {one.rank: _head(one, heading, bare[one.rank]) for one in living}
    asked = [one for one in living if bare[one.rank].state not in ("T", "t", "D") and _ask(one, signum)]
    answers = _answers(asked, before, began_s + _ANSWERS * limit_s)
    spied = [one for one in living if native or one.rank not in answers]
    seen = _spy(spied, answers, began_s + limit_s)
    return [_account(one, bare[one.rank], answers, seen) for one in suspects]


def bare_account(suspect: Suspect) -> Account:
    """What can be told without the suspect, a file, or any wait."""
    lives = bool(suspect.pid) and start_ticks(suspect.pid) == suspect.start_ticks
    if not lives:
        return Account(rank=suspect.rank)
    state, waits_in = state_of(suspect.pid), _first_line(suspect.pid, "wchan")
    return Account(rank=suspect.rank, pid=suspect.pid, state=state, waits_in=waits_in)


def _account(suspect: Suspect, before: Account, answers: Mapping[int, str], seen: Mapping[int, str]) -> Account:
    frames = frames_of(answers.get(suspect.rank, "")) or spied_frames(seen.get(suspect.rank, ""))
    return replace(before, frames=frames or None, files=(suspect.stacks.name,) if frames else ())


def state_of(pid: int) -> str | None:
    """The state of a process: R, S, D, T, …; None if there is none.

    Source:
        proc_pid_stat(5), field 3; field 2 is a name in parentheses that may hold anything.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return stat[stat.rindex(")") + 2 :].split()[0]
    except (OSError, ValueError, IndexError):
        return None


def catches(pid: int, signum: int) -> bool:
    """Whether a process has a handler for a signal and does not block it: any other would die of it, or never answer.

    Source:
        proc_pid_status(5), SigCgt and SigBlk: bit n - 1 stands for signal n.
    """
    bit, masks = 1 << (signum - 1), {}
    try:
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name in ("SigCgt", "SigBlk"):
                masks[name] = int(value, 16)
    except (OSError, ValueError):
        return False
    return bool(masks.get("SigCgt", 0) & bit) and not masks.get("SigBlk", 0) & bit


def _ask(suspect: Suspect, signum: int) -> bool:
    try:
        descriptor = os.pidfd_open(suspect.pid)
    except OSError:
        return False
    try:
        # Between the look and the signal the descriptor keeps the number from meaning somebody else.
        if start_ticks(suspect.pid) != suspect.start_ticks or not catches(suspect.pid, signum):
            return False
        signal.pidfd_send_signal(descriptor, signum)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _head(suspect: Suspect, heading: str, told: Account) -> int | None:
    """Write what is known from outside over the answer; where the file ends then, None if it cannot be written."""
    inside = f", waits in {told.waits_in}" if told.waits_in else ""
    text = f"\n--- rank {suspect.rank}, process {suspect.pid}, state {told.state or '?'}{inside}; {heading} ---\n"
    stack = _text(suspect.pid, "stack")
    text += f"kernel:\n{stack.strip()}\n\n" if stack and stack.strip() else ""
    try:
        suspect.stacks.touch(mode=0o600)
        with suspect.stacks.open("ab") as file:
            file.write(text.encode())
            return file.tell()
    except OSError:
        return None


def _answers(asked: Sequence[Suspect], before: Mapping[int, int | None], until_s: float) -> dict[int, str]:
    """What each has written since; as much as there is when the time is over."""
    found: dict[int, str] = {}
    grown: dict[int, tuple[int, float]] = {}
    while len(found) < len(asked) and time.monotonic() < until_s:
        for one in asked:
            start = before[one.rank]
            if one.rank in found or start is None:
                continue
            size, now_s = _size(one.stacks), time.monotonic()
            if size <= start:
                continue
            if grown.get(one.rank, (0, 0.0))[0] != size:
                grown[one.rank] = size, now_s
            elif now_s - grown[one.rank][1] >= _STILL_S:
                found[one.rank] = _tail(one.stacks, start)
        time.sleep(_PAUSE_S)
    for one in asked:
        start = before[one.rank]
        if one.rank not in found and start is not None and _size(one.stacks) > start:
            found[one.rank] = _tail(one.stacks, start)
    return found


def _spy(suspects: Sequence[Suspect], answers: Mapping[int, str], until_s: float) -> dict[int, str]:
    """Have py-spy look at all of them at once, if it is here."""
    beside = Path(sys.executable).with_name("py-spy")
    spy = str(beside) if beside.exists() else shutil.which("py-spy")
    if spy is None:
        return {}
    started: list[tuple[Suspect, int, subprocess.Popen[bytes]]] = []
    for one in suspects:
        # To read native frames it stops the process for a moment, which it cannot do with one that is stopped.
        way = "--native" if one.rank in answers else "--nonblocking"
        try:
            with one.stacks.open("ab") as file:
                file.write(b"\npy-spy:\n")
                file.flush()
                start = file.tell()
                command = [spy, "dump", way, "--pid", str(one.pid)]
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.DEVNULL)
        except OSError:
            continue
        started.append((one, start, process))
    for _, _, process in started:
        try:
            process.wait(max(0.0, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
    return {one.rank: _tail(one.stacks, start) for one, start, _ in started}


def frames_of(dump: str) -> tuple[str, ...]:
    r"""Frames of the main thread in what faulthandler wrote, innermost first.

    The main thread is the oldest, and so the last.

    >>> frames_of('Current thread 0x01 (most recent call first):\n  File "/a/train.py", line 3 in fit\n')
    ('train.py:fit',)
    """
    frames: list[str] = []
    for line in dump.splitlines():
        if _THREAD.match(line):
            frames = []
        elif (found := _FRAME.match(line)) is not None:
            frames.append(f"{_short(found[1])}:{found[2]}")
    return tuple(frames[:_FRAMES])


def spied_frames(dump: str) -> tuple[str, ...]:
    r"""The same of what py-spy wrote.

    >>> spied_frames(
    ...     'Thread 7 (idle): "MainThread"\n    Trainer.fit (a/train.py:3)\nThread 8 (idle)\n    run (x.py:1)\n'
    ... )
    ('a/train.py:fit',)
    """
    frames: list[str] = []
    inside = False
    for line in dump.splitlines():
        if not line.startswith(" "):
            inside = bool(_SPY_MAIN.match(line))
        elif inside and (found := _SPY_FRAME.match(line)) is not None:
            frames.append(f"{found[2]}:{found[1].rpartition('.')[2]}")
    return tuple(frames[:_FRAMES])


def _short(path: str) -> str:
    """A file as people name it: below its packages, or by itself."""
    below = _PLACES.sub("", path)
    return below if below != path else path.rpartition("/")[2]


def _first_line(pid: int, name: str) -> str | None:
    text = (_text(pid, name) or "").strip()
    return text if text not in ("", "0") else None


def _text(pid: int, name: str) -> str | None:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return None  # another user's, or only root's


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _tail(path: Path, start: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(1 << 20).decode(errors="replace")
    except OSError:
        return ""
