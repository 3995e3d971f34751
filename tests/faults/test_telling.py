"""People are told, and nothing that telling meets can stop, slow or hold a run."""

from __future__ import annotations

import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from endpoints import Hole, Sink, hole, sink
from harness import Run, send, until
from ports import own_port
from undisturbed import ALONE, assert_same

from supervisor.report.notified import NOTIFIED, read

ONE_PROCESS = {"launch": {"processes_per_node": 1}, "name": "demo"}


@pytest.fixture
def people() -> Iterator[Sink]:
    with sink() as made:
        yield made


@pytest.fixture
def silent() -> Iterator[Hole]:
    with hole() as made:
        yield made


@pytest.fixture
def dripping() -> Iterator[Hole]:
    with hole(b"x") as made:
        yield made


def made(base: Path, notify: list[Any], **args: Any) -> Run:
    return Run(base, args={**ALONE, **args}, job={**ONE_PROCESS, "notify": notify})


def tellers(run: Run) -> list[psutil.Process]:
    """The processes that tell people of a run."""
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if "supervisor.report.notify" in (words := one.info["cmdline"] or []) and str(run.run_dir) in words
    ]


def told(people: Sink, titles: list[str], path: str = "") -> None:
    """Just these messages have come; the last one may be on its way still when the run has left."""
    until(lambda: len(people.titles(path)) >= len(titles), f"messages: {titles}")
    assert people.titles(path) == titles


def test_black_holes_neither_stop_nor_hold_a_run_and_those_who_answer_are_told(
    tmp_path: Path, people: Sink, silent: Hole, dripping: Hole, alone: Run
) -> None:
    notify = [
        f"json://127.0.0.1:{silent.port}/x",
        f"json://127.0.0.1:{dripping.port}/x",
        "json://192.0.2.1/x",  # TEST-NET-1 of RFC 5737: nobody answers
        people.url(),
        {"dead_man": f"http://127.0.0.1:{silent.port}/y", "every": "10 s"},
        {"dead_man": f"http://127.0.0.1:{dripping.port}/y", "every": "10 s"},
        {"dead_man": "http://192.0.2.1/y"},
        {"metrics": f"127.0.0.1:{silent.port}"},  # taken
    ]
    run = made(tmp_path, notify)
    assert run.run() == 0, run.said()
    # It has left, although the holes hold the last message still.
    assert silent.open_ends() > 0
    assert dripping.open_ends() > 0
    told(people, ["demo: started", "demo: finished at step 12"])
    assert run.journal("incident") == []
    assert_same(run, alone)
    assert len(tellers(run)) == 1
    until(lambda: not tellers(run), "end of the process that tells people")
    assert silent.open_ends() == dripping.open_ends() == 0


def test_a_killed_teller_is_started_again_and_tells_nobody_twice(tmp_path: Path, people: Sink) -> None:
    run = made(tmp_path, [people.url()])
    run.place("step-6")
    run.start().wait_at("step-6", ranks=1)
    until(lambda: people.titles() == ["demo: started"], "first message")
    until(lambda: [one.records for one in read(run.run_dir).values()] != [], NOTIFIED)
    [first] = tellers(run)
    first.kill()
    until(lambda: [one for one in tellers(run) if one.pid != first.pid], "another teller")
    run.let_go("step-6")
    assert run.wait() == 0, run.said()
    told(people, ["demo: started", "demo: finished at step 12"])
    until(lambda: not tellers(run), "end of the process that tells people")


def test_a_teller_that_is_dead_when_the_run_ends_is_started_to_tell_it(tmp_path: Path, people: Sink) -> None:
    run = made(tmp_path, [people.url()])
    run.place("trained")
    run.start().wait_at("trained", ranks=1)
    until(lambda: read(run.run_dir), NOTIFIED)
    [first] = tellers(run)
    first.kill()
    [second] = until(lambda: [one for one in tellers(run) if one.pid != first.pid], "another teller")
    second.kill()  # the next one would come in 10 s
    run.let_go("trained")
    assert run.wait() == 0, run.said()
    told(people, ["demo: started", "demo: finished at step 12"])


def test_incidents_and_the_end_of_a_supervisor_are_told_and_the_next_stay_goes_on_from_there(
    tmp_path: Path, people: Sink
) -> None:
    run = made(tmp_path, [people.url()])
    run.place("step-4")
    run.place("step-8")
    run.start().wait_at("step-4", ranks=1)
    run.kill_rank(0)
    until(lambda: len(people.messages) == 2, "message of the crash")
    run.let_go("step-4")
    run.wait_at("step-8", ranks=1)
    run.kill_tree()
    until(lambda: len(people.messages) == 3, "message of the kill")
    run.let_go("step-8")
    assert run.run() == 0, run.said()
    # That it went on was gathered: it had started less than a minute ago, and then its end waited for nothing.
    told(people, ["demo: started", "demo: a worker crashed", "demo: interrupted", "demo: finished at step 12"])
    crash, kill = people.messages[1]["message"], people.messages[2]["message"]
    assert "was killed by SIGKILL" in crash
    assert f"next: supervisor why {run.run_dir}" in crash
    assert "killed, or its machine is going down" in kill
    assert f"next: supervisor run {run.run_dir}/job.yaml" in kill


def test_a_run_that_gives_up_or_is_handed_back_or_stopped_says_so(tmp_path: Path, people: Sink) -> None:
    run = made(tmp_path / "up", [people.url("up")])
    run.job["recovery"] = {"max_barren": 1}
    run.place("load", "raise")
    run.start()
    assert run.wait() == 3, run.said()
    until(lambda: people.titles("up")[-1:] == ["demo: gave up"], "last message")
    assert people.messages[-1]["type"] == "failure"

    run = made(tmp_path / "back", [people.url("back")])
    run.place("step-4")
    run.start().wait_at("step-4", ranks=1)
    until(lambda: people.titles("back"), "first message")
    assert run.process is not None
    send(run.process.pid, signal.SIGTERM)
    assert run.wait() == 75, run.said()
    told(people, ["demo: started", "demo: interrupted"], "back")
    assert "handed back" in people.messages[-1]["message"]

    run.place("step-4")
    run.start().wait_at("step-4", ranks=1)
    send(run.process.pid, signal.SIGINT)
    assert run.wait() == 130, run.said()
    told(people, ["demo: started", "demo: interrupted", "demo: stopped at step 3, as asked by Ctrl-C"], "back")


def test_a_dead_mans_switch_and_the_metrics_follow_the_run_to_its_end(tmp_path: Path, people: Sink) -> None:
    port = own_port()
    notify = [
        {"dead_man": f"http://127.0.0.1:{people.port}/alive", "every": "1 h"},
        {"metrics": "file"},
        {"metrics": f"127.0.0.1:{port}"},
    ]
    run = made(tmp_path, notify)
    run.place("step-6")
    run.start().wait_at("step-6", ranks=1)
    until(lambda: people.pings == ["/alive"], "ping")
    until(lambda: figure(run, "supervisor_step") == 5, "metrics")
    assert figure(run, 'supervisor_state.*state="running"') == 1
    assert figure(run, "supervisor_up") == 1
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        assert answer.read().decode().startswith("# HELP supervisor_up ")
    run.let_go("step-6")
    assert run.wait() == 0, run.said()
    until(lambda: people.pings == ["/alive", "/alive"], "last ping")
    until(lambda: figure(run, "supervisor_up") == 0, "last metrics")
    assert figure(run, "supervisor_step") == 12
    assert figure(run, 'supervisor_state.*state="finished"') == 1
    until(lambda: not tellers(run), "end of the process that tells people")


def figure(run: Run, pattern: str) -> float | None:
    """One figure of the run's metrics."""
    try:
        text = (run.run_dir / "metrics.prom").read_text()
    except FileNotFoundError:
        return None
    found = re.search(rf"^{pattern}[^ ]* (.*)$", text, re.MULTILINE)
    return float(found[1]) if found else None


def test_secrets_are_in_no_log_no_argument_and_no_journal(tmp_path: Path, people: Sink, silent: Hole) -> None:
    secret = "s3cr3t-t0ken"
    notify = [
        f"json://me:{secret}@127.0.0.1:{people.port}/{secret}",
        f"json://me:{secret}@127.0.0.1:{silent.port}/{secret}",
        {"dead_man": f"http://127.0.0.1:{people.port}/{secret}", "every": "10 s"},
    ]
    run = made(tmp_path, notify)
    run.place("step-4")
    run.start().wait_at("step-4", ranks=1)
    seen = until(lambda: people.messages and process_lines(run), "message")
    assert any("supervisor.report.send" in line for line in seen)
    assert [line for line in seen if secret in line] == []
    people.answer = 500
    run.let_go("step-4")
    assert run.wait() == 0, run.said()
    until(lambda: not tellers(run), "end of the process that tells people")
    assert "notify.1 (json://…) does not work" in (run.run_dir / "logs" / "notify.log").read_text()
    assert holding(run.base, secret) == [run.base / "job.yaml", run.run_dir / "job.yaml"]
    assert (run.run_dir / "job.yaml").stat().st_mode & 0o777 == 0o600


def process_lines(run: Run) -> list[str]:
    """What `ps` shows of the supervisor's processes."""
    assert run.process is not None
    family = psutil.Process(run.process.pid).children(recursive=True)
    lines = []
    for one in family:
        try:
            lines.append(" ".join(one.cmdline()))
        except psutil.Error:
            continue
    return lines if any("supervisor.report.send" in line for line in lines) else []


def holding(base: Path, text: str) -> list[Path]:
    """The files that hold a text."""
    return sorted(
        path
        for path in base.rglob("*")
        if path.is_file() and not path.is_symlink() and text.encode() in path.read_bytes()
    )


def test_a_job_without_notify_starts_no_process_and_writes_nothing_of_it(tmp_path: Path) -> None:
    run = made(tmp_path, [])
    run.place("step-4")
    run.start().wait_at("step-4", ranks=1)
    assert tellers(run) == []
    run.let_go("step-4")
    assert run.wait() == 0, run.said()
    left = {path.name for path in run.run_dir.iterdir()}
    assert left & {NOTIFIED, "metrics.prom", "notified.lock"} == set()
