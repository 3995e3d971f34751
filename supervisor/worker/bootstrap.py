"""What every rank runs: `python -m supervisor.worker.bootstrap PROGRAM ARGS…`, around any program.

It sends the output to the rank's own log file, records how the program ended, ends the
process when its supervisor dies, and shields the children it forks from stray SIGTERMs.

SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 are blocked before this process starts, by the
supervisor, and so in everything it starts: a scheduler signals every process of a job, and
torch's data-loader workers install a handler of their own that makes them die of it. One real-time signal is not: this
process answers it with the stacks of its threads, also while a call holds the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import runpy
import select
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from supervisor.board.environment import HOOKS, LOGS, PID, STACKS_SIGNAL, STANDBY, TICKS
from supervisor.board.gate import GateClosedError
from supervisor.board.pages import Phase
from supervisor.owner import start_ticks
from supervisor.worker import hooks
from supervisor.worker.seat import Seat, WorldSizeError, seat
from supervisor.worker.standby import stand_by

_PR_SET_PDEATHSIG = 1  # prctl(2)
#: So many exceptions behind one are recorded.
_MOST_BEHIND = 8
#: When the program began [monotonic s]; empty before.
_began_s: list[float] = []


def main() -> None:
    """Run the program named on the command line as this rank."""
    at = seat()
    logs = Path(os.environ[LOGS])
    _redirect(logs / f"rank-{at.rank}.log")
    _tie_to_supervisor(int(os.environ[PID]), int(os.environ[TICKS]))
    # Kept open for the life of the process: faulthandler writes to the descriptor.
    place = logs / f"rank-{at.rank}.stacks.txt"
    place.touch(mode=0o600)
    stacks = place.open("a")
    faulthandler.enable(stacks)
    faulthandler.register(STACKS_SIGNAL, file=stacks, all_threads=True, chain=False)
    os.register_at_fork(after_in_child=_shield_child)
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != at.world_size:
        _record(logs, at, WorldSizeError(f"{at.world_size} processes were wanted, the launcher made {launched}"))
        os._exit(1)
    hooks.install(add=os.environ.get(HOOKS, "auto") == "auto")
    if STANDBY in os.environ:
        try:
            stand_by(at)
        except GateClosedError:
            os._exit(0)
    at.announce(phase=Phase.STARTING)
    program, *arguments = sys.argv[1:]
    try:
        _run(program, arguments, at)
    except SystemExit as end:
        if end.code not in (None, 0):
            _fail(logs, at, end)
    except BaseException as error:
        _fail(logs, at, error)
    _leave_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    at.announce(phase=Phase.FINISHED)


def _run(program: str, arguments: list[str], at: Seat) -> None:
    at.announce(phase=Phase.LOADING)
    _began_s.append(time.monotonic())
    sys.argv = [program, *arguments]
    if program.endswith(".py"):
        sys.path[0] = str(Path(program).resolve().parent)  # as `python program.py` has it
        runpy.run_path(program, run_name="__main__")
    else:
        sys.path[0] = str(Path.cwd())
        runpy.run_module(program, run_name="__main__", alter_sys=True)


def _redirect(log: Path) -> None:
    """Output of Python and of everything below it goes to the log, line by line."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)


def _tie_to_supervisor(pid: int, ticks: int) -> None:
    """End this process when its supervisor is gone, whatever the program is doing then."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        os._exit(1)
    if (start_ticks(pid) or 0) != ticks:
        os._exit(1)  # the pid belongs to somebody else by now

    # The launcher is tied to the supervisor by the kernel, and this process to the launcher: a rank
    # that holds the interpreter's lock for long ends all the same.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    def wait() -> None:
        select.select([watched], [], [])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="supervisor-watch", daemon=True).start()


def _shield_child() -> None:
    """In every forked child: obey a SIGTERM of the parent, no other one, and end with the parent.

    SIGTERM stays blocked, but `Process.terminate` and `Pool.terminate` must still work. A
    thread takes the signal and looks who sent it. Children that exec get a new program and
    keep the blocked mask; children that are spawned rather than forked are not reached.
    """
    parent = os.getppid()

    def watch() -> None:
        while True:
            caught = signal.sigtimedwait({signal.SIGTERM}, 1.0)
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)
            if caught is not None and caught.si_pid == parent:
                os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name="supervisor-shield", daemon=True).start()


def _leave_process_group() -> None:
    """Destroy torch's process group, if the program made one; left open it may abort the exit."""
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        try:
            distributed.destroy_process_group()
        except Exception:  # the program has returned: what its communication still says is no failure of it
            traceback.print_exc()


def _fail(logs: Path, at: Seat, error: BaseException) -> None:
    """Record the end and leave at once: interpreter shutdown can hang in a broken collective."""
    traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        _record(logs, at, error)
    finally:  # a full disk must not keep the end from being told
        at.announce(phase=Phase.FAILED)
        os._exit(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1)


def _record(logs: Path, at: Seat, error: BaseException) -> None:
    """Write rank-<r>.error.json, whole or not at all."""
    told = {
        "time": time.time(),
        "rank": at.rank,
        "pid": os.getpid(),
        "step": at.beat.step,
        "phase": Phase(at.beat.phase).name.lower(),
        "type": _name(error),
        "bases": [f"{b.__module__}.{b.__qualname__}" for b in type(error).__mro__],
        "message": str(error),
        "exit_code": error.code if isinstance(error, SystemExit) else None,
        "errno": _errno(error),
        "chain": [f"{_name(one)}: {one}"[:2000] for one in _behind(error)],
        "hooked": _hooked(),
        "age_s": time.monotonic() - _began_s[0] if _began_s else None,
        "oom": _gpu_memory(error),
        "traceback": "".join(traceback.format_exception(error))[-20_000:],
    }
    target = logs / f"rank-{at.rank}.error.json"
    partial = target.with_suffix(".partial")
    partial.touch(mode=0o600)
    partial.write_text(json.dumps(told, default=str))
    partial.rename(target)


def _name(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _behind(error: BaseException) -> list[BaseException]:
    """What an exception was raised from, or while dealing with, the nearest first: a root hides under wrappers."""
    found: list[BaseException] = []
    seen, one = {id(error)}, error
    while len(found) < _MOST_BEHIND:
        before = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
        if before is None or id(before) in seen:
            break
        found.append(before)
        seen.add(id(before))
        one = before
    return found


def _hooked() -> bool:
    """Whether the program has what tells the board that training begins."""
    added = os.environ.get(HOOKS, "auto") == "auto" and hooks.MODULE in sys.modules
    return added or any(f"supervisor.worker.{name}" in sys.modules for name in ("callback", "session"))


def _errno(error: BaseException) -> int | None:
    """The kernel's number, of the exception or of the nearest one behind it that has one."""
    numbers = (one.errno for one in (error, *_behind(error)) if isinstance(one, OSError))
    return next((number for number in numbers if isinstance(number, int)), None)


def _gpu_memory(error: BaseException) -> dict[str, int] | None:
    """What torch held when its device was full; its own counters, no call to the device, which may hang by now."""
    torch: Any = sys.modules.get("torch")
    full = any(words in str(error).lower() for words in ("out of memory", "alloc_failed"))  # cuBLAS and cuDNN say so
    if torch is None or not full or not torch.cuda.is_initialized():
        return None
    return {
        "allocated_bytes": torch.cuda.memory_allocated(),
        "reserved_bytes": torch.cuda.memory_reserved(),
        "peak_bytes": torch.cuda.max_memory_allocated(),
    }


if __name__ == "__main__":
    main()
