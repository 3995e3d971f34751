"""Requests to the owner of a run, left in `control/` from any machine that sees the directory."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from supervisor.whole import write_whole

_STOP = "stop"


def ask_stop(run_dir: Path, now_s: float) -> Path:
    """Leave a request to drain and stay stopped; asking twice is asking once.

    Args:
        run_dir: of the run.
        now_s: wall time, for the record [s].
    """
    directory = run_dir / "control"
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / _STOP
    write_whole(path, json.dumps({"time": now_s, "by": f"pid {os.getpid()} on {socket.gethostname()}"}))
    return path


def stop_asked(run_dir: Path) -> str | None:
    """Who asked the run to stop, or None; a disk that cannot be read says nothing, and is asked again."""
    try:
        told: Any = json.loads((run_dir / "control" / _STOP).read_text())
    except (PermissionError, ValueError, RecursionError):
        return "somebody"  # the request is there; who made it cannot be read
    except OSError:
        return None
    return str(told.get("by") or "somebody") if isinstance(told, dict) else "somebody"


def forget_stop(run_dir: Path) -> None:
    """Take the request away: it has been obeyed, or the run is started anew on purpose."""
    (run_dir / "control" / _STOP).unlink(missing_ok=True)
