"""Where a run stands: the contract's `status --json`, and the same for people."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from supervisor.journal import read_run
from supervisor.owner import Life
from supervisor.report.figures import history_goodput, steps_redone
from supervisor.report.find import check_run, find_runs
from supervisor.report.fold import ENDED, RunHistory, fold
from supervisor.report.live import Live, Progress, look
from supervisor.report.queue import OVER, Queued, ask, jobs_of, queue_of
from supervisor.report.words import CAUSES, STATES, clock, duration, one_line, origin, share, size

#: A word this old from a machine that cannot be asked is worth a remark [s].
QUIET_S = 30.0


def status(run_dir: Path, now: float, live: Live, queued: Queued | None = None) -> dict[str, Any]:
    """Say where a run stands.

    Args:
        run_dir: the run's directory.
        now: the wall clock [unix s].
        live: what its supervisor says, from `supervisor.report.live.look`.
        queued: what a scheduler says of it; None if none does.

    Returns:
        The contract's `status --json`; what is not known is None.

    Raises:
        DiskError: the journal cannot be read.
    """
    return summary(fold(read_run(run_dir)), run_dir, now, live, queued)


def print_status(run_dir: Path | None, *, as_json: bool, out: TextIO | None = None) -> None:
    """Print where a run stands; without ``run_dir``, every run below the current directory, a line each.

    As JSON, one run is the contract's document, and several are a list of it with `run_dir` added.

    Raises:
        JobError: ``run_dir`` holds no run.
        DiskError: a journal cannot be read.
    """
    to, now = out or sys.stdout, time.time()
    if run_dir is not None:
        check_run(run_dir)
        live = look(run_dir)
        told = status(run_dir, now, live, queued_of([run_dir])[run_dir])
        to.write(f"{json.dumps(told, indent=1) if as_json else block(told, live, now)}\n")
        return
    found = list(find_runs(Path()))
    queued = queued_of(found)
    runs = [(str(one), status(one, now, look(one), queued[one])) for one in found]
    if as_json:
        to.write(f"{json.dumps([{'run_dir': path, **told} for path, told in runs], indent=1)}\n")
    elif runs:
        to.write(f"{listing(runs)}\n")
    else:
        sys.stderr.write("no runs below the current directory\n")


def queued_of(run_dirs: Sequence[Path]) -> dict[Path, Queued | None]:
    """What the scheduler's queue shows of runs, asked once for all of them; None for what it does not know."""
    jobs = {run_dir: jobs_of(run_dir) for run_dir in run_dirs}
    every = [job for found in jobs.values() for job in found]
    told = ask(every) if every else None
    return {run_dir: queue_of(found, told) for run_dir, found in jobs.items()}


def summary(history: RunHistory, run_dir: Path, now: float, live: Live, queued: Queued | None = None) -> dict[str, Any]:
    """Say where a run stands, from its history."""
    state = state_of(history, live, queued)
    word = live.speaking if state not in ENDED else None
    step = step_of(history, live)
    max_steps = (word.max_steps if word else None) or history.max_steps
    rate = word.steps_per_s if word is not None and state == "running" else None
    newest = history.counted[-1] if history.counted else None
    resumed = newest if newest is not None and newest.training is not None and newest.source != "fresh" else None
    commit = history.last_commit
    goodput = history_goodput(history, now, step=step, until=_until(history, now, live))
    return {
        "name": history.name or run_dir.resolve().name,
        "state": state,
        "step": step,
        "max_steps": max_steps,
        "attempt": history.last.number if history.last is not None else None,
        "allocation": history.allocation,
        "resumed_from": None if resumed is None else {"step": resumed.resumed, "source": resumed.source},
        "last_checkpoint": None
        if commit is None
        else {"step": commit.step, "path": str(run_dir / commit.path), "age_s": max(0.0, round(now - commit.time, 3))},
        "steps_per_s": rate,
        "eta_s": eta_s(step, max_steps, rate),
        "goodput": None if goodput is None else round(goodput, 4),
        "steps_redone": steps_redone(history),
        "incidents": [
            {"time": i.time, "attempt": i.attempt, "cause": i.cause, "detail": i.detail, "decision": i.decision}
            for i in history.incidents
        ],
        "loss": _loss(history, live),
        "adapted": None if history.adapted is None else {"time": history.adapted[0], "detail": history.adapted[1]},
        "queue": None if queued is None else queued.as_json(),
        "pace": None if history.pace is None else asdict(history.pace),
        "mirrored": None if history.mirrored is None else history.mirrored[1],
    }


def state_of(history: RunHistory, live: Live, queued: Queued | None = None) -> str:
    """The run's state: its journal's word, its living owner's, or where the owner is dead `interrupted`.

    A job of it that waits in the queue makes that `requeued`: it was put there after the journal's last word.
    """
    if history.state in ENDED or history.state == "pending":
        return history.state
    if live.life is Life.DEAD:
        return "requeued" if queued is not None and queued.state == "PENDING" else "interrupted"
    word = live.speaking
    return word.state if word is not None and word.state is not None else history.state


def step_of(history: RunHistory, live: Live) -> int | None:
    """The newest settled step that anybody knows of."""
    word = _of_this_attempt(history, live)
    known = [step for step in (history.step, word.step if word is not None else None) if step is not None]
    return max(known, default=None)


def eta_s(step: int | None, max_steps: int | None, rate: float | None) -> float | None:
    """Seconds to go at the present rate.

    >>> eta_s(120, 500, 2.0), eta_s(120, None, 2.0)
    (190.0, None)
    """
    if step is None or max_steps is None or rate is None or rate <= 0:
        return None
    return round(max(0, max_steps - step) / rate, 1)


def line(told: dict[str, Any]) -> str:
    """One run in one line."""
    parts = [f"{one_line(told['name'], 24):<24}", f"{told['state']:<11}", f"{_steps(told):<22}"]
    if told["steps_per_s"] is not None:
        parts.append(f"{told['steps_per_s']:.3g} steps/s")
    if told["eta_s"] is not None:
        parts.append(f"{duration(told['eta_s'])} to go")
    if told["attempt"] is not None and told["attempt"] > 1:
        parts.append(f"attempt {told['attempt']}")
    if told["queue"] is not None and told["queue"]["state"] == "PENDING":
        parts.append(_queue(told["queue"]))
    return "  ".join(parts).rstrip()


def listing(runs: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Several runs, a line each, with their directories."""
    lines = [(line(told), path) for path, told in runs]
    width = max((len(text) for text, _ in lines), default=0)
    return "\n".join(f"{text:<{width}}  {path}" for text, path in lines)


def block(told: dict[str, Any], live: Live, now: float) -> str:
    """One run in detail."""
    rows = [("state", STATES.get(told["state"], told["state"])), ("step", _steps(told) + _last_loss(told))]
    if told["queue"] is not None and (told["queue"]["state"] not in OVER or told["state"] == "pending"):
        rows.append(("queue", _queue(told["queue"])))
    if told["steps_per_s"] is not None:
        left = f", {duration(told['eta_s'])} to go" if told["eta_s"] is not None else ""
        rows.append(("speed", f"{told['steps_per_s']:.3g} steps/s{left}"))
    if told["attempt"] is not None:
        rows.append(("attempt", f"{told['attempt']}{_resumed(told)}"))
    if (adapted := told["adapted"]) is not None:
        rows.append(("adapted", f"{one_line(adapted['detail'])}, since {clock(adapted['time'])}"))
    if (last := told["last_checkpoint"]) is not None:
        rows.append(("checkpoint", f"step {last['step']}, {duration(last['age_s'])} ago: {last['path']}"))
    if (pace := told["pace"]) is not None:
        rows.append(("every", _pace(pace)))
    if told["mirrored"] is not None:
        rows.append(("mirror", f"step {told['mirrored']}"))
    if told["goodput"] is not None:
        rows.append(("goodput", share(told["goodput"])))
    if told["steps_redone"] is not None:
        rows.append(("redone", f"{told['steps_redone']} steps"))
    if told["incidents"]:
        rows.append(("incidents", _incidents(told["incidents"])))
    rows += _about_owner(told, live, now)
    return "\n".join([one_line(told["name"]), *(f"  {key:<12}{value}" for key, value in rows)])


def left_board(live: Live) -> str | None:
    """Say that a killed supervisor left its board in memory, if it did."""
    if live.board is None:
        return None
    held = live.progress.board_bytes if live.progress is not None else None
    how_much = f" ({size(held)})" if held is not None else ""
    return f"left in memory by a killed supervisor: {live.board}{how_much}; the next `supervisor run` takes it up"


def _of_this_attempt(history: RunHistory, live: Live) -> Progress | None:
    """The last word, if that was said of the attempt that started last."""
    word, last = live.progress, history.last
    if word is None or last is None or word.attempt != last.number:
        return None
    return word if word.time is not None and word.time >= last.started else None


def _until(history: RunHistory, now: float, live: Live) -> float | None:
    """Until when the last attempt is known to have trained."""
    if live.life is not Life.DEAD:
        return now
    word = _of_this_attempt(history, live)
    return word.time if word is not None and word.time is not None and word.time <= now else None


def _loss(history: RunHistory, live: Live) -> float | None:
    word = live.progress
    if word is None or word.loss is None or not math.isfinite(word.loss):
        return None  # JSON has no NaN
    return word.loss if history.last is not None else None


def _steps(told: dict[str, Any]) -> str:
    if told["step"] is None:
        return "no step yet"
    if told["max_steps"] is None:
        return f"step {told['step']}"
    done = f" ({share(told['step'] / told['max_steps'])})" if told["max_steps"] > 0 else ""
    return f"step {told['step']}/{told['max_steps']}{done}"


def _last_loss(told: dict[str, Any]) -> str:
    return f", loss {told['loss']:.4g}" if told["loss"] is not None else ""


def _resumed(told: dict[str, Any]) -> str:
    resumed = told["resumed_from"]
    return f", resumed {origin(resumed['step'], resumed['source'])}" if resumed is not None else ""


def _queue(queue: dict[str, Any]) -> str:
    """A job as the queue shows it.

    >>> _queue({"job_id": "17_3", "state": "PENDING", "reason": "Priority", "expected_start": None})
    'job 17_3 is PENDING (Priority)'
    """
    reason = f" ({one_line(queue['reason'])})" if queue["reason"] is not None else ""
    start = f", to start at {clock(queue['expected_start'])}" if queue["expected_start"] is not None else ""
    return f"job {queue['job_id']} is {queue['state']}{reason}{start}"


def _pace(pace: dict[str, float | None]) -> str:
    """How often, and why.

    >>> _pace({"every_s": 96.0, "cost_s": 0.05, "between_s": 100800.0})
    '1 min 36 s: one costs 0.05 s of training, and memory is lost once in 1 d 4 h'
    """
    every_s, cost_s, between_s = pace["every_s"] or 0.0, pace["cost_s"], pace["between_s"]
    why = [f"one costs {cost_s:.2g} s of training"] if cost_s is not None else []
    why += [f"memory is lost once in {duration(between_s)}"] if between_s is not None else []
    return f"{duration(every_s)}{': ' if why else ''}{', and '.join(why)}"


def _incidents(incidents: Sequence[dict[str, Any]]) -> str:
    last = incidents[-1]
    what = one_line(last["detail"]) if last["cause"] is None else CAUSES.get(last["cause"], one_line(last["cause"]))
    return f"{len(incidents)}, the last at {clock(last['time'])}: {what}; `supervisor why` tells more"


def _about_owner(told: dict[str, Any], live: Live, now: float) -> list[tuple[str, str]]:
    rows = []
    if live.owner is not None and live.life is not Life.DEAD and told["state"] not in ENDED:
        said = live.speaking.time if live.speaking is not None else None
        age_s = now - said if said is not None else 0.0
        quiet = f", last heard of {duration(age_s)} ago" if age_s > QUIET_S else ""
        rows.append(("supervisor", f"process {live.owner.pid} on {live.owner.host}{quiet}"))
    if (board := left_board(live)) is not None:
        rows.append(("board", board))
    return rows
