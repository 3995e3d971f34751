"""A run in a real process, watched from outside and hurt on purpose.

Used by the fault tests and the benchmarks. Nothing sleeps for its own sake: every wait is
for a condition, and fails with the run's own words when it does not come.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from supervisor.board.environment import MARKER
from supervisor.board.pages import CONTROL, Beat, Control, Orders
from supervisor.board.store import PREFIX
from supervisor.journal import JOURNAL, Record, read
from supervisor.launch.processes import marked

PROGRAMS = Path(__file__).parent / "programs"
SHM = Path("/dev/shm")
#: What is promised within seconds may take so much longer where other tests use the machine [s]; less than the 30 s
#: for which torch's agent would leave ranks alone. `BUSY_S=0` holds it to the promise itself.
BUSY_S = float(os.environ.get("BUSY_S", "20"))
#: A program that is held at a place, on a busy machine, is not stalled.
HELD_LONG = {"stall_after": "600 s"}
T = TypeVar("T")


def until(condition: Callable[[], T | None], what: str, patience_s: float = 240.0) -> T:
    """Wait for a condition to give something true."""
    end_s = time.monotonic() + patience_s
    while time.monotonic() < end_s:
        found = condition()
        if found:
            return found
        time.sleep(0.005)  # the pace of looking, not a guess at how long it takes
    raise AssertionError(f"no {what} within {patience_s:.0f} s")


@dataclass
class Run:
    """One run directory and the supervisors that are started on it, one after the other.

    Attributes:
        program: by default programs/own_loop.py where `args` name a model for it, else programs/tiny_trainer.py.
    """

    base: Path
    args: dict[str, Any] = field(default_factory=dict)
    job: dict[str, Any] = field(default_factory=dict)
    program: str = ""
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def run_dir(self) -> Path:
        return Path(self.job.get("run_dir", self.base / "run"))

    @property
    def out(self) -> Path:
        return self.base / "out"

    def write_job(self) -> Path:
        self.base.mkdir(parents=True, exist_ok=True)
        job = {
            "program": self.program or str(PROGRAMS / ("own_loop.py" if "model" in self.args else "tiny_trainer.py")),
            "run_dir": str(self.run_dir),
            "args": {"out": str(self.out), **self.args},
            "launch": {"processes_per_node": 2},
            **self.job,
            "recovery": {**HELD_LONG, **self.job.get("recovery", {})},
        }
        path = self.base / "job.yaml"
        path.write_text(yaml.safe_dump(job))
        return path

    def start(self, *flags: str) -> Run:
        command = [sys.executable, "-m", "supervisor", "run", str(self.write_job()), *flags]
        with (self.base / "supervisor.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **self.environment}
            )
        return self

    def wait(self, patience_s: float = 400.0) -> int:
        assert self.process is not None
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {patience_s} s\n{self.said()}") from None

    def run(self, *flags: str) -> int:
        return self.start(*flags).wait()

    def said(self) -> str:
        return (self.base / "supervisor.log").read_text(errors="replace")

    # -- what it tells

    def journal(self, event: str | None = None) -> list[Record]:
        return [r for r in read(self.run_dir / JOURNAL) if event in (None, r.event)]

    def run_id(self) -> str:
        return str(self.journal("run_started")[-1].fields["run_id"])

    def board(self) -> Path:
        return SHM / (PREFIX + self.run_id())

    def beats(self) -> list[Beat]:
        """Of all ranks, as long as the board is there."""
        try:
            control = Control(self.board() / CONTROL)
        except (OSError, IndexError, ValueError):
            return []
        try:
            return [control.beat(rank) for rank in range(control.ranks)]
        finally:
            control.close()

    def wait_for_step(self, step: int, *, attempt: int | None = None) -> list[Beat]:
        """Until every rank of a living attempt has settled so many steps."""

        def reached() -> list[Beat] | None:
            self.still_runs()
            beats = self.beats()
            if attempt is not None and len(self.journal("attempt_started")) < attempt:
                return None
            return beats if beats and all(b.pid and b.resumed >= 0 and b.step >= step for b in beats) else None

        return until(reached, f"step {step}")

    def wait_for_event(self, event: str, count: int = 1) -> list[Record]:
        def there() -> list[Record] | None:
            found = self.journal(event)
            if len(found) < count:
                self.still_runs()
            return found if len(found) >= count else None

        return until(there, f"{event} × {count}")

    def start_committing(self, *steps: int, ranks: int = 2) -> None:
        """Start, and have training wait in the step after each of these until its checkpoint is on disk.

        By itself it may be ahead of its commits: then the newest that is due is made, and others are passed over.
        """
        for step in steps:
            self.place(f"step-{step + 1}")
        self.start()
        for step in steps:
            self.wait_at(f"step-{step + 1}", ranks)
            self.wait_for_commit(step)
            self.let_go(f"step-{step + 1}")

    def wait_for_commit(self, step: int) -> None:
        """Until the checkpoint of this step is on disk."""

        def there() -> bool:
            self.still_runs()
            return step in [record.count("step") for record in self.journal("checkpoint_committed")]

        until(there, f"checkpoint of step {step}")

    def wait_for_drain(self) -> None:
        """Until ranks have been told to wait at their next step; whoever is let go earlier may be past it by then."""

        def told() -> bool:
            self.still_runs()
            return all(orders.drain for orders in self.orders())

        until(told, "word to the ranks")

    def orders(self) -> list[Orders]:
        """What the ranks of each node are told."""
        return [orders_on(self.board())]

    def still_runs(self) -> None:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the supervisor left with {self.process.returncode}\n{self.said()}")

    # -- what is done to it

    def place(self, point: str, what: str = "hold") -> None:
        """Have the program hold or raise at one of its named points, see programs/places.py."""
        places = self.out / "places"
        places.mkdir(parents=True, exist_ok=True)
        for left in places.glob(f"{point}.reached-*"):
            left.unlink()
        written = places / f"{point}.written"
        written.write_text(what)
        written.replace(places / point)  # a rank may be there already

    def wait_at(self, point: str, ranks: int = 2) -> None:
        """Until every rank holds there."""

        def there() -> bool:
            self.still_runs()
            return len(list((self.out / "places").glob(f"{point}.reached-*"))) >= ranks

        until(there, f"rank at {point}")

    def let_go(self, point: str) -> None:
        """Let whoever holds there go on."""
        (self.out / "places" / point).unlink()

    def pids(self) -> list[int]:
        """The supervisor and everything it started."""
        assert self.process is not None
        return [self.process.pid, *self.workers()]

    def workers(self) -> list[int]:
        return marked(f"{MARKER}={self.run_id()}/", prefix=True)

    def kill_rank(self, rank: int) -> None:
        os.kill(self.beats()[rank].pid, signal.SIGKILL)

    def kill_tree(self) -> None:
        """SIGKILL to everything, the supervisor first."""
        for pid in self.pids():
            send(pid, signal.SIGKILL)
        assert self.process is not None
        self.process.wait(30)
        until(lambda: not self.workers(), "end of what was killed")

    def signal_tree(self, signum: signal.Signals) -> None:
        """What a scheduler does: every process of the step gets it."""
        for pid in self.pids():
            send(pid, signum)

    # -- what is left of it

    def digests(self) -> dict[str, str]:
        """The result: final adapter, or model, and the optimizer's state at the end."""
        final = self.run_dir / "final"
        (weights,) = [
            final / name for name in ("adapter_model.safetensors", "model.safetensors") if (final / name).exists()
        ]
        files = {"adapter": weights}
        steps = [int(p.name.rpartition("-")[2]) for p in (self.run_dir / "checkpoints").glob("checkpoint-*")]
        files["optimizer"] = self.run_dir / "checkpoints" / f"checkpoint-{max(steps)}" / "optimizer.safetensors"
        return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}

    def log_history(self) -> list[dict[str, Any]]:
        """What the training logged, as the newest checkpoint has it; what depends on the clock left out."""
        steps = [int(p.name.rpartition("-")[2]) for p in (self.run_dir / "checkpoints").glob("checkpoint-*")]
        state = self.run_dir / "checkpoints" / f"checkpoint-{max(steps)}" / "trainer_state.json"
        timed = ("runtime", "per_second")
        rows = json.loads(state.read_text())["log_history"]
        return [{k: v for k, v in row.items() if not k.endswith(timed)} for row in rows]

    def trace(self, rank: int = 0) -> list[dict[str, Any]]:
        """What the program wrote after every optimizer step, over all lives."""
        lines = (self.out / f"trace-{rank}.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]


def orders_on(board: Path) -> Orders:
    """What a node's supervisor tells its ranks."""
    control = Control(board / CONTROL)
    try:
        return control.orders()
    finally:
        control.close()


def send(pid: int, signum: signal.Signals) -> None:
    """A signal to a process that may be gone."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return


def fill(place: Path) -> Path:
    """Take the last byte of a file system."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass
    return ballast


def command(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """One `supervisor` command, with what it printed."""
    return subprocess.run(
        [sys.executable, "-m", "supervisor", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
        check=False,
    )


def redone(run: Run) -> list[int]:
    """Settled steps lost at each resume: newest settled of all attempts before, minus the one resumed from."""
    starts = run.journal("training_started")
    return [
        max(r.count("step") or 0 for r in run.journal("attempt_ended") if (r.attempt or 0) < (start.attempt or 0))
        - (start.count("step") or 0)
        for start in starts[1:]
    ]
