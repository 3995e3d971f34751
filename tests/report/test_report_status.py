"""`status`: the contract's keys, unknown is null, and a dead supervisor is no running one."""

import io
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import run_histories as h
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import JobError
from supervisor.lease import LeaseRecord, acquire
from supervisor.owner import Life, this_process
from supervisor.report.find import check_run, find_runs
from supervisor.report.fold import fold
from supervisor.report.live import PROGRESS, Live, Progress, look
from supervisor.report.status import block, line, listing, print_status, status, summary
from supervisor.report.words import clock

KEYS = [
    "name", "state", "step", "max_steps", "attempt", "allocation", "resumed_from", "last_checkpoint",
    "steps_per_s", "eta_s", "goodput", "steps_redone", "incidents", "loss", "adapted", "queue", "pace",
    "mirrored",
]  # fmt: skip
ME = this_process()
WORD = Progress(
    time=1100.0, state="running", attempt=1, step=80, max_steps=100, loss=2.5, steps_per_s=0.5, pid=ME.pid, host=ME.host
)
ALIVE = Live(progress=WORD, owner=ME, life=Life.ALIVE)


def told(lines: list[h.Line], live: Live, now: float = 1100.0) -> dict[str, Any]:
    return summary(fold(h.records(lines)), Path("/runs/demo"), now, live)


def test_the_keys_are_the_contracts_and_everything_is_json(tmp_path: Path) -> None:
    for lines in (*h.ALL.values(), []):
        run_dir = h.write(tmp_path / str(id(lines)), lines)
        answer = status(run_dir, 5000.0, look(run_dir))
        assert list(answer) == KEYS
        json.dumps(answer, allow_nan=False)


def test_a_running_run_is_told_from_its_living_owner() -> None:
    assert told(h.UNDER_WAY, ALIVE) == {
        "name": "demo",
        "state": "running",
        "step": 80,
        "max_steps": 100,
        "attempt": 1,
        "allocation": "local-1000",
        "resumed_from": None,
        "last_checkpoint": {"step": 40, "path": "/runs/demo/checkpoints/checkpoint-40", "age_s": 50.0},
        "steps_per_s": 0.5,
        "eta_s": 40.0,
        "goodput": 0.9,
        "steps_redone": 0,
        "incidents": [],
        "loss": 2.5,
        "adapted": None,
        "queue": None,
        "pace": None,
        "mirrored": None,
    }


def test_what_is_not_known_is_null_and_never_zero() -> None:
    answer = told([], Live())
    assert {key: value for key, value in answer.items() if value is not None} == {
        "name": "demo",
        "state": "pending",
        "incidents": [],
    }


def test_a_dead_owners_run_is_interrupted_and_its_last_step_still_known() -> None:
    answer = told(h.UNDER_WAY, Live(progress=WORD, owner=ME, life=Life.DEAD))
    assert (answer["state"], answer["step"], answer["loss"]) == ("interrupted", 80, 2.5)
    assert (answer["steps_per_s"], answer["eta_s"]) == (None, None)
    later = told(h.UNDER_WAY, Live(progress=WORD, owner=ME, life=Life.DEAD), now=1200.0)
    assert (answer["goodput"], later["goodput"]) == (0.9, 0.45)
    assert told(h.UNDER_WAY, Live(), now=1200.0)["goodput"] == 0.2  # without a last word, until the last line


def test_the_word_of_an_earlier_supervisor_is_not_todays() -> None:
    stale = Live(progress=WORD, owner=replace(ME, pid=ME.pid + 1), life=Life.ALIVE)
    answer = told(h.TREE_KILLED_RESUMED, stale, now=1210.0)
    assert (answer["state"], answer["step"], answer["steps_per_s"]) == ("running", 57, None)
    assert answer["resumed_from"] == {"step": 57, "source": "snapshot"}


def test_an_owner_elsewhere_is_believed() -> None:
    answer = told(h.UNDER_WAY, Live(progress=replace(WORD, state="draining"), owner=ME, life=Life.UNKNOWN))
    assert answer["state"] == "draining"


@pytest.mark.parametrize("name", ["SMOOTH", "STOPPED", "GAVE_UP", "PREEMPTED"])
def test_an_end_is_an_end_whatever_the_last_word_was(name: str) -> None:
    answer = told(h.ALL[name], ALIVE)
    assert answer["state"] == fold(h.records(h.ALL[name])).state
    assert answer["eta_s"] is None


def test_a_loss_that_is_no_number_is_null() -> None:
    live = replace(ALIVE, progress=Progress.parse(b'{"loss": NaN, "pid": 1}'))
    assert told(h.UNDER_WAY, live)["loss"] is None


def test_incidents_are_listed() -> None:
    incident = {"cause": "crashed", "detail": "rank 1 was killed by SIGKILL", "decision": "restart at once"}
    assert told(h.RANK_KILLED, ALIVE)["incidents"] == [{"time": 1070.0, "attempt": 1, **incident}]


def test_a_living_process_is_seen_and_a_killed_one_too(tmp_path: Path) -> None:
    run_dir = h.write(tmp_path, h.UNDER_WAY)
    board = tmp_path / "board"
    board.mkdir()
    lease = acquire(run_dir, wait=time.sleep)
    (run_dir / PROGRESS).write_text(
        json.dumps(
            {
                "time": 1e9,
                "state": "running",
                "attempt": 1,
                "step": 44,
                "pid": os.getpid(),
                "host": ME.host,
                "board": str(board),
                "board_bytes": 5_000_000,
            }
        )
    )
    live = look(run_dir)
    assert (live.life, live.board) == (Life.ALIVE, None)
    assert status(run_dir, 1100.0, live)["step"] == 44
    (run_dir / "lease").write_bytes(LeaseRecord(epoch=1, counter=0, owner=replace(lease.owner, start_ticks=1)).encode())
    live = look(run_dir)
    assert (live.life, live.board) == (Life.DEAD, str(board))
    answer = status(run_dir, 1100.0, live)
    assert answer["state"] == "interrupted"
    assert f"left in memory by a killed supervisor: {board} (5.0 MB)" in block(answer, live, 1100.0)
    board.rmdir()
    assert look(run_dir).board is None


def test_a_damaged_run_directory_is_still_told_about(tmp_path: Path) -> None:
    run_dir = h.write(tmp_path, h.UNDER_WAY)
    (run_dir / PROGRESS).write_bytes(b'{"step": 4')
    (run_dir / "lease").mkdir()
    live = look(run_dir)
    assert live == Live(life=Life.UNKNOWN)
    assert status(run_dir, 1100.0, live)["state"] == "running"


@given(
    st.binary(max_size=40)
    | st.dictionaries(
        st.sampled_from(["time", "state", "step", "loss", "pid", "board"]),
        st.none() | st.integers() | st.floats() | st.text(max_size=3),
    ).map(lambda v: json.dumps(v).encode())
)
def test_no_last_word_makes_it_fail(data: bytes) -> None:
    live = replace(ALIVE, progress=Progress.parse(data))
    json.dumps(told(h.UNDER_WAY, live), allow_nan=False)
    block(told(h.UNDER_WAY, live), live, 1100.0)


def test_people_read_it_in_a_block() -> None:
    live = replace(ALIVE, progress=replace(WORD, attempt=2))
    text = block(told(h.RANK_KILLED[:-4], live), live, 1140.0)
    for part in (
        "demo\n",
        "running",
        "step 80/100 (80 %)",
        "0.5 steps/s",
        "resumed from step 55 (snapshot)",
        "last heard of 40 s ago",
        "1, the last at",
        "a worker crashed",
    ):
        assert part in text
    assert "None" not in text


def test_a_block_of_any_history_says_no_none() -> None:
    for lines in (*h.ALL.values(), []):
        for live in (ALIVE, Live(), Live(life=Life.UNKNOWN)):
            assert "None" not in block(told(lines, live), live, 1100.0)
            assert "None" not in line(told(lines, live))


def test_many_runs_are_a_line_each() -> None:
    runs = [("runs/a", told(h.SMOOTH, Live())), ("runs/long-name", told(h.UNDER_WAY, ALIVE))]
    first, second = listing(runs).splitlines()
    assert first.split() == ["demo", "finished", "step", "100/100", "(100", "%)", "runs/a"]
    assert "40 s to go" in second
    assert first.index("runs/a") == second.index("runs/long-name")


def test_runs_are_found_below_and_links_and_crowds_are_left_out(tmp_path: Path) -> None:
    for name in ("a", "b/c/d", "1/2/3/4/5/6", ".hidden", "node_modules/x", "a/checkpoints/inner"):
        h.write(tmp_path / name, h.STARTING)
    (tmp_path / "link").symlink_to(tmp_path / "b")
    crowd = tmp_path / "crowd"
    h.write(crowd / "run", h.STARTING)
    for number in range(2001):
        (crowd / str(number)).touch()
    assert list(find_runs(tmp_path)) == [tmp_path / "a", tmp_path / "b/c/d"]
    assert list(find_runs(tmp_path / "b/c/d")) == [tmp_path / "b/c/d"]
    assert list(find_runs(tmp_path / "nowhere")) == []


def test_a_directory_without_a_run_is_refused_with_those_below(tmp_path: Path) -> None:
    h.write(tmp_path / "runs" / "demo", h.STARTING)
    check_run(tmp_path / "runs" / "demo")
    with pytest.raises(JobError, match=r"did you mean .*runs/demo\?"):
        check_run(tmp_path)
    with pytest.raises(JobError, match="there is no directory"):
        check_run(tmp_path / "x")


def test_it_is_printed_as_text_and_as_one_json_document(tmp_path: Path) -> None:
    run_dir = h.write(tmp_path / "demo", h.SMOOTH)
    out = io.StringIO()
    print_status(run_dir, as_json=True, out=out)
    assert list(json.loads(out.getvalue())) == KEYS
    out = io.StringIO()
    print_status(run_dir, as_json=False, out=out)
    assert out.getvalue().startswith("demo\n  state       finished\n")
    with pytest.raises(JobError, match="holds no run"):
        print_status(tmp_path, as_json=False)


def test_status_imports_nothing_heavy(tmp_path: Path) -> None:
    run_dir = h.write(tmp_path, h.SMOOTH)
    code = (
        "import sys, time; from pathlib import Path;"
        "from supervisor.report.live import look; from supervisor.report.status import status;"
        "from supervisor.report import why, watch;"
        "run = Path(sys.argv[1]); status(run, time.time(), look(run));"
        "heavy = {'torch', 'transformers', 'peft', 'accelerate', 'pydantic', 'yaml', 'rich', 'psutil'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code, str(run_dir)], check=True, capture_output=True, text=True).stdout
    assert said == "[]\n"


def test_what_was_changed_is_shown_until_the_run_starts_afresh() -> None:
    assert told(h.SHRUNK, ALIVE)["adapted"] == {"time": 1070.0, "detail": h.SMALLER}
    assert f"adapted     {h.SMALLER}, since {clock(1070.0)}" in block(told(h.SHRUNK, ALIVE), ALIVE, 1100.0)
    assert told([*h.SHRUNK, *h.started(2000, fresh=True)], ALIVE)["adapted"] is None


def test_how_often_checkpoints_are_made_is_told_where_the_run_found_it_out_and_until_it_starts_again() -> None:
    tuned = {"every_s": 96.0, "cost_s": 0.05, "between_s": 100_800.0}
    commit = (1060.0, "checkpoint_committed", 1, {"step": 50, "path": "checkpoints/checkpoint-50", **tuned})
    answer = told([*h.UNDER_WAY, commit], ALIVE)
    assert answer["pace"] == tuned
    shown = "every       1 min 36 s: one costs 0.05 s of training, and memory is lost once in 1 d 4 h"
    assert shown in block(answer, ALIVE, 1100.0)
    assert told([*h.UNDER_WAY, commit, *h.started(2000)], ALIVE)["pace"] is None


def test_what_is_in_the_mirror_is_told_by_its_step() -> None:
    sent = [*h.SMOOTH, (1090.0, "mirrored", 1, {"step": 80, "lineage": 0, "bytes": 9, "sent_bytes": 9, "seconds": 1.0})]
    assert told(sent, ALIVE)["mirrored"] == 80
    assert "  mirror      step 80" in block(told(sent, ALIVE), ALIVE, 1100.0)
