"""The live view follows a run to its end, on a terminal and off it, and never touches it."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import run_histories as h

from supervisor.lease import acquire
from supervisor.owner import this_process
from supervisor.report.live import PROGRESS
from supervisor.report.watch import event_line, watch


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def says(run_dir: Path, step: int) -> None:
    word = {"time": 1060.0, "state": "running", "attempt": 1, "step": step, "max_steps": 100, "steps_per_s": 1.0}
    (run_dir / PROGRESS).write_text(json.dumps({**word, "loss": 2.0, "pid": os.getpid(), "host": this_process().host}))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    h.write(tmp_path, h.UNDER_WAY)
    acquire(tmp_path, wait=lambda _: None)
    says(tmp_path, 41)
    return tmp_path


def shown(run_dir: Path, out: io.StringIO, *then: Callable[[], object]) -> tuple[str, str]:
    """Watch; at the n-th wait, the n-th thing happens. Each wait lasts 20 s on our clock."""
    waits = iter(then)
    now = [1060.0]

    def wait(_: float) -> None:
        now[0] += 20.0
        next(waits)()

    state = watch(run_dir, out, clock_=lambda: now[0], wait=wait)
    return state, out.getvalue()


def test_off_a_terminal_events_are_lines_and_progress_is_one_now_and_then(run_dir: Path) -> None:
    state, text = shown(
        run_dir,
        io.StringIO(),
        lambda: says(run_dir, 50),
        lambda: says(run_dir, 60),
        lambda: h.write(run_dir, h.RANK_KILLED[len(h.UNDER_WAY) : -4]),
        lambda: h.write(run_dir, h.RANK_KILLED[-4:]),
    )
    assert state == "finished"
    for part in (
        "attempt 1: 2 processes are starting",
        "checkpoint of step 40",
        "a worker crashed",
        "from step 55 (snapshot)",
    ):
        assert text.count(part) >= 1
    assert text.count("steps/s") == 2  # at 1060 s and at 1100 s; not at 1080 s
    assert "\x1b" not in text
    assert text.count("run demo started") == 1
    assert text.rstrip().splitlines()[-1].strip().startswith(("incidents", "redone"))


def test_on_a_terminal_it_redraws_and_leaves_the_last_state(run_dir: Path) -> None:
    state, text = shown(run_dir, Terminal(), lambda: h.write(run_dir, h.SMOOTH[len(h.UNDER_WAY) :]))
    assert state == "finished"
    assert "step 41/100 (41 %)" in text
    assert "state       finished" in text


def test_ctrl_c_closes_the_view_and_leaves_the_run_alone(run_dir: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    before = {path: path.read_bytes() for path in run_dir.iterdir()}
    for out in (io.StringIO(), Terminal()):
        state, text = shown(run_dir, out, interrupt)
        assert state == "running"
        assert f"the run goes on; `supervisor stop {run_dir}` would end it" in text
    assert {path: path.read_bytes() for path in run_dir.iterdir()} == before


def test_a_run_that_nobody_runs_is_told_at_once(tmp_path: Path) -> None:
    h.write(tmp_path, h.TREE_KILLED)
    state, text = shown(tmp_path, io.StringIO())
    assert state == "interrupted"
    assert "the same `supervisor run` goes on with it" in text


def test_a_run_that_has_not_begun_is_waited_for(tmp_path: Path) -> None:
    assert shown(tmp_path, io.StringIO(), lambda: h.write(tmp_path, h.SMOOTH))[0] == "finished"


@pytest.mark.parametrize("name", sorted(h.ALL))
def test_every_event_has_its_line(name: str) -> None:
    for record in h.records(h.ALL[name]):
        text = event_line(record)
        assert text is None or "None" not in text
