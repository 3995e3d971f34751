"""The run directory's file system goes away for a while and comes back: training knows nothing of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Run, until
from undisturbed import ALONE, assert_same

from supervisor.lease import read_lease

JOB = {"launch": {"processes_per_node": 1}, "checkpoint": {"every": "1 step", "snapshot": "1 step"}}


class Storage:
    """A file system of its own that can be put out of sight."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def mount(self, *options: str) -> None:
        command = ["mount", *options, str(self.place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no file system of one's own here: {done.stderr.strip()}")

    def go(self, options: str) -> None:
        """Have an empty file system seen in its place, as when a server is gone and an automounter gave up."""
        self.mount("-t", "tmpfs", "-o", f"size=1m,{options}", "tmpfs")

    def come_back(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.place)], check=True)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    place = tmp_path / "storage"
    place.mkdir()
    made = Storage(place)
    made.mount("-t", "tmpfs", "-o", "size=64m", "tmpfs")
    yield made
    while place.is_mount():
        made.come_back()


@pytest.mark.parametrize("seen_instead", ["ro", "rw"])
def test_training_goes_on_while_the_run_directory_is_gone_and_nothing_is_lost(
    tmp_path: Path, storage: Storage, alone: Run, seen_instead: str
) -> None:
    run_dir = storage.place / "run"
    run = Run(tmp_path / "base", args=ALONE, job={**JOB, "run_dir": str(run_dir)})
    for point in ("step-3", "step-4", "step-8"):
        run.place(point)
    run.start().wait_at("step-3", ranks=1)
    run.wait_for_commit(2)
    began = counter(run_dir)

    storage.go(seen_instead)
    if seen_instead == "rw":
        run_dir.mkdir(mode=0o700)  # a directory of the same name is all that is left
    run.let_go("step-3")
    until(lambda: "checkpoint of step 3 failed" in run.said(), "commit in vain")
    run.let_go("step-4")
    run.wait_at("step-8", ranks=1)
    if seen_instead == "rw":
        until(lambda: run.still_runs() or (run_dir / "lease.lock").exists(), "renewal in vain")
    assert not (run_dir / "lease").exists()
    storage.come_back()

    until(lambda: counter(run_dir) > began, "renewal of the lease")
    run.let_go("step-8")
    assert run.wait() == 0, run.said()
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == ["finished"]
    assert {r.fields["cause"] for r in run.journal("incident")} == {"storage"}
    assert "the periodic checkpoint of step 3 failed" in run.journal("incident")[0].fields["detail"]
    assert run.journal("checkpoint_committed")[-1].fields["step"] == 12
    assert_same(run, alone)


def counter(run_dir: Path) -> int:
    record = read_lease(run_dir)
    assert record is not None
    return record.counter
