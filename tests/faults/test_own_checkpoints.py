"""A program that knows nothing of us and saves by itself: its newest good checkpoint is handed to it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from harness import PROGRAMS, Run, command

PROGRAM = str(PROGRAMS / "saves_itself.py")


def test_killed_while_it_saves_it_is_handed_the_one_before(tmp_path: Path) -> None:
    out = tmp_path / "out"
    old = out / "step_100"  # of a run before this one
    old.mkdir(parents=True)
    (old / "model.pt").write_bytes(b"\x80\x02.")
    run = Run(
        tmp_path,
        program=PROGRAM,
        job={
            "args": {"output_dir": str(out), "steps": 8, "dies-at": 6},
            "launch": {"processes_per_node": 1},
            "hooks": "off",
            "recovery": {"max_barren": 1},
        },
    )
    assert run.run() == 0, run.said()
    assert (out / "lives.txt").read_text().splitlines() == ["0 None", f"4 {out / 'step_4'}"]
    first, second = run.journal("attempt_started")
    assert ("handed" in first.fields, second.fields["handed"]) == (False, str(out / "step_4"))
    assert run.journal("attempt_ended")[0].fields["step"] == 4  # the attempt bore something
    details = [r.fields["detail"] for r in run.journal("incident") if r.fields["cause"] == "bad_checkpoint"]
    assert len(details) == 1
    assert details[0].startswith(f"{out / 'step_6'}, which the program wrote itself: optimizer.pt: a damaged zip")

    listed = json.loads(command("verify", str(run.run_dir), "--json").stdout)
    states = {(one["step"], one["state"]) for one in listed["checkpoints"]}
    assert states == {(step, "foreign") for step in (2, 4, 6, 8, 100)}
    assert listed["resume_from"] == str(out / "step_8")

    alone = tmp_path / "alone"
    subprocess.run([sys.executable, PROGRAM, "--output_dir", str(alone), "--steps", "8"], check=True, timeout=300)
    assert (out / "loss.txt").read_text() == (alone / "loss.txt").read_text()
