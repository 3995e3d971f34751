"""The demo's faults: a rank killed, the whole tree terminated, a checkpoint torn; then the bits are compared."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from supervisor.board.environment import MARKER
from supervisor.checkpoint.inventory import newest_intact
from supervisor.engine.leading import leaving_code
from supervisor.errors import ExitCode
from supervisor.journal import JOURNAL, read
from supervisor.launch.processes import marked
from supervisor.report.live import look
from supervisor.watch.signals import Inbox

Say = Callable[[str], None]

#: A demo that makes no step within this is stuck [s].
PATIENCE_S = 300.0


@dataclass(slots=True)
class Disturbed:
    """A run in a process of its own, so that it can be hurt.

    Attributes:
        run_dir: of the run.
        overrides: `--set` for its job.
        inbox: signals to this process; they end the run, too.
    """

    run_dir: Path
    overrides: Sequence[str]
    inbox: Inbox

    def start(self, *, fresh: bool = False) -> subprocess.Popen[bytes]:
        """Run the demo's job here, as a user would."""
        command = [sys.executable, "-m", "supervisor", "run", str(files("jobs") / "demo.yaml")]
        for one in (f"run_dir={self.run_dir}", *self.overrides):
            command += ["--set", one]
        return subprocess.Popen([*command, *(["--fresh"] if fresh else [])], stderr=subprocess.DEVNULL)

    def wait_for_step(self, step: int, process: subprocess.Popen[bytes]) -> None:
        """Until so many steps are settled.

        Raises:
            RuntimeError: the run ended, or made no step for too long.
        """
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            if caught := self.inbox.read():
                end(process)
                raise InterruptedDemoError(caught)
            progress = look(self.run_dir).progress
            if progress is not None and progress.pid == process.pid and (progress.step or 0) >= step:
                return
            if process.poll() is not None:
                raise RuntimeError(f"the run ended with {process.returncode} before step {step}")
            time.sleep(0.05)
        end(process)
        raise RuntimeError(f"step {step} was not reached within {PATIENCE_S:.0f} s")

    def finish(self, process: subprocess.Popen[bytes]) -> None:
        """Until the run has finished.

        Raises:
            RuntimeError: it ended in another way.
        """
        if caught := wait_or_end(process, self.inbox):
            raise InterruptedDemoError(caught)
        if process.returncode != ExitCode.FINISHED:
            raise RuntimeError(f"the run did not finish; see `supervisor why {self.run_dir}`")

    def run_id(self) -> str:
        """Of the run; every start writes it."""
        started = [r for r in read(self.run_dir / JOURNAL) if r.event == "run_started"]
        return str(started[-1].fields["run_id"])

    def a_rank(self) -> int:
        """Pid of the last rank of the newest attempt."""
        ready = [r for r in read(self.run_dir / JOURNAL) if r.event == "workers_ready"]
        return int(ready[-1].fields["pids"][-1])

    def tree(self, process: subprocess.Popen[bytes]) -> list[int]:
        """The supervisor and everything that it started."""
        return [process.pid, *marked(f"{MARKER}={self.run_id()}/", prefix=True)]


class InterruptedDemoError(Exception):
    """Somebody wants the demo to end.

    Attributes:
        caught: the signals that said so.
    """

    def __init__(self, caught: list[signal.Signals]) -> None:
        super().__init__(caught)
        self.caught = caught


def wait_or_end(process: subprocess.Popen[bytes], inbox: Inbox) -> list[signal.Signals]:
    """Wait for a process, but end it as soon as a signal comes; returns the signals."""
    while process.poll() is None:
        if select.select([inbox.fd], [], [], 0.1)[0]:
            end(process)
            return inbox.read()
    return inbox.read()


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process politely; a supervisor drains."""
    if process.poll() is None:
        process.terminate()
        process.wait()


def survive(directory: Path, overrides: Sequence[str], inbox: Inbox, say: Say) -> ExitCode:
    """Train undisturbed, train disturbed, compare the results bit for bit.

    Args:
        directory: of both runs.
        overrides: `--set` for both.
        inbox: signals.
        say: for people.

    Returns:
        Finished if the bits are the same, a bug if they are not.
    """
    try:
        return _survive(
            Disturbed(directory / "undisturbed", overrides, inbox),
            Disturbed(directory / "disturbed", overrides, inbox),
            say,
        )
    except InterruptedDemoError as interrupted:
        return leaving_code(interrupted.caught)


def _survive(quiet: Disturbed, hurt: Disturbed, say: Say) -> ExitCode:
    say("1. an undisturbed run, for comparison …")
    quiet.finish(quiet.start(fresh=(quiet.run_dir / JOURNAL).exists()))
    say("2. the same, disturbed")
    process = hurt.start(fresh=(hurt.run_dir / JOURNAL).exists())
    hurt.wait_for_step(8, process)
    pid = hurt.a_rank()
    say(f"   kill -9 of rank 1 (pid {pid}) …")
    os.kill(pid, signal.SIGKILL)
    hurt.wait_for_step(22, process)
    say("   SIGTERM to every process of the run …")
    _terminate(hurt, process, say)
    process = hurt.start()
    hurt.wait_for_step(34, process)
    say("   SIGTERM again, and a flipped bit in the newest checkpoint …")
    _terminate(hurt, process, say)
    _tear(hurt, say)
    hurt.finish(hurt.start())
    return _compare(quiet.run_dir, hurt.run_dir, say)


def _terminate(hurt: Disturbed, process: subprocess.Popen[bytes], say: Say) -> None:
    began_s = time.monotonic()
    for pid in hurt.tree(process):
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
    code = process.wait()
    newest = newest_intact(hurt.run_dir / "checkpoints", hurt.run_id()).intact
    kept = newest.path.name if newest is not None else "no checkpoint"
    say(f"   … exit code {code} after {time.monotonic() - began_s:.1f} s, newest intact: {kept}; starting again")


def _tear(hurt: Disturbed, say: Say) -> None:
    newest = newest_intact(hurt.run_dir / "checkpoints", hurt.run_id()).intact
    assert newest is not None
    victim = newest.path / "optimizer.safetensors"
    with victim.open("r+b") as file:
        file.seek(victim.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    say(f"   … {newest.path.name} is torn")


def _compare(quiet: Path, hurt: Path, say: Say) -> ExitCode:
    same = True
    say("3. comparison with the undisturbed run")
    for name in ("final/adapter_model.safetensors", _last(quiet, "optimizer.safetensors")):
        one, other = (hashlib.sha256((d / name).read_bytes()).hexdigest() for d in (quiet, hurt))
        same = same and one == other
        say(f"   {'identical' if one == other else 'DIFFERENT'}  {name}  {one[:16]} {other[:16]}")
    redone = [json.dumps(dict(r.fields)) for r in read(hurt / JOURNAL) if r.event == "incident"]
    say(f"   {len(redone)} incidents; `supervisor why {hurt}` tells them")
    return ExitCode.FINISHED if same else ExitCode.BUG


def _last(run_dir: Path, file: str) -> str:
    steps = [int(p.name.rpartition("-")[2]) for p in (run_dir / "checkpoints").glob("checkpoint-*")]
    return f"checkpoints/checkpoint-{max(steps)}/{file}"
