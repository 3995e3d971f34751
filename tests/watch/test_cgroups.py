"""Memory control groups of both versions, as trees of files; and one real kill by the kernel."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from memory_groups import limited, may_make_groups

from supervisor.watch.cgroups import find, kills_in, usage

SAMPLES: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "samples" / "cgroups.yaml").read_text())


def build(sample: dict[str, Any], root: Path) -> tuple[Path, Path, Path]:
    for name, text in sample["files"].items():
        path = root / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "cgroup").write_text(sample["cgroup"])
    (root / "mountinfo").write_text(sample["mountinfo"].replace("{root}", str(root / "tree")))
    (root / "vmstat").write_text("pgfault 7\noom_kill 23\nballoon_inflate 0\n")
    return root / "cgroup", root / "mountinfo", root / "vmstat"


@pytest.mark.parametrize("name", SAMPLES)
def test_each_tree_is_read_as_the_kernel_means_it(tmp_path: Path, name: str) -> None:
    sample = SAMPLES[name]
    cgroup, mountinfo, vmstat = build(sample, tmp_path)
    groups = find(cgroup, mountinfo)
    assert kills_in(groups, vmstat) == sample["oom_kills"]
    found, expected = usage(groups), sample["usage"]
    if expected is None:
        assert found is None
        return
    assert found is not None
    told = {"used_bytes": found.used_bytes, "limit_bytes": found.limit_bytes, "peak_bytes": found.peak_bytes}
    assert {"group": str(found.group.relative_to(tmp_path / "tree")), **told} == expected


def test_what_cannot_be_read_is_not_known(tmp_path: Path) -> None:
    assert find(tmp_path / "none", tmp_path / "none") is None
    (tmp_path / "cgroup").write_text("0::/job\n")
    (tmp_path / "mountinfo").write_text("garbled\n1 2 - cgroup2\n")
    assert find(tmp_path / "cgroup", tmp_path / "mountinfo") is None
    assert usage(None) is None


INSIDE = """
import json, os, subprocess, sys
from pathlib import Path
(Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
from supervisor.watch.cgroups import find, oom_kills, usage
before, seen = oom_kills(), usage(find())
eats = subprocess.run([sys.executable, "-c", "kept = []\\nwhile True: kept.append(bytearray(1 << 20))"])
print(json.dumps([before, oom_kills(), eats.returncode, str(seen.group), seen.limit_bytes, seen.used_bytes]))
"""


def test_a_real_kill_is_counted_where_the_process_lives_though_the_limit_is_further_up() -> None:
    here = may_make_groups()
    if here is None:
        pytest.skip("memory control groups cannot be made here: needs root")
    with limited(here, 64 << 20) as step:
        done = subprocess.run(
            [sys.executable, "-c", INSIDE, str(step)], capture_output=True, text=True, check=True, timeout=180
        )
        before, after, code, group, limit_bytes, used_bytes = json.loads(done.stdout)
        assert (before, after, code) == (0, 1, -9)
        assert (group, limit_bytes) == (str(step.parent), 64 << 20)
        assert 0 < used_bytes < limit_bytes
