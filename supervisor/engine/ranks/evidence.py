"""What an attempt left behind on this node: each rank's record, the end of its log, and the launcher's report.

Read once, when nobody lives any more, and on a thread: a file system that hangs must not hold up the next attempt.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.board.pages import Beat, Phase
from supervisor.policy.causes import RankEnd
from supervisor.policy.signatures import best, recognise, telling_lines

#: So much of the end of a log is read [bytes].
TAIL_BYTES = 64 << 10
#: Characters that all ranks of a node may say together: they go over the link in one frame, in which one takes up to
#: six bytes.
_ROOM = 60_000
_MOST_LINES, _MOST_NAMES, _WORD = 8, 12, 32
#: A program that has none of our hooks never says that it trains; after so long it may [s].
_SURELY_EARLY_S = 60.0
_EARLY_PHASES = ("absent", "starting", "loading")

#: torch's agent and accelerate, in the launcher's log.
_REPORTED = re.compile(r"^\s*rank\s*: (\d+) \(local_rank: \d+\)\s*\n\s*exitcode\s*: (-?\d+) \(pid: \d+\)", re.MULTILINE)
_FAILED = re.compile(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+) \(pid: \d+\)")
_DIED = re.compile(r"died with <Signals\.(SIG\w+): \d+>")


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known of a node's ranks without reading a file.

    Attributes:
        logs: directory of the attempt's logs.
        launcher_log: of this node.
        first_rank: global rank of the lowest rank here.
        ranks: how many.
        ended: local rank to the time when its process was seen to be gone [unix s], of those that we did not kill.
        finished: local ranks whose program returned.
        exits: local rank to its exit code, or its signal's negative number, where that is known.
        oom_kills: how many processes the kernel killed for memory since the attempt began; None while unknown.
        beats: what each rank published last.
        killed: local ranks whose processes the kernel's log names as killed for memory; none where it may not be read.
    """

    logs: Path
    launcher_log: Path
    first_rank: int
    ranks: int
    ended: Mapping[int, float]
    finished: frozenset[int]
    exits: Mapping[int, int]
    oom_kills: int | None
    beats: Sequence[Beat]
    killed: frozenset[int] = frozenset()


def ends_of(scene: Scene) -> tuple[RankEnd, ...]:
    """How the ranks ended that ended badly before they were killed, as far as it can be read."""
    told = {**reported(_tail(scene.launcher_log), scene.first_rank, scene.ranks), **scene.exits}
    room = max(200, _ROOM // max(1, scene.ranks) // 3)
    found = []
    for rank in range(scene.ranks):
        recorded = _recorded(scene, rank, room)
        if recorded is not None:
            found.append(recorded)
        elif rank in scene.ended and rank not in scene.finished:
            found.append(_unrecorded(scene, rank, told.get(rank), room))
    return tuple(found)


def _recorded(scene: Scene, rank: int, room: int) -> RankEnd | None:
    try:
        told = json.loads((scene.logs / f"rank-{scene.first_rank + rank}.error.json").read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(told, dict):
        return None
    code, number, time = told.get("exit_code"), told.get("errno"), told.get("time")
    return RankEnd(
        rank=scene.first_rank + rank,
        time_s=float(time) if isinstance(time, int | float) else 0.0,
        error_type=str(told.get("type")),
        bases=_texts(told.get("bases"), _MOST_NAMES, room // _MOST_NAMES),
        message=str(told.get("message", ""))[:room],
        exit_code=code if type(code) is int else None,
        errno=number if type(number) is int else None,
        chain=_texts(told.get("chain"), _MOST_LINES, room // _MOST_LINES),
        began=_began(told),
        phase=str(told["phase"])[:_WORD] if "phase" in told else None,
        step=_step(told.get("step")),
        lines=_last_lines(scene, rank, room),
        node=scene.first_rank // scene.ranks,
        oom_kills=scene.oom_kills,
        held_bytes=_held(told.get("oom")),
    )


def _held(told: Any) -> int | None:
    """What torch had reserved when its device was full [B]."""
    held = told.get("reserved_bytes") if isinstance(told, Mapping) else None
    return held if type(held) is int and held >= 0 else None


def _unrecorded(scene: Scene, rank: int, code: int | None, room: int) -> RankEnd:
    beat = scene.beats[rank]
    return RankEnd(
        rank=scene.first_rank + rank,
        time_s=scene.ended[rank],
        exit_code=code if code is not None and code >= 0 else None,
        signal=None if code is None or code >= 0 else _name(-code),
        began=True if beat.resumed >= 0 else None,
        phase=_phase(beat.phase),
        step=_step(beat.step),
        lines=_last_lines(scene, rank, room),
        node=scene.first_rank // scene.ranks,
        oom_kills=max(1, scene.oom_kills or 0) if rank in scene.killed else scene.oom_kills,
    )


def _step(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def _phase(number: int) -> str | None:
    return Phase(number).name.lower() if number in Phase.__members__.values() else None


def _began(told: Mapping[str, Any]) -> bool | None:
    """Whether training had begun: a program without our hooks stays in its first phase while it trains."""
    phase, age_s = told.get("phase"), told.get("age_s")
    if not isinstance(phase, str):
        return None
    if phase not in _EARLY_PHASES:
        return True
    early = told.get("hooked") is True or (isinstance(age_s, int | float) and age_s < _SURELY_EARLY_S)
    return False if early else None


def reported(log: str, first_rank: int, ranks: int) -> dict[int, int]:
    """Exit codes that a launcher told, by local rank; a signal's number is negative.

    Source:
        torch, distributed/elastic/multiprocessing/api.py and errors/__init__.py; accelerate, commands/launch.py
        (`simple_launcher`: one process, whose end is a `CalledProcessError`).

    >>> reported("failed (exitcode: -9) local_rank: 1 (pid: 77) of binary: python", 2, 2)
    {1: -9}
    >>> reported("Command '['python']' died with <Signals.SIGSEGV: 11>.", 0, 1)
    {0: -11}
    """
    found = {int(rank): int(code) for code, rank in _FAILED.findall(log)}
    found.update((int(rank) - first_rank, int(code)) for rank, code in _REPORTED.findall(log))
    died = _DIED.search(log)
    if died is not None and ranks == 1 and died[1] in signal.Signals.__members__:
        found.setdefault(0, -signal.Signals[died[1]].value)
    return {rank: code for rank, code in found.items() if 0 <= rank < ranks}


def _last_lines(scene: Scene, rank: int, room: int) -> tuple[str, ...]:
    """The telling lines of a rank's log, and what the interpreter said of its own death."""
    name = f"rank-{scene.first_rank + rank}"
    stacks = telling_lines(_tail(scene.logs / f"{name}.stacks.txt"))
    told = [*(one for one in stacks if one.startswith("Fatal ")), *telling_lines(_tail(scene.logs / f"{name}.log"))]
    return tuple(one[: room // _MOST_LINES] for one in told[-_MOST_LINES:])


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            return file.read(TAIL_BYTES).decode(errors="replace")
    except OSError:
        return ""


def launcher_words(log: Path, code: int) -> str:
    """The line that says why a launcher ended, or its last one."""
    lines = telling_lines(_tail(log))
    if not lines:
        return f"exit code {code}"
    told = best(recognise(line, "log") for line in reversed(lines))
    return f"exit code {code}, {(told.line if told is not None and not told.signature.cascade else lines[-1])[:500]}"


def _texts(values: Any, most: int, length: int) -> tuple[str, ...]:
    return tuple(str(one)[:length] for one in values[:most]) if isinstance(values, list) else ()


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time one
