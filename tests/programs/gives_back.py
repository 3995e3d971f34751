"""A supervisor's stay with a job and without a training: told to go, it hands the job back.

gives_back.py RUN_DIR [--struck]: every start is written down; the first one waits for SIGTERM, or for the
file `go`. With --struck its own nodes have hurt the run. Of several tasks the first one leads, the others
do nothing.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from supervisor.engine.allocation import Allocation
from supervisor.launch.slurm import incarnation
from supervisor.policy.strikes import Strikes


def main() -> int:
    run_dir = Path(sys.argv[1])

    def write(event: str, **fields: Any) -> None:
        with (run_dir / "journal").open("a") as file:
            file.write(json.dumps({"event": event, **fields}) + "\n")

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if os.environ["SLURM_PROCID"] != "0":
        return 0
    at = incarnation(os.environ)
    assert at is not None
    allocation = Allocation(at, run_dir, write)
    after = os.environ.get("SUPERVISOR_AFTER")
    write("allocation_started", allocation=at.name, nodes=list(at.nodes), after=after, arguments=sys.argv[2:])
    if at.restart or after:
        allocation.close("finished")
        return 0
    received = None
    while received is None and not (run_dir / "go").exists():
        allocation.time_is_up(time.time(), 0.0)
        received = signal.sigtimedwait({signal.SIGTERM}, 0.1)
    if received is not None:
        allocation.why("received SIGTERM")
    if not allocation.cancelled:
        allocation.hand_back(strikes=Strikes(at.nodes if "--struck" in sys.argv else ()))
    allocation.close("stopped" if allocation.cancelled else "interrupted")
    return 130 if allocation.cancelled else 75


if __name__ == "__main__":
    sys.exit(main())
