"""Data on which the loss is no number: the run goes back behind it, passes it over, and ends; or stops, or goes on."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from harness import BUSY_S, Run, command
from nodes import Nodes

#: One epoch for two ranks; sample 21 comes at step 8.
POISONED: dict[str, Any] = {"max_steps": 12, "poison": 21}
AT = 8


@pytest.fixture(scope="module")
def left_out(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose program itself makes no update at that step, and meets nothing bad."""
    run = Run(tmp_path_factory.mktemp("left-out"), args={"max_steps": 12, "leave-out": AT})
    assert run.run() == 0, run.said()
    return run


def manifest(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((path / "manifest.json").read_text())
    return document


def test_the_run_goes_back_passes_the_data_over_and_comes_out_as_if_that_step_had_not_been_made(
    tmp_path: Path, left_out: Run
) -> None:
    run = Run(tmp_path, args=POISONED, job={"checkpoint": {"snapshot": "1 step"}})
    assert run.run() == 0, run.said()
    assert [r.fields["cause"] for r in run.journal("attempt_ended")] == ["diverged", "finished"]
    (adapted,) = run.journal("adapted")
    assert adapted.fields["before"] == AT
    assert adapted.fields["changes"] == {"skip": [[AT, AT]]}
    assert [(r.fields["step"], r.fields["source"]) for r in run.journal("training_started")] == [
        (0, "fresh"),
        (AT - 1, "snapshot"),  # no good step is lost
    ]
    assert run.digests() == left_out.digests()
    digests = {line["step"]: line["digest"] for line in left_out.trace()}
    assert [line for line in run.trace() if line["attempt"] == "2" and line["digest"] != digests[line["step"]]] == []
    made = manifest(run.run_dir / "checkpoints" / "checkpoint-12")
    assert (made["lineage"], made["diverged"]) == (1, False)
    assert 0.0 < made["loss"] < 10.0
    assert 0.0 < made["grad_norm"] < 100.0


def test_two_nodes_go_back_together(tmp_path: Path, left_out: Run) -> None:
    job = {"launch": {"processes_per_node": 1}, "checkpoint": {"snapshot": "1 step"}}
    run = Nodes(tmp_path, args=POISONED, job=job)
    assert run.start().codes() == [0, 0], run.words()
    assert [r.fields["before"] for r in run.journal("adapted")] == [AT]
    assert [r.fields["step"] for r in run.journal("training_started")] == [0, AT - 1]
    assert run.digests() == left_out.digests()


def test_a_run_that_is_taken_away_after_it_diverged_goes_on_behind_that(tmp_path: Path, left_out: Run) -> None:
    run = Run(tmp_path, args=POISONED, job={"checkpoint": {"snapshot": "1 step"}})
    run.place(f"step-{AT}")
    run.start().wait_at(f"step-{AT}")  # the update is made, nobody has looked at it yet
    run.signal_tree(signal.SIGTERM)
    run.wait_for_drain()
    run.let_go(f"step-{AT}")
    assert run.wait(10.0 + BUSY_S) == 75, run.said()
    assert run.journal("attempt_ended")[-1].fields["cause"] == "preempted"
    assert [r.fields["before"] for r in run.journal("adapted")] == [AT]
    (good,) = (run.run_dir / "checkpoints").iterdir()
    assert (good.name, manifest(good)["diverged"]) == (f"checkpoint-{AT - 1}", False)

    assert run.run() == 0, run.said()
    assert run.journal("training_started")[-1].fields["step"] == AT - 1
    assert run.digests() == left_out.digests()


def test_a_run_that_diverges_whatever_is_done_stops_and_what_it_abandoned_lies_aside(tmp_path: Path) -> None:
    job = {
        "launch": {"processes_per_node": 1},
        "checkpoint": {"every": "2 steps", "snapshot": "1 step"},
        "recovery": {"on_nan": "stop"},
    }
    run = Run(tmp_path, args={"max_steps": 30, "wrong-from": 6}, job=job)
    assert run.run() == 3, run.said()
    assert run.journal("run_gave_up")[-1].fields["cause"] == "diverged"
    assert run.journal("adapted") == []
    assert "the loss is not finite at step 7; the job says `on_nan: stop`" in run.said()

    run.job = {**job, "recovery": {"on_nan": "rollback"}}
    assert run.run("--forgive") == 3, run.said()
    ways = run.journal("adapted")
    assert [way.fields["lineage"] for way in ways] == [1, 2, 3]
    assert ways[0].fields["before"] == 7
    assert ways[1].fields["before"] < 7  # the state before was as bad, for all that anybody knows
    assert "has gone back 3 times" in run.journal("run_gave_up")[-1].text("reason")  # type: ignore[operator]
    aside = sorted((run.run_dir / "abandoned").glob("lineage-*/checkpoint-*/manifest.json"))
    assert aside
    for path in aside:
        assert "abandoned: the run went back behind step" in Path(f"{path.parent}.json").read_text()
    rejected = run.journal("checkpoint_rejected")
    assert len(rejected) == len(aside)
    listed = json.loads(command("verify", str(run.run_dir), "--json").stdout)
    assert {one["state"] for one in listed["checkpoints"]} == {"intact"}
    newest = manifest(Path(listed["resume_from"]))
    assert all(newest["lineage"] >= way.fields["lineage"] or newest["step"] < way.fields["before"] for way in ways)


def test_who_ignores_it_trains_on_and_each_checkpoint_says_how_training_was(tmp_path: Path) -> None:
    job = {
        "launch": {"processes_per_node": 1},
        "checkpoint": {"every": "2 steps", "snapshot": "1 step"},
        "recovery": {"on_nan": "ignore"},
    }
    run = Run(tmp_path, args={"max_steps": 20, "wrong-from": 6}, job=job)
    run.start_committing(6, ranks=1)
    assert run.wait() == 0, run.said()
    told = [r.fields for r in run.journal("incident") if r.fields["cause"] == "diverged"]
    assert [one["decision"] for one in told] == ["training goes on, since the job says `on_nan: ignore`"]
    made = [manifest(path) for path in (run.run_dir / "checkpoints").iterdir()]
    assert {one["step"]: one["diverged"] for one in made} == {one["step"]: one["step"] > 6 for one in made}
    assert {one["step"] for one in made if not one["diverged"]} >= {6}  # however many came after
    assert all(one["loss"] is None for one in made if one["diverged"])
    listed = json.loads(command("verify", str(run.run_dir), "--json").stdout)
    assert listed["resume_from"].endswith("checkpoint-20")
    assert {one["reason"] for one in listed["checkpoints"] if one["step"] > 6} == {"taken after training had diverged"}


def test_a_loss_that_rises_and_stays_up_is_gone_back_behind_by_some_steps(tmp_path: Path) -> None:
    job = {"launch": {"processes_per_node": 1}, "checkpoint": {"every": "4 steps", "keep_last": 9}}
    run = Run(tmp_path, args={"max_steps": 34, "high-from": 26}, job=job)
    run.start_committing(12, 24, ranks=1)
    assert run.wait() == 0, run.said()
    (adapted,) = run.journal("adapted")
    assert (adapted.fields["before"], adapted.fields["changes"]) == (16, {"skip": [[16, 30]]})
    assert run.journal("training_started")[-1].fields["step"] < 16
    notes = (run.run_dir / "abandoned" / "lineage-0").glob("checkpoint-*.json")
    aside = sorted(int(path.name.split("-")[1]) for path in notes)
    assert aside == sorted(r.fields["step"] for r in run.journal("checkpoint_rejected"))
    assert aside
    steps = {one["step"]: one["lineage"] for one in map(manifest, (run.run_dir / "checkpoints").iterdir())}
    assert steps[34] == 1
    assert all(lineage == 1 or step < 16 for step, lineage in steps.items())
