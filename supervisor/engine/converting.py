"""Asks a process that knows torch to write files in another form; this one never imports it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from supervisor.errors import JobError, MachineError

#: How long is waited at a time [s].
_PAUSE_S = 0.1


def ask(module: str, request: Mapping[str, Any], wait: Callable[[float], None] | None = None) -> list[str]:
    """Have a process of its own do what is asked for.

    Args:
        module: of `supervisor.worker`, which reads one request and answers it.
        request: `form`, `checkpoint`, `target`, and what the form takes.
        wait: lets so many seconds pass, and may raise what ends the process; default: it is just waited for.

    Returns:
        What the user should know.

    Raises:
        JobError: it cannot be had.
        MachineError: the process ended without an answer.
    """
    command = [sys.executable, "-m", f"supervisor.worker.{module}"]
    # What it says besides its answer is talk, and goes where ours goes.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdin is not None
        with process.stdin as sink:
            sink.write(json.dumps(request))
        while wait is not None and process.poll() is None:
            wait(_PAUSE_S)
        assert process.stdout is not None
        with process.stdout as source:
            told = source.read()
        code = process.wait()
    except BrokenPipeError:
        code, told = process.wait(), ""
    finally:
        process.kill()
        process.wait()
    try:
        answer = json.loads(told)
    except ValueError:
        answer = None
    if code != 0 or not isinstance(answer, dict):
        raise MachineError(f"the process that knows torch ({module}) ended with {code}", "see the lines above")
    if "problem" in answer:
        raise JobError(str(answer["problem"]), str(answer["remedy"]))
    return [str(remark) for remark in answer["remarks"]]
