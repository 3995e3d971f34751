"""A shortage is told of once, by name; the samples are given, the processes and the groups are real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import until
from memory_groups import limited, may_make_groups

from supervisor.board.environment import MARKER
from supervisor.engine.ranks.host_memory import HostMemory, holders_of
from supervisor.launch.processes import kill, marked
from supervisor.policy.memory import Sample
from supervisor.watch.cgroups import Groups, find
from supervisor.watch.host_memory import Holding, available_bytes, holdings, sample

GIB = 1 << 30


def told(used: Iterator[int], *, training: bool = True) -> list[tuple[float, str]]:
    now_s = 0.0

    def take(_groups: Groups | None, at_s: float) -> Sample:
        return Sample("this machine", at_s, next(used), 100 * GIB)

    watched = HostMemory(groups=None, take=take)
    found = []
    try:
        while True:
            said = watched.look(now_s, training=training, held=lambda: [Holding("rank 0", 5 * GIB, 1)])
            if said is not None:
                found.append((now_s, said))
            now_s += 1.0
    except LookupError:  # no sample is left
        return found


def gib(*each: float) -> Iterator[int]:
    yield from (int(one * GIB) for one in each)
    raise LookupError


def test_a_full_machine_is_told_of_once_and_again_after_it_fell() -> None:
    found = told(gib(50, 93, 95, 91, 93, 69, 93))
    assert [at for at, _ in found] == [5.0, 30.0]
    assert found[0][1] == "memory of this machine: 93.0 GiB of 100.0 GiB used (93 %); most of it: rank 0 5.0 GiB"


def test_growth_is_told_of_and_then_the_end_of_it() -> None:
    found = told(gib(*(60 + at for at in range(40))))
    assert [round(at) for at, _ in found] == [80, 165]
    assert ", full in about 2 min at this rate;" in found[0][1]
    assert "(93 %), full in less than a minute" in found[1][1]


def test_growth_while_a_model_is_loaded_means_nothing() -> None:
    assert told(gib(*(60 + at for at in range(32))), training=False) == []


def test_looks_are_five_seconds_apart() -> None:
    taken = []

    def take(_groups: Groups | None, at_s: float) -> Sample:
        taken.append(at_s)
        return Sample("this machine", at_s, 1, 2)

    watched = HostMemory(groups=None, take=take)
    for tick in range(240):
        watched.look(tick / 10, training=True, held=list)
    assert taken == [0.0, 5.0, 10.0, 15.0, 20.0]


GROWS = """
import subprocess, sys, time
kept = bytearray(b"x") * (int(sys.argv[1]) << 20)
child = subprocess.Popen(sys.argv[2:]) if sys.argv[2:] else None
print("grown", flush=True)
time.sleep(600)
"""


@pytest.fixture
def grown(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    made: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", GROWS, *arguments]
        environment = {**os.environ, MARKER: "told-of/1"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        made.append(process)
        assert process.stdout is not None
        while process.stdout.readline() != "grown\n":
            pass
        return process

    yield start
    kill(marked(f"{MARKER}=told-of/1"))
    for process in made:
        process.wait()


def test_ranks_what_they_started_and_the_rest_are_told_apart(
    tmp_path: Path, grown: Callable[..., subprocess.Popen[str]]
) -> None:
    (tmp_path / "region").write_bytes(b"x" * (1 << 20))
    (tmp_path / "gone").symlink_to("/nowhere")
    launcher = grown("40")
    rank = grown("80", sys.executable, "-c", GROWS, "120")

    def grew() -> list[Holding] | None:
        found = holders_of("told-of", tmp_path, {rank.pid: 3})
        return found if found[0].held_bytes >= 120 << 20 else None

    found = until(grew, "grown loader worker")
    assert [(one.who, one.processes) for one in found] == [
        ("data-loader workers and others of rank 3", 1),
        ("rank 3", 1),
        ("launchers and ranks that stand by", 1),
        ("the board", 1),
    ]
    for one, mib in zip(found, (120, 80, 40, 1), strict=True):
        assert mib << 20 <= one.held_bytes + (1 << 20) < (mib + 20) << 20  # the kernel counts in batches
    assert launcher.poll() is None


def test_a_process_that_is_gone_holds_nothing() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert holdings([gone.pid], {gone.pid: 0}, os.getpid()) == []


def test_what_another_supervisor_started_is_not_ours(grown: Callable[..., subprocess.Popen[str]]) -> None:
    assert holdings([grown("1").pid], {}, supervisor=1) == []


def test_without_a_group_the_machine_is_the_limit() -> None:
    found = sample(None, 7.0)
    assert (found.of, found.time_s) == ("this machine", 7.0)
    assert found.limit_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < found.used_bytes < found.limit_bytes
    assert 0 < available_bytes(None) <= found.limit_bytes


INSIDE = """
import json, os, sys
from pathlib import Path
(Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
from supervisor.engine.ranks.host_memory import HostMemory
from supervisor.watch.cgroups import find
from supervisor.watch.host_memory import available_bytes, sample
watched, kept, said = HostMemory(), [], None
for at in range(200):
    kept.append(bytearray(b"x") * (1 << 20))
    said = watched.look(at * 10.0, training=True, held=list)
    if said is not None and "FULL" in watched._told.name:
        break
found = sample(find(), 0.0)
print(json.dumps([said, found.of, found.limit_bytes, available_bytes(find())]))
"""


def test_a_real_group_that_fills_is_told_of_before_the_kernel_kills() -> None:
    here = may_make_groups()
    if here is None:
        pytest.skip("memory control groups cannot be made here: needs root")
    with limited(here, 128 << 20) as step:
        command = [sys.executable, "-c", INSIDE, str(step)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=180)
        said, of, limit_bytes, left_bytes = json.loads(done.stdout)
        assert of == f"control group {step.parent}"
        assert limit_bytes == 128 << 20
        assert left_bytes < 128 << 20 < available_bytes(None)
        assert said.startswith(f"memory of {of}: ")
        assert "of 128.0 MiB used (9" in said


def test_what_a_job_needs_is_no_more_than_its_limit() -> None:
    assert HostMemory(groups=None).needs_bytes() is None
    here, groups = may_make_groups(), find()
    if here is None or groups is None:
        pytest.skip("memory control groups cannot be made here: needs root")
    with limited(here, GIB) as group:
        needs_bytes = HostMemory(groups=Groups(groups.names, (group, group.parent))).needs_bytes()
        assert needs_bytes is not None
        assert 0 <= needs_bytes <= GIB
