"""What is on disk when memory is gone: the newest that verifies, and never step 0 unasked."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

from harness import BUSY_S, Run, command
from undisturbed import ALONE, assert_same

from supervisor.checkpoint.manifest import seal
from supervisor.journal import Record

JOB: dict[str, Any] = {"launch": {"processes_per_node": 1}, "checkpoint": {"every": "2 steps", "snapshot": "1 step"}}


def kill_and_wipe(run: Run) -> None:
    """Everything dies, and the memory with it."""
    run.kill_tree()
    shutil.rmtree(run.board())


def checkpoint(run: Run, step: int) -> Path:
    return run.run_dir / "checkpoints" / f"checkpoint-{step}"


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def last(run: Run, event: str) -> Record:
    return run.journal(event)[-1]


def start_and_leave(run: Run, *flags: str) -> Record:
    """Start, see where it means to go on from, and take the machine away again."""
    before = len(run.journal("attempt_started"))
    run.start(*flags).wait_for_event("attempt_started", before + 1)
    run.signal_tree(signal.SIGTERM)
    assert run.wait(5.0 + BUSY_S) == 75, run.said()
    return last(run, "attempt_started")


def test_without_memory_the_newest_intact_checkpoint_counts_and_step_zero_is_never_unasked(
    tmp_path: Path, alone: Run
) -> None:
    run = Run(tmp_path / "run", args=ALONE, job=JOB)
    run.place("step-8")
    run.start_committing(2, 4, 6, ranks=1)
    run.wait_at("step-8", ranks=1)
    kill_and_wipe(run)
    run.let_go("step-8")
    _all_torn(_copy(run, tmp_path / "all-torn"))
    _unreadable(_copy(run, tmp_path / "unreadable"))

    run.place("step-7")
    run.start().wait_at("step-7", ranks=1)
    assert dict(last(run, "training_started").fields) == {"step": 6, "source": "checkpoint", "max_steps": 12}
    kill_and_wipe(run)
    run.let_go("step-7")
    flip_a_bit(checkpoint(run, 6) / "optimizer.safetensors")

    assert run.run() == 0, run.said()
    rejected = last(run, "checkpoint_rejected").fields
    assert rejected == {
        "path": "checkpoints/checkpoint-6",
        "step": 6,
        "reason": "optimizer.safetensors: content changed",
    }
    assert _names(run.run_dir / "torn") == ["checkpoint-6"]
    assert last(run, "training_started").fields["step"] == 4
    assert_same(run, alone)


def _names(directory: Path) -> list[str]:
    """Checkpoints that lie there, without the time that they were set aside."""
    return sorted("-".join(p.name.split("-")[:2]) for p in directory.iterdir() if p.is_dir())


def _copy(run: Run, base: Path) -> Run:
    """The same run elsewhere; a run directory may be moved."""
    shutil.copytree(run.base, base)
    return Run(base, args={**run.args, "out": str(run.out)}, job=run.job)


def _all_torn(run: Run) -> None:
    for step in (2, 4, 6):
        flip_a_bit(checkpoint(run, step) / "model.safetensors")
    for flags in ((), (), ("--forgive",)):
        assert run.run(*flags) == 3, run.said()
        assert all(
            re.search(rf"torn/checkpoint-{n}\S*: model.safetensors: content changed", run.said()) for n in (2, 4, 6)
        )
    status = json.loads(command("status", str(run.run_dir), "--json").stdout)
    assert status["state"] == "gave_up"
    assert _names(run.run_dir / "torn") == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]

    anew = start_and_leave(run, "--fresh")
    assert anew.fields["source"] == "fresh"
    assert not (run.run_dir / "torn").exists()
    aside = run.run_dir / "abandoned" / "lineage-0"
    assert {"checkpoints", "torn", "logs"} <= {p.name for p in aside.iterdir()}
    assert _names(aside / "torn") == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]


def _unreadable(run: Run) -> None:
    """Of a later version, perhaps: nobody here can tell, so it stays where it is."""
    for step in (6, 4, 2):
        manifest = checkpoint(run, step) / "manifest.json"
        document = json.loads(manifest.read_text())
        manifest.write_bytes(seal({key: document[key] for key in document if key != "seal"} | {"format": 999}))
        listed = json.loads(command("verify", str(run.run_dir), "--json").stdout)["checkpoints"]
        assert [c["state"] for c in listed if c["step"] == step] == ["unknown"]
        if step != 2:
            assert start_and_leave(run).fields["resume_step"] == step - 2
    attempts = len(run.journal("attempt_started"))
    assert run.run() == 75  # what cannot be read now may be read later: nothing is decided
    assert len(run.journal("attempt_started")) == attempts
    assert "checkpoint-6 could not be read" in run.said()
    assert not (run.run_dir / "torn").exists()
    assert all(checkpoint(run, step).is_dir() for step in (2, 4, 6))
