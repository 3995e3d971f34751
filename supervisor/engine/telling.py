"""Keeps the process that tells people alive, on a thread that the loop knows nothing of.

The process is no part of an attempt: it hears of its end by a pipe that closes when this process leaves or
is killed, tells how the run ended, and goes. Where a scheduler kills what a step leaves behind, that must have been
told before this process leaves; so for a moment it is waited for.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

from supervisor.job import Job
from supervisor.job.notify import settings
from supervisor.launch.processes import signals_blocked
from supervisor.report.sending import handed

NOTIFY = "supervisor.report.notify"
#: How long leaving waits for the last message [s].
PATIENCE_S = 2.0
#: Pauses before the process is started again that was killed; after the last one it is let be [s].
PAUSES_S = (1.0, 10.0, 60.0, 600.0)


class Telling:
    """The process that tells people of one stay."""

    def __init__(self, job: Job, host: str, pauses_s: Sequence[float] = PAUSES_S) -> None:
        """Start it.

        Args:
            job: of the run, which has begun.
            host: the name that people know this machine by.
            pauses_s: before each new start of a process that was killed [s].

        Raises:
            OSError: this process may open no more files.
            RuntimeError: it may have no more threads.
        """
        self._settings = json.dumps(settings(job.name, job.run_dir, host, job.notify))
        self._run_dir = str(job.run_dir)
        self._pauses_s = tuple(pauses_s)
        self._bell, self._ringer = os.pipe()
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="telling", daemon=True)
        with signals_blocked():  # signals are for the loop's thread
            self._thread.start()

    def close(self) -> None:
        """Ring, and wait for the last message, but not for long."""
        self._leaving.set()
        os.close(self._ringer)
        self._thread.join(PATIENCE_S)

    def _keep(self) -> None:
        for pause_s in (*self._pauses_s, None):
            with suppress(OSError):
                self._run()
            # One that ended after the bell has told; one that was killed is let be after the last pause.
            if self._leaving.is_set() or pause_s is None:
                return
            self._leaving.wait(pause_s)

    def _run(self) -> None:
        """Start the process, and wait for its end."""
        text = handed(self._settings)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", NOTIFY, self._run_dir, str(self._bell)],
                stdin=text,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[self._bell],
                start_new_session=True,
            )
        finally:
            os.close(text)
        process.returncode = 0  # whoever looks first reaps it, as all children of this process
        pidfd = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll()
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        finally:
            os.close(pidfd)
