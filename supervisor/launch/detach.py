"""`supervisor run --detach`: the same command in a session of its own, its output in a file.

Where the user lingers, that is, has services that outlive the logout, it is also moved out of the login's
control group, into a scope of the user's own systemd: then `KillUserProcesses=yes` does not concern it. A user who
does not linger has that systemd ended at the last logout, with all that is in it; so there it stays where it is.

What this does not protect against: systemd-logind with KillUserProcesses=yes, which ends everything at logout of a
user who does not linger, and with RemoveIPC=yes, which sweeps that user's /dev/shm; for both `loginctl
enable-linger` is needed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

#: A job file that cannot work is refused well within this [s].
SETTLE_S = 20.0
#: A systemd that is asked whether it is there, and is, answers well within this [s].
ANSWER_S = 2.0
#: A scope takes a command as it is: its environment, which may hold secrets, its directory, and its pid.
SCOPE = ["systemd-run", "--user", "--scope", "--quiet", "--collect"]


def detach(arguments: list[str], run_dir: Path) -> int:
    """Start `supervisor` again without a terminal, and see that it took the run.

    Args:
        arguments: of the command, without ``--detach``.
        run_dir: of the run; it exists and is a run's.

    Returns:
        0 once it runs; its own exit code if it ended before that.
    """
    log = run_dir / "supervisor.log"
    log.touch(mode=0o600)
    command = [sys.executable, "-m", "supervisor", *arguments]
    with log.open("ab") as output:
        began = output.tell()
        process = subprocess.Popen(
            [*scope(run_dir.name, os.getpid()), *command] if outlives_logout() else command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    until_s = time.monotonic() + SETTLE_S
    while process.poll() is None and time.monotonic() < until_s:
        if _owner(run_dir) == process.pid:
            print(f"running as pid {process.pid}; `supervisor watch {run_dir}` shows it", file=sys.stderr)  # noqa: T201
            process.returncode = 0  # it outlives us: nothing is to be waited for
            return 0
        time.sleep(0.05)
    with log.open("rb") as output:
        output.seek(began)
        sys.stderr.write(output.read().decode(errors="replace"))
    if process.returncode is None:
        process.returncode = 0  # it outlives us
        print(f"pid {process.pid} has not begun yet; see {log}", file=sys.stderr)  # noqa: T201
        return 0
    return process.returncode


def scope(name: str, number: int) -> list[str]:
    """What goes before a command that is to be in a scope of its own.

    >>> scope("my run", 7)[-2:]
    ['--unit=supervisor-my-run-7', '--']
    """
    return [*SCOPE, f"--unit=supervisor-{re.sub(r'[^A-Za-z0-9_.]+', '-', name)[:100]}-{number}", "--"]


def outlives_logout() -> bool:
    """Whether the user's own systemd answers, makes scopes, and outlives the logout.

    Source:
        loginctl(1), enable-linger; systemd-run(1), --scope: "executed directly".
    """
    return _says(["loginctl", "show-user", str(os.getuid()), "--property=Linger", "--value"]) == "yes" and (
        _says([*SCOPE, "--", "true"]) is not None
    )


def _says(command: list[str]) -> str | None:
    """What a command prints; None if it fails, is not there, or does not answer."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=ANSWER_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None


def _owner(run_dir: Path) -> int | None:
    """Pid of the supervisor that wrote last."""
    try:
        told = json.loads((run_dir / "progress.json").read_text())
    except (OSError, ValueError):
        return None
    return told.get("pid") if isinstance(told, dict) else None
