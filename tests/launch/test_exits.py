"""How a process ended that is somebody else's child is known, whoever reaps it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import until

from supervisor.launch.exits import exit_of
from supervisor.watch.ready import ready


@pytest.mark.parametrize(
    ("how", "code"), [("kill -9 $$", -signal.SIGKILL), ("kill -6 $$", -signal.SIGABRT), ("exit 7", 7)]
)
def test_the_end_of_a_process_that_nobody_has_reaped_is_known(how: str, code: int) -> None:
    process = subprocess.Popen(["sh", "-c", how])
    descriptor = os.pidfd_open(process.pid)
    try:
        assert ready([descriptor], 60.0)
        assert exit_of(process.pid, descriptor) == code
        assert process.wait() == code  # it was left for its parent
    finally:
        os.close(descriptor)


def test_the_end_of_a_process_that_was_reaped_is_known_or_unknown_but_never_wrong() -> None:
    process = subprocess.Popen(["sh", "-c", "exit 7"])
    descriptor = os.pidfd_open(process.pid)
    try:
        process.wait()
        assert exit_of(process.pid, descriptor) in (7, None)  # kernels since 6.15 tell
    finally:
        os.close(descriptor)


def test_a_grandchild_is_told_of_as_well(tmp_path: Path) -> None:
    program = f"""
import subprocess, time
child = subprocess.Popen(["sh", "-c", "read x; kill -11 $$"], stdin=subprocess.PIPE)
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid) + "\\n")
input()
child.stdin.close()
input()
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, text=True)
    assert parent.stdin is not None
    try:
        told = until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip(), "the child")
        descriptor = os.pidfd_open(int(told))
        parent.stdin.write("\n")
        parent.stdin.flush()
        assert ready([descriptor], 60.0)
        assert exit_of(int(told), descriptor) == -signal.SIGSEGV
        os.close(descriptor)
    finally:
        parent.kill()
        parent.wait()


def test_one_that_lives_has_no_end() -> None:
    descriptor = os.pidfd_open(os.getpid())
    assert exit_of(os.getpid(), descriptor) is None
    os.close(descriptor)
