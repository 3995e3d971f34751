"""`supervisor run --detach`: the same command in a session of its own, its output in a file.

What this does not protect against: systemd-logind with KillUserProcesses=yes, which ends
everything of a user at logout, and with RemoveIPC=yes, which sweeps the user's /dev/shm; for
both `loginctl enable-linger` is needed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

#: A job file that cannot work is refused well within this [s].
SETTLE_S = 20.0


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
    with log.open("ab") as output:
        began = output.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "supervisor", *arguments],
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


def _owner(run_dir: Path) -> int | None:
    """Pid of the supervisor that wrote last."""
    try:
        told = json.loads((run_dir / "progress.json").read_text())
    except (OSError, ValueError):
        return None
    return told.get("pid") if isinstance(told, dict) else None
