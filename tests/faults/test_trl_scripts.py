"""One of TRL's trainers in a script without one line of ours; the others are drilled in tests/bench/drills.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import PROGRAMS, Run, redone
from undisturbed import exact_rows

from jobs.demo_assets import Recipe, make


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's data, and a base model that has learnt next to nothing."""
    directory = tmp_path_factory.mktemp("trl") / "assets"
    make(directory, Recipe(train_pairs=64, eval_pairs=8, vocabulary=512, hidden=32, steps=1))
    return directory


def test_a_script_without_a_line_of_ours_is_killed_and_nobody_can_tell_from_the_result(
    tmp_path: Path, assets: Path
) -> None:
    job = {"launch": {"processes_per_node": 1}, "checkpoint": {"snapshot": "1 step"}}
    args = {"assets": str(assets), "max_steps": 12}
    undisturbed, run = (
        Run(tmp_path / name, args, job, str(PROGRAMS / "sft_script.py")) for name in ("undisturbed", "killed")
    )
    assert undisturbed.run() == 0, undisturbed.said()
    run.start()
    run.wait_for_step(2)
    run.kill_rank(0)
    assert run.wait() == 0, run.said()
    assert run.digests() == undisturbed.digests()
    assert exact_rows(run) == exact_rows(undisturbed)
    assert [r.fields["source"] for r in run.journal("training_started")] == ["fresh", "snapshot"]
    assert redone(run) == [0]
