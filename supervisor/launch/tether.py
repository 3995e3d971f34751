"""Run a command that dies with the process that started it: `python -I -S tether.py PID COMMAND…`.

The launcher is not ours and watches nobody, so the kernel is asked to kill it when its
parent goes. A program of its own, because the request must be made after the fork, in the
child, where a threaded parent may run next to nothing. It imports nothing heavy and takes
about ten milliseconds.

Source: prctl(2), PR_SET_PDEATHSIG: cleared by fork, kept by exec; the parent may already
have died, hence the second look.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent and become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
