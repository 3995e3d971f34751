"""Python drops its handlers while it shuts down; a signal that comes then must not change the exit status."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import atexit, signal
from supervisor.watch.signals import listen

atexit.register(lambda: print(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN))  # runs after what came later
listen([signal.SIGTERM])
"""


def test_what_was_listened_for_is_ignored_once_the_process_is_leaving() -> None:
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert told.stdout == "True\n"
