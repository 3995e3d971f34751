"""What ranks and launchers leave behind is read as it is, also when it is torn, huge, or not there."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.board.pages import Beat, Phase
from supervisor.engine.members.messages import SEEN, Seen
from supervisor.engine.ranks import node
from supervisor.engine.ranks.evidence import TAIL_BYTES, Scene, ends_of, launcher_words, reported
from supervisor.link.wire import Frame, encode
from supervisor.policy.causes import Cause, RankEnd
from supervisor.policy.diagnosis import diagnose


def scene(logs: Path, ranks: int = 2, **more: Any) -> Scene:
    empty = Scene(logs, logs / "launcher.log", 0, ranks, {}, frozenset(), {}, None, [Beat()] * ranks)
    return replace(empty, **more)


def record(logs: Path, rank: int = 0, **told: Any) -> None:
    usual = {"time": 5.0, "type": "builtins.ValueError", "bases": ["builtins.ValueError"], "message": "m"}
    (logs / f"rank-{rank}.error.json").write_text(json.dumps({**usual, **told}))


def test_a_record_is_read_with_all_that_it_says(tmp_path: Path) -> None:
    record(tmp_path, 3, errno=28, chain=["builtins.OSError: full"], phase="training", step=7, exit_code=None)
    (tmp_path / "rank-3.log").write_text("step 1\nOSError: [Errno 28] No space left on device\n")
    [end] = ends_of(scene(tmp_path, first_rank=2, oom_kills=0))
    assert end == RankEnd(
        rank=3,
        time_s=5.0,
        error_type="builtins.ValueError",
        bases=("builtins.ValueError",),
        message="m",
        errno=28,
        chain=("builtins.OSError: full",),
        began=True,
        phase="training",
        step=7,
        lines=("OSError: [Errno 28] No space left on device",),
        node=1,
        oom_kills=0,
    )


@pytest.mark.parametrize(
    ("told", "held"),
    [({"reserved_bytes": 3 << 30}, 3 << 30), ({"reserved_bytes": True}, None), ("3 GiB", None), (None, None)],
)
def test_what_torch_held_of_a_full_device_is_told_where_the_message_has_no_numbers(
    tmp_path: Path, told: Any, held: int | None
) -> None:
    record(tmp_path, type="builtins.RuntimeError", message="CUDA error: CUBLAS_STATUS_ALLOC_FAILED", oom=told)
    [end] = ends_of(scene(tmp_path))
    assert end.held_bytes == held
    verdict = diagnose([end])
    assert verdict.cause is Cause.GPU_OOM
    assert ("rank 0: this process held 3.0 GiB" in verdict.details) == (held is not None)


@pytest.mark.parametrize(
    ("told", "began"),
    [
        ({"phase": "loading", "hooked": True, "age_s": 900.0}, False),
        ({"phase": "loading", "hooked": False, "age_s": 3.0}, False),
        (
            {"phase": "loading", "hooked": False, "age_s": 900.0},
            None,
        ),  # a loop of its own may have trained all the time
        ({"phase": "starting", "age_s": None}, None),
        ({"phase": "evaluating", "age_s": 1.0}, True),
        ({"phase": 7}, None),
        ({}, None),
    ],
)
def test_whether_training_had_begun_is_known_or_unknown(
    tmp_path: Path, told: dict[str, Any], began: bool | None
) -> None:
    record(tmp_path, **told)
    assert ends_of(scene(tmp_path))[0].began is began


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"x"', '{"type": "t", "time": "now", "bases": 7, "chain": {}, "errno": "x"}']
)
def test_a_record_that_is_none_is_no_trouble(tmp_path: Path, text: str) -> None:
    (tmp_path / "rank-0.error.json").write_text(text)
    ends = ends_of(scene(tmp_path, ended={0: 9.0}))
    assert [end.rank for end in ends] == [0]
    assert ends[0].errno is None


def test_only_ranks_that_fell_by_themselves_are_told_of(tmp_path: Path) -> None:
    ends = ends_of(scene(tmp_path, ranks=4, ended={1: 9.0, 2: 9.5}, finished=frozenset({2}), exits={1: -9, 3: -9}))
    assert ends == (RankEnd(1, 9.0, signal="SIGKILL", phase="absent"),)


def test_where_a_rank_was_that_said_nothing_is_told_by_its_last_beat(tmp_path: Path) -> None:
    beat = Beat(pid=7, phase=Phase.EVALUATING, step=37, resumed=0)
    [end] = ends_of(scene(tmp_path, ranks=1, ended={0: 9.0}, beats=[beat]))
    assert (end.began, end.phase, end.step) == (True, "evaluating", 37)


@pytest.mark.parametrize(
    ("code", "signal", "exit_code"), [(-11, "SIGSEGV", None), (7, None, 7), (0, None, 0), (-63, "signal 63", None)]
)
def test_how_a_process_ended_is_told_apart(
    tmp_path: Path, code: int, signal: str | None, exit_code: int | None
) -> None:
    [end] = ends_of(scene(tmp_path, ended={0: 1.0}, exits={0: code}))
    assert (end.signal, end.exit_code) == (signal, exit_code)


def test_a_death_that_the_interpreter_saw_comes_before_the_log(tmp_path: Path) -> None:
    (tmp_path / "rank-0.stacks.txt").write_text(
        "Fatal Python error: Segmentation fault\n\nThread 0x7f (most recent\n  File x\n"
    )
    (tmp_path / "rank-0.log").write_text("step 7\n")
    [end] = ends_of(scene(tmp_path, ended={0: 1.0}))
    assert end.lines == ("Fatal Python error: Segmentation fault", "step 7")


def test_the_end_of_a_huge_log_is_read_and_no_more(tmp_path: Path) -> None:
    with (tmp_path / "rank-0.log").open("wb") as file:
        file.write(b"CUDA error: out of memory\n" + b"\xff\x00 progress\n" * (TAIL_BYTES // 8) + b"Killed\n")
    [end] = ends_of(scene(tmp_path, ended={0: 1.0}))
    assert end.lines == ("Killed",)


def test_what_many_ranks_say_at_length_fits_one_frame(tmp_path: Path) -> None:
    for rank in range(64):
        told = {"message": "ü" * 90_000, "chain": ["ü" * 9_000] * 50, "bases": ["ü" * 900] * 50}
        record(tmp_path, rank, **told)
        (tmp_path / f"rank-{rank}.log").write_text(f"error: {'ü' * 3_000}\n" * 9)
    testimony = node.Testimony(ends=ends_of(scene(tmp_path, ranks=64)))
    assert len(testimony.ends) == 64
    seen = Seen(testimony=testimony)
    assert Seen.read(json.loads(json.dumps(seen.fields()))) == seen
    assert len(encode(Frame(SEEN, seen.fields()))) < 1 << 20
    assert asdict(testimony.ends[0])["lines"][0].startswith("error: üü")


REPORT = """
W1124 12:00:00.000000 7 torch/distributed/elastic/multiprocessing/api.py:1010] Sending process 77 closing signal SIGTERM
E1124 12:00:00.000000 7 torch/distributed/elastic/multiprocessing/api.py:984] failed (exitcode: -9) local_rank: 1 (pid
Root Cause (first observed failure):
[0]:
  time      : 2026-11-24_12:00:00
  host      : node-1
  rank      : 3 (local_rank: 1)
  exitcode  : -9 (pid: 78)
  error_file: <N/A>
  traceback : Signal 9 (SIGKILL) received by PID 78
"""


def test_what_the_launcher_reports_is_read(tmp_path: Path) -> None:
    assert reported(REPORT, 2, 2) == {1: -9}
    (tmp_path / "launcher.log").write_text(REPORT)
    [end] = ends_of(scene(tmp_path, first_rank=2, ended={1: 1.0}))
    assert (end.rank, end.signal) == (3, "SIGKILL")


def test_a_launchers_last_words_are_those_that_say_something(tmp_path: Path) -> None:
    log = tmp_path / "launcher.log"
    assert launcher_words(log, 1) == "exit code 1"
    log.write_text("usage: accelerate\naccelerate: error: unrecognized arguments: --x\nbye\n")
    assert launcher_words(log, 2) == "exit code 2, accelerate: error: unrecognized arguments: --x"
    log.write_text("hello\nbye\n")
    assert launcher_words(log, 2) == "exit code 2, bye"


def test_a_rank_that_the_kernels_log_names_was_killed_for_memory_whatever_is_counted(tmp_path: Path) -> None:
    for counted in (None, 0):
        ends = ends_of(
            scene(tmp_path, ended={0: 5.0, 1: 5.1}, exits={0: -9, 1: -9}, oom_kills=counted, killed=frozenset({1}))
        )
        assert [(end.rank, end.oom_kills) for end in ends] == [(0, counted), (1, 1)]
        assert diagnose(ends).cause is Cause.HOST_OOM
