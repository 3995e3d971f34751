"""The process that tells people is kept alive within bounds, and never waited for long."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from endpoints import Sink, sink
from harness import until

from supervisor.engine.telling import PATIENCE_S, Telling
from supervisor.job import Job
from supervisor.journal import Journal
from supervisor.launch.processes import BLOCKED


@pytest.fixture
def people() -> Iterator[Sink]:
    with sink() as made:
        yield made


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal.open(tmp_path, time.time, "here")
    made.append("run_started", run_id="r1", name="demo")
    yield made
    made.close()


def job(run_dir: Path, people: Sink) -> Job:
    return Job(name="demo", program="json.tool", run_dir=run_dir, notify=[people.url()])


def tellers(run_dir: Path) -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if not over(one) and str(run_dir) in words_of(one)]


def words_of(one: psutil.Process) -> list[str]:
    try:
        return one.cmdline()
    except psutil.Error:  # it ended while it was looked at
        return []


def over(one: psutil.Process) -> bool:
    try:
        return one.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def another(run_dir: Path, known: set[int]) -> psutil.Process:
    [found] = until(lambda: [one for one in tellers(run_dir) if one.pid not in known], "teller")
    return found


def test_it_is_started_again_only_so_often(tmp_path: Path, people: Sink, journal: Journal) -> None:
    telling = Telling(job(tmp_path, people), "here", pauses_s=(0.1, 0.1))
    known: set[int] = set()
    for _ in range(3):
        one = another(tmp_path, known)
        known.add(one.pid)
        one.kill()
    until(lambda: not telling._thread.is_alive(), "end of the keeper")
    assert tellers(tmp_path) == []
    telling.close()


def test_what_a_scheduler_sends_to_every_process_does_not_reach_it(
    tmp_path: Path, people: Sink, journal: Journal
) -> None:
    telling = Telling(job(tmp_path, people), "here")
    one = another(tmp_path, set())
    until(people.titles, "first message")
    for signum in BLOCKED:
        one.send_signal(signum)
    blocked = next(
        line for line in Path(f"/proc/{one.pid}/status").read_text().splitlines() if line.startswith("SigBlk")
    )
    assert all(int(blocked.split()[1], 16) >> (signum - 1) & 1 for signum in BLOCKED)
    journal.append("run_stopped", by="scancel", step=7)
    telling.close()
    until(lambda: people.titles() == ["demo: started", "demo: stopped at step 7, as asked by scancel"], "last word")
    until(lambda: not tellers(tmp_path), "its end")


def test_one_that_hangs_is_left_behind_after_two_seconds(tmp_path: Path, people: Sink, journal: Journal) -> None:
    telling = Telling(job(tmp_path, people), "here")
    one = another(tmp_path, set())
    until(people.titles, "first message")
    one.send_signal(signal.SIGSTOP)
    journal.append("run_finished", step=7)
    began_s = time.monotonic()
    telling.close()
    assert PATIENCE_S <= time.monotonic() - began_s < PATIENCE_S + 20
    assert people.titles() == ["demo: started"]
    one.send_signal(signal.SIGCONT)
    until(lambda: people.titles() == ["demo: started", "demo: finished at step 7"], "last word")
    until(lambda: not tellers(tmp_path), "its end")


def test_it_is_the_first_to_go_when_memory_ends(tmp_path: Path, people: Sink, journal: Journal) -> None:
    telling = Telling(job(tmp_path, people), "here")
    one = another(tmp_path, set())
    until(lambda: Path(f"/proc/{one.pid}/oom_score_adj").read_text().strip() == "1000", "word to the kernel")
    assert one.nice() == psutil.Process().nice() + 5
    telling.close()


def test_a_successor_tells_what_its_predecessor_could_not(tmp_path: Path, people: Sink, journal: Journal) -> None:
    people.answer = 500
    first = Telling(job(tmp_path, people), "here")
    one = another(tmp_path, set())
    until((tmp_path / "logs" / "notify.log").exists, "failure")
    journal.append("incident", cause="crashed", detail="x", decision="restart at once")
    journal.append("run_started", run_id="r1", name="demo")
    first.close()
    until(lambda: over(one), "end of the first")
    people.answer = 200
    second = Telling(job(tmp_path, people), "here")
    until(lambda: people.messages, "message")
    assert people.titles() == ["demo: a worker crashed"]
    journal.append("run_finished", step=9)
    second.close()
    until(lambda: people.titles()[1:] == ["demo: finished at step 9"], "last word")
