"""The supervisor before, if its scheduler has given it up and it lives on: ended, and nobody else in its place."""

import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from supervisor.engine.ranks.predecessor import end_supervisor
from supervisor.owner import Owner, start_ticks, this_process


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def named(process: subprocess.Popen[bytes]) -> Owner:
    return replace(this_process(job="17", restart=0), pid=process.pid, start_ticks=start_ticks(process.pid))


def test_one_that_lives_on_this_machine_is_killed(sleeper: subprocess.Popen[bytes]) -> None:
    end_supervisor(named(sleeper), this_process(job="17", restart=1))
    assert sleeper.wait(60) == -signal.SIGKILL


def test_whoever_has_its_pid_now_or_elsewhere_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    owner, here = named(sleeper), this_process(job="17", restart=1)
    for other in (None, replace(owner, start_ticks=1), replace(owner, boot_id="another"), replace(owner, pid_ns="x")):
        end_supervisor(other, here)
    assert start_ticks(sleeper.pid) == owner.start_ticks
