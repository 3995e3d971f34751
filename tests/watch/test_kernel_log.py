"""The kernel's own words, recorded; and those of a real kill where the log may be read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from memory_groups import limited, may_make_groups

from supervisor.watch.kernel_log import end, killed_by_kernel, since, xids
from supervisor.watch.namespace import sees_all_pids

SAID = """\
6,700,12725053912,-;hierarchical_memory_limit 67108864
6,701,12725054019,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/job/h4exp,\
task_memcg=/job/h4exp/child,task=python3,pid=946,uid=0
3,702,12725054034,-;Memory cgroup out of memory: Killed process 946 (python3) total-vm:82356kB, anon-rss:72192kB
 SUBSYSTEM=memory
3,703,12725054100,-;Out of memory: Killed process 1234 (a 55 b) total-vm:1kB, UID:0 pgtables:200kB oom_score_adj:0
4,704,12725054200,-;NVRM: Xid (PCI:0000:CB:00): 13, pid=77, name=python3, Graphics SM Warp Exception on (GPC 7)
4,705,12725054300,-;NVRM: Xid (0000:03:00): 79, GPU has fallen off the bus.
4,706,12725054400,-;NVRM: GPU at 0000:03:00: GPU-b850f46d-d5ea-c752-ddf3-c4453e44d3f7
garbled
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "kmsg"
    path.write_text(SAID)
    return path


@pytest.mark.parametrize(("pid", "killed"), [(946, True), (1234, True), (55, False), (94, False), (82356, False)])
def test_the_killed_are_named_by_their_number(log: Path, pid: int, killed: bool) -> None:
    assert sees_all_pids()
    assert killed_by_kernel(pid, since(700, log)) is killed


def test_what_was_said_before_the_mark_is_not_heard(log: Path) -> None:
    assert end(log) == 707
    assert killed_by_kernel(946, since(703, log)) is False
    with log.open("a") as more:
        more.write("3,707,1,-;Out of memory: Killed process 3 (x) total-vm:1kB\n")
    assert since(707, log) == ["Out of memory: Killed process 3 (x) total-vm:1kB"]


def test_errors_of_gpus_are_found_in_both_spellings(log: Path) -> None:
    assert xids(since(0, log)) == [
        ("0000:cb:00", 13, "pid=77, name=python3, Graphics SM Warp Exception on (GPC 7)"),
        ("0000:03:00", 79, "GPU has fallen off the bus."),
    ]


def test_a_log_that_may_not_be_read_says_nothing(tmp_path: Path) -> None:
    assert end(tmp_path / "none") is None
    assert since(0, tmp_path / "none") is None
    assert since(None, tmp_path / "none") is None
    assert killed_by_kernel(1, None) is None
    assert xids(None) is None


def test_in_a_container_numbers_of_processes_say_nothing(tmp_path: Path, log: Path) -> None:
    (tmp_path / "self" / "ns").mkdir(parents=True)
    (tmp_path / "self" / "ns" / "pid").symlink_to("pid:[4026532198]")
    assert killed_by_kernel(946, since(700, log), tmp_path) is None


EATS = """
import os, sys
from pathlib import Path
(Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
kept = []
while True:
    kept.append(bytearray(1 << 20))
"""


def test_a_real_kill_is_read_in_the_real_log() -> None:
    here, mark = may_make_groups(), end()
    if here is None or mark is None:
        pytest.skip("the kernel's log cannot be read, or memory control groups cannot be made: needs root")
    with limited(here, 64 << 20) as step:
        killed = subprocess.Popen([sys.executable, "-c", EATS, str(step)])
        assert killed.wait(60) == -9
    assert killed_by_kernel(killed.pid, since(mark)) is True
    assert killed_by_kernel(os.getpid(), since(mark)) is False
