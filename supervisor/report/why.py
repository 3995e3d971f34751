"""Why each attempt ended, where that was read, and what was decided.

Written for somebody who was woken up by it: what happened first, then how it
is known, then what the supervisor did, and at the end what there is to do.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, TextIO

from supervisor.journal import read_run
from supervisor.report.find import check_run
from supervisor.report.fold import NO_END, Attempt, RunHistory, fold
from supervisor.report.live import Live, look
from supervisor.report.status import left_board, state_of
from supervisor.report.words import CAUSES, STATES, clock, decided, duration, happened, one_line, origin


def why(run_dir: Path, live: Live) -> dict[str, Any]:
    """Tell what happened to a run.

    Args:
        run_dir: the run's directory.
        live: what its supervisor says, from `supervisor.report.live.look`.

    Returns:
        `{"name", "state", "reason", "attempts": [{"attempt", "started", "ended", "source", "resumed_step", "step",
        "cause", "evidence", "root", "details", "decision", "delay_s", "reason", "logs"}], "incidents", "board"}`;
        unknown is None.

    Raises:
        DiskError: the journal cannot be read.
    """
    history = fold(read_run(run_dir))
    state = state_of(history, live)
    return {
        "name": history.name or run_dir.resolve().name,
        "state": state,
        "reason": history.reason,
        "stopped_by": history.stopped_by,
        "attempts": [_attempt(a, history, state, run_dir) for a in history.attempts],
        "incidents": [
            {"time": i.time, "attempt": i.attempt, "cause": i.cause, "detail": i.detail, "decision": i.decision}
            for i in history.incidents
        ],
        "board": live.board,
        "final": None if history.final is None else str(run_dir / history.final),
    }


def print_why(run_dir: Path, *, as_json: bool, out: TextIO | None = None) -> None:
    """Print what happened to a run.

    Raises:
        JobError: ``run_dir`` holds no run.
        DiskError: the journal cannot be read.
    """
    check_run(run_dir)
    live = look(run_dir)
    told = why(run_dir, live)
    (out or sys.stdout).write(f"{json.dumps(told, indent=1) if as_json else text(told, live)}\n")


def text(told: dict[str, Any], live: Live) -> str:
    """What `why` found, for people."""
    attempts = told["attempts"]
    lines = [f"{one_line(told['name'])}: {STATES.get(told['state'], told['state'])}"]
    if not attempts:
        lines.append("  no attempt has been made yet")
    for attempt in attempts:
        lines += ["", *_paragraph(attempt)]
    others = [i for i in told["incidents"] if not _is_an_end(i, attempts)]
    if others:
        lines += ["", "also happened"]
        lines += [f"  {clock(i['time'])}  {_incident(i)}" for i in others]
    lines += [f"\n{closing}" for closing in _closing(told, live)]
    return "\n".join(lines)


def _attempt(attempt: Attempt, history: RunHistory, state: str, run_dir: Path) -> dict[str, Any]:
    lost = attempt.ended is None and attempt is history.attempts[-1] and state == "interrupted"
    counted = attempt in history.counted
    return {
        "attempt": attempt.number,
        "started": attempt.started,
        "ended": attempt.ended,
        "source": attempt.source,
        "resumed_step": attempt.resumed,
        "step": attempt.step,
        "cause": "unknown" if lost else attempt.cause,
        "evidence": NO_END if lost else attempt.evidence,
        "root": attempt.root,
        "details": attempt.details,
        "decision": attempt.decision,
        "delay_s": attempt.delay_s,
        "reason": attempt.reason,
        "logs": str(run_dir / "logs" / f"attempt-{attempt.number}") if counted else None,
    }


def _paragraph(attempt: dict[str, Any]) -> list[str]:
    lasted = f", {duration(attempt['ended'] - attempt['started'])} long" if attempt["ended"] is not None else ""
    lines = [f"attempt {attempt['attempt']}, {clock(attempt['started'])}{lasted}"]
    lines.append(f"  trained    {_trained(attempt)}")
    if attempt["cause"] is None:
        return [*lines, "  is under way"]
    cause = attempt["cause"]
    lines.append(f"  ended      {CAUSES.get(cause, 'for a cause of another release')} ({one_line(cause)})")
    lines.append(f"  known by   {one_line(attempt['evidence']) or 'nothing was recorded'}")
    lines += [f"             {one_line(detail)}" for detail in attempt["details"]]
    if attempt["decision"] is not None:
        reason = one_line(attempt["reason"])
        because = f": {reason}" if reason and reason != one_line(attempt["evidence"]) else ""
        lines.append(f"  then       {decided(attempt['decision'], attempt['delay_s'])}{because}")
    if attempt["logs"] is not None and cause not in ("finished", "user_stop", "preempted", "time_limit"):
        lines.append(f"  logs       {attempt['logs']}")
    return lines


def _trained(attempt: dict[str, Any]) -> str:
    if attempt["resumed_step"] is None:
        return "never began"
    begun = origin(attempt["resumed_step"], attempt["source"])
    return f"{begun} to step {attempt['step']}" if attempt["step"] is not None else f"{begun}"


def _incident(incident: dict[str, Any]) -> str:
    decision = one_line(incident["decision"])
    return happened(incident["cause"], incident["detail"]) + (f"; {decision}" if decision else "")


def _is_an_end(incident: dict[str, Any], attempts: list[dict[str, Any]]) -> bool:
    """Whether an incident repeats what is told about an attempt's end."""
    return any(
        a["attempt"] == incident["attempt"] and a["cause"] == incident["cause"] and a["evidence"] == incident["detail"]
        for a in attempts
    )


def _closing(told: dict[str, Any], live: Live) -> list[str]:
    """What there is to do now."""
    lines = []
    match told["state"]:
        case "gave_up":
            lines.append(f"gave up: {one_line(told['reason']) or 'no reason was recorded'}")
            lines.append("when the cause is mended: `supervisor run JOB --forgive`")
        case "interrupted":
            lines.append("`supervisor run JOB`, the same command as before, goes on with it")
        case "stopped":
            lines.append(
                f"stopped by {one_line(told['stopped_by']) or 'its user'}; `supervisor run JOB` goes on with it"
            )
        case "finished" if told["final"] is not None:
            lines.append(f"the adapter is in {told['final']}")
    if (board := left_board(live)) is not None:
        lines.append(f"board {board}")
    return lines
