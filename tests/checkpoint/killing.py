"""A function is killed before every file-system call it makes, one process for each.

Audit hooks see opens and renames but neither writes nor syncs, so built-in
functions are counted with `sys.setprofile`, which sees every call of the
`posix` module; the audit hook is there to check that nothing escapes the count.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

KILLED = 73
TOUCH = {
    *("open", "mkdir", "rename", "replace", "unlink", "remove", "rmdir", "listdir", "scandir"),
    *("write", "fsync", "pread", "preadv", "close", "stat", "lstat", "fstat"),
}
AUDITED = {
    "open": "open",
    "os.mkdir": "mkdir",
    "os.rename": "rename",
    "os.listdir": "listdir",
    "os.scandir": "scandir",
    "os.remove": "unlink",
    "os.rmdir": "rmdir",
}


class Counting:
    """Counts calls and ends the process before the chosen one."""

    def __init__(self, kill_at: int) -> None:
        self.kill_at = kill_at
        self.on = True
        self.calls: list[str] = []
        self.audited: list[str] = []

    def profile(self, frame: FrameType, event: str, function: Any) -> None:
        if self.on and event == "c_call" and function.__module__ == "posix" and function.__name__ in TOUCH:
            self.calls.append(function.__name__)
            if len(self.calls) == self.kill_at:
                os._exit(KILLED)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event in AUDITED and not str(arguments[0]).startswith("/proc/"):
            self.audited.append(AUDITED[event])


def killed_at_every_call(root: Path, prepare: Callable[[Path], object], act: Callable[[Path], object]) -> None:
    """Run ``act`` in ``root/1``, ``root/2`` … until it lives, killed one call later each time.

    Prints the exit code of each; writes the calls of the one that lived to `root/calls.json`.
    """
    for kill_at in range(1, 1000):
        here = root / str(kill_at)
        here.mkdir()
        prepare(here)
        if os.fork() == 0:
            try:
                live(root, Counting(kill_at), act, here)
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.wait()[1])
        print(code)
        if code != KILLED:
            break


def live(root: Path, counting: Counting, act: Callable[[Path], object], here: Path) -> None:
    sys.addaudithook(counting.audit)
    sys.setprofile(counting.profile)
    act(here)
    counting.on = False
    sys.setprofile(None)
    (root / "calls.json").write_text(json.dumps({"calls": counting.calls, "audited": counting.audited}))
    os._exit(0)
