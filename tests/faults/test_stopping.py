"""A run that is asked to leave, at any moment: it leaves in time, and nothing completed is lost."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from harness import BUSY_S, Run, command, send, until
from undisturbed import ALONE, assert_nothing_repeated, assert_same

from supervisor.checkpoint.writers import PARTIAL

ONE_PROCESS = {"launch": {"processes_per_node": 1}}


def told(run: Run, what: str) -> dict[str, Any]:
    """What `supervisor status|verify --json` says."""
    answer = command(what, str(run.run_dir), "--json")
    assert answer.returncode == 0, answer.stderr
    return dict(json.loads(answer.stdout))


def assert_handed_back(run: Run, step: int | None) -> None:
    """Exit 75 in time, the newest completed step on disk, nothing left in memory."""
    assert run.wait(5.0 + BUSY_S) == 75, run.said()
    assert run.workers() == []
    assert not run.board().exists()
    resume_from = told(run, "verify")["resume_from"]
    assert resume_from == (None if step is None else str(run.run_dir / "checkpoints" / f"checkpoint-{step}"))
    status = told(run, "status")
    assert status["state"] == "interrupted"
    if step is not None:
        assert (status["step"], status["last_checkpoint"]["step"]) == (step, step)
    assert run.journal("training_started") == [] or run.journal("attempt_ended")[-1].fields["cause"] == "preempted"


def test_sigterm_at_any_moment_hands_the_run_back_within_five_seconds(tmp_path: Path, alone: Run) -> None:
    job = {**ONE_PROCESS, "checkpoint": {"every": "1 step", "snapshot": "1 step"}}
    run = Run(tmp_path, args={**ALONE, "sleep": 0.2}, job=job)  # so that it does not end before a signal is heard

    run.start().wait_for_event("attempt_started")  # setup: no worker has said a word
    run.signal_tree(signal.SIGTERM)
    assert_handed_back(run, None)

    run.place("load")
    run.start().wait_at("load", ranks=1)
    run.signal_tree(signal.SIGTERM)
    assert_handed_back(run, None)
    run.let_go("load")

    run.place("step-3")
    run.start().wait_at("step-3", ranks=1)
    run.let_go("step-3")
    checkpoints = run.run_dir / "checkpoints"  # a quick disk shows none half done
    until(lambda: [*checkpoints.glob(f"{PARTIAL}*"), *checkpoints.glob("checkpoint-5")], "commit under way")
    run.signal_tree(signal.SIGTERM)
    assert run.wait(5.0 + BUSY_S) == 75
    newest = max(line["step"] for line in run.trace())
    assert_handed_back(run, newest)

    run.place("evaluation-5")
    run.place("evaluation-10")
    at = "evaluation-5" if newest < 5 else "evaluation-10"
    run.start().wait_at(at, ranks=1)
    run.signal_tree(signal.SIGTERM)
    assert_handed_back(run, 4 if newest < 5 else 9)
    (run.out / "places" / "evaluation-5").unlink()
    (run.out / "places" / "evaluation-10").unlink()

    run.place("begin", "raise")
    before = len(run.journal("decision"))
    run.start().wait_for_event("decision", before + 1)
    assert run.journal("decision")[-1].fields["decision"] == "restart"
    assert run.journal("decision")[-1].fields["delay_s"] > 0  # the back-off wait
    run.signal_tree(signal.SIGTERM)
    assert run.wait(5.0 + BUSY_S) == 75
    assert told(run, "status")["state"] == "interrupted"

    assert run.run() == 0, run.said()
    assert_same(run, alone)
    assert_nothing_repeated(run)


def test_ctrl_c_stop_and_a_lost_terminal_are_obeyed_and_the_same_command_goes_on(tmp_path: Path, alone: Run) -> None:
    run = Run(tmp_path, args=ALONE, job={**ONE_PROCESS, "checkpoint": {"snapshot": "1 step"}})

    run.place("step-3")
    run.start().wait_at("step-3", ranks=1)
    assert run.process is not None
    send(run.process.pid, signal.SIGHUP)  # it has no terminal: nothing is lost with one
    second = command("run", str(run.base / "job.yaml"))
    assert second.returncode == 2
    assert f"process {run.process.pid} on {os.uname().nodename}" in second.stderr
    send(run.process.pid, signal.SIGINT)
    run.wait_for_drain()
    run.let_go("step-3")
    assert run.wait(5.0 + BUSY_S) == 130
    newest = max(line["step"] for line in run.trace())
    assert told(run, "verify")["resume_from"] == str(run.run_dir / "checkpoints" / f"checkpoint-{newest}")
    assert told(run, "status")["state"] == "stopped"

    point = "evaluation-5" if newest < 5 else "evaluation-10"
    run.place(point)
    run.start().wait_at(point, ranks=1)
    send(run.process.pid, signal.SIGINT)
    run.wait_for_event("stop_asked", 2)
    send(run.process.pid, signal.SIGINT)
    assert run.wait(1.5 + BUSY_S) == 130
    assert run.journal("attempt_ended")[-1].fields["evidence"] == "asked by Ctrl-C, twice"
    assert run.workers() == []
    run.let_go(point)

    run.place("step-11")
    run.start().wait_at("step-11", ranks=1)
    stopped = command("stop", str(run.run_dir))
    assert (stopped.returncode, run.wait(1.0 + BUSY_S)) == (0, 130), stopped.stderr
    job = run.run_dir / "job.yaml"
    said = f"{run.run_dir} has stopped; the same command as before, or `supervisor run {job}`, goes on from there\n"
    assert stopped.stderr == said
    assert run.journal("run_stopped")[-1].fields["by"].startswith("`supervisor stop`")
    assert told(run, "verify")["resume_from"] == str(run.run_dir / "checkpoints" / "checkpoint-10")
    run.let_go("step-11")
    assert command("stop", str(run.run_dir)).returncode == 2  # nobody runs it now

    assert command("run", "--detach", str(job)).returncode == 0
    until(lambda: run.journal("run_finished"), "end of the detached run")
    until(lambda: not run.board().exists(), "end of the board")
    assert_same(run, alone)
    assert_nothing_repeated(run)


def test_a_run_that_is_taken_away_again_and_again_before_its_first_step_comes_to_an_end(tmp_path: Path) -> None:
    run = Run(tmp_path, args=ALONE, job=ONE_PROCESS)

    def taken_away() -> int:
        before = len(run.journal("attempt_started"))
        run.start().wait_for_event("attempt_started", before + 1)
        run.signal_tree(signal.SIGTERM)
        return run.wait(10.0 + BUSY_S)

    assert taken_away() == 75
    last = (run.run_dir / "journal.jsonl").read_text().splitlines()
    ended = next(line for line in last if '"attempt_ended"' in line)
    with (run.run_dir / "journal.jsonl").open("a") as journal:
        for n in range(8):  # a line that comes twice was written twice
            journal.write(f"{json.dumps({**json.loads(ended), 'time': n + 1.0})}\n")
    assert taken_away() == 3
    assert "10 times in a row" in run.journal("run_gave_up")[-1].fields["reason"]
    assert run.run() == 3
    assert "--forgive" in run.said()
