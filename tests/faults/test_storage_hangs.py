"""The run directory's file system hangs for longer than a node may be silent: no attempt ends for it.

`LONG_HANG_S=30` makes the hang so long; half a minute is what is promised.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Run, until
from nodes import Nodes
from undisturbed import TOGETHER, assert_same

from supervisor.link.hub import PATIENCE_S

FROZEN_S = float(os.environ.get("LONG_HANG_S", 2 * PATIENCE_S))


class Frozen:
    """An ext4 of its own, which can be frozen: whatever writes waits, uninterruptibly."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def freeze(self) -> None:
        subprocess.run(["fsfreeze", "--freeze", str(self.place)], check=True)

    def thaw(self) -> None:
        subprocess.run(["fsfreeze", "--unfreeze", str(self.place)], check=False, capture_output=True)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Frozen]:
    place, image = tmp_path / "storage", tmp_path / "image"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    for command in (["mkfs.ext4", "-q", "-F", str(image)], ["mount", "-o", "loop", str(image), str(place)]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            pytest.skip(f"no file system of one's own here: {error}")
        if done.returncode != 0:
            pytest.skip(f"no file system of one's own here: {done.stderr.strip()}")
    made = Frozen(place)
    yield made
    made.thaw()
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_two_nodes_train_on_while_the_disk_hangs_and_what_was_missed_is_written_later(
    tmp_path: Path, storage: Frozen, together: Run
) -> None:
    job = {
        "run_dir": str(storage.place / "run"),
        "launch": {"processes_per_node": 1},
        "checkpoint": {"every": "1 step", "snapshot": "1 step"},
    }
    run = Nodes(tmp_path, args=TOGETHER, job=job)
    run.place("step-6")
    run.place("step-20")
    run.start().wait_at("step-6")
    run.wait_for_event("checkpoint_committed", 3)
    storage.freeze()
    frozen_s = time.monotonic()
    written = len(run.journal())
    run.let_go("step-6")
    until(lambda: time.monotonic() > frozen_s + FROZEN_S, "end of the hang", 2 * FROZEN_S)
    assert len(run.journal()) == written, "nothing was frozen"
    storage.thaw()
    run.wait_at("step-20")
    before = len(run.journal("checkpoint_committed"))
    run.let_go("step-20")
    assert run.codes() == [0, 0], run.words()
    assert len(run.journal("checkpoint_committed")) > before
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == ["finished"]
    assert run.journal("incident") == []
    assert_same(run, together)


def test_ranks_that_print_train_on_while_the_disk_hangs_and_their_logs_are_whole_afterwards(
    tmp_path: Path, storage: Frozen
) -> None:
    job = {"run_dir": str(storage.place / "run"), "checkpoint": {"snapshot": "1 step"}}
    run = Run(tmp_path, args={"max_steps": 24}, job=job)  # it prints at every third step
    run.place("step-6")
    run.place("step-20")
    run.start().wait_at("step-6")
    storage.freeze()
    run.let_go("step-6")
    run.wait_at("step-20")  # all that was printed on the way did not wait
    storage.thaw()
    run.let_go("step-20")
    assert run.wait() == 0, run.said()
    printed = (run.run_dir / "logs" / "attempt-1" / "rank-0.log").read_text()
    assert printed.count("'loss'") + printed.count('"loss"') == 24 // 3
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == ["finished"]
