"""What is done to the runs of the fault matrix: each function makes a run, hurts it, and waits for its end.

What is done around them stands in faults_around.py; the programs stand in tests/programs.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness import PROGRAMS, Run, command, send
from tests.memory_groups import limited, may_make_groups
from tests.small_runs import run_of

#: One process, and two ranks that sum their gradients, with what has broken resumes.
ALONE: dict[str, Any] = {"max_steps": 12, "eval-steps": 5}
PAIR: dict[str, Any] = {"max_steps": 12, "workers": 1, "accumulate": 2, "eval-steps": 5}
#: Sample 21 comes at step 8 of two ranks' only epoch, where nothing is accumulated.
POISON, POISONED_STEP = 21, 8
SNAPSHOTS = {"snapshot": "1 step"}
#: So much for a rank and two of the loaders of programs/meets.py, and not for four.
LIMIT_BYTES = 3400 << 20
#: One group of processes at a time has the name that tests/memory_groups.py gives it.
_GROUPS = threading.Lock()


@dataclass(frozen=True)
class Done:
    """A run that was hurt, and with what each of its supervisors left, the leader first."""

    run: Run
    codes: tuple[int, ...]


Doing = Callable[[Path], Done]


def alone(base: Path, program: str = "tiny_trainer", job: dict[str, Any] | None = None, **args: Any) -> Run:
    """A run of one process; nothing stands by, so that the runs beside it have the machine."""
    usual = {"launch": {"processes_per_node": 1, "standby": "off"}, "checkpoint": SNAPSHOTS}
    made = Run(base, args={**ALONE, **args}, job={**usual, **(job or {})}, program=str(PROGRAMS / f"{program}.py"))
    base.mkdir(parents=True, exist_ok=True)
    return made


def pair(base: Path, **args: Any) -> Run:
    """A run of two ranks on one node."""
    launch = {"processes_per_node": 2, "standby": "off"}
    return Run(base, args={**PAIR, **args}, job={"launch": launch, "checkpoint": SNAPSHOTS})


def held(run: Run, point: str, ranks: int = 1) -> Run:
    """A run whose ranks hold at a point."""
    run.place(point)
    run.start().wait_at(point, ranks)
    return run


def ended(run: Run, *before: int) -> Done:
    """Once the supervisor that is at it has left."""
    return Done(run, (*before, run.wait()))


def again(run: Run) -> Done:
    """The same command once more, after the supervisor left."""
    code = run.wait()
    return ended(run.start(), code)


def undisturbed(base: Path) -> Done:
    return ended(alone(base).start())


def met(how: str, job: dict[str, Any] | None = None, **args: Any) -> Doing:
    """A program that meets with something by itself, see programs/meets.py."""
    return lambda base: ended(alone(base, "meets", job, how=how, **args).start())


def failing(program: str, how: str, **job: Any) -> Doing:
    """A program that never gets as far as training."""
    launch = {"processes_per_node": 1, "standby": "off"}

    def does(base: Path) -> Done:
        made = Run(base, args={"how": how}, job={"launch": launch, **job}, program=str(PROGRAMS / f"{program}.py"))
        return ended(made.start())

    return does


# -- processes


def rank_killed(base: Path) -> Done:
    run = held(pair(base), "substep-5", 2)
    run.kill_rank(1)
    run.let_go("substep-5")
    return ended(run)


def rank_stopped(base: Path) -> Done:
    run = pair(base, sleep=0.1)
    run.job["recovery"] = {"stall_after": "8 s"}
    held(run, "substep-7", 2)
    os.kill(run.beats()[1].pid, signal.SIGSTOP)
    run.let_go("substep-7")
    return ended(run)


def tree_killed(base: Path) -> Done:
    run = held(alone(base), "step-6")
    run.kill_tree()
    run.let_go("step-6")
    return again(run)


def asked(ask: Callable[[Run], object], heard: str) -> Doing:
    """Asked to leave in the middle, and started again."""

    def does(base: Path) -> Done:
        run = held(alone(base), "step-6")
        ask(run)
        run.wait_for_event(heard)
        run.let_go("step-6")
        return again(run)

    return does


def sigterm(run: Run) -> None:
    run.signal_tree(signal.SIGTERM)


def interrupt(run: Run) -> None:
    assert run.process is not None
    send(run.process.pid, signal.SIGINT)


def stop(run: Run) -> None:
    told = command("stop", "--no-wait", str(run.run_dir))
    assert told.returncode == 0, told.stderr


# -- memory


def loaders_killed(base: Path) -> Done:
    """The kernel kills in a group of processes whose limit is reached."""
    here = may_make_groups()
    assert here is not None
    with _GROUPS, limited(here, LIMIT_BYTES) as group:
        run = alone(base, "meets", how="hunger", workers=4).start()
        assert run.process is not None
        (group / "cgroup.procs").write_text(str(run.process.pid))  # long before it starts anything
        return ended(run)


def gpu_full(base: Path) -> Done:
    return ended(run_of(base, {"fits": 2, "from_sample": 12}).start())


def gpu_too_small(base: Path) -> Done:
    return ended(run_of(base, {"fits": -1}, batch=1).start())


def small_batch(base: Path) -> Done:
    """What a run whose GPU is full is held against."""
    return ended(run_of(base, {}, batch=2, accumulate=2).start())


# -- the loss


def poisoned(base: Path) -> Done:
    return ended(pair(base, accumulate=1, poison=POISON).start())


def left_out(base: Path) -> Done:
    """What a poisoned run is held against: the program makes no update at that step."""
    return ended(pair(base, **{"accumulate": 1, "leave-out": POISONED_STEP}).start())


def always_wrong(base: Path) -> Done:
    return ended(alone(base, **{"max_steps": 30, "wrong-from": 6}).start())
