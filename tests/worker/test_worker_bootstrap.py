"""Every rank's shell, as a real process: its end is recorded, it dies with its supervisor, signals pass it by."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from harness import until
from worker_samples import make_board, rank_environment

from supervisor.board.environment import PID, STACKS_SIGNAL, TICKS, WORLD_SIZE
from supervisor.board.pages import Phase
from supervisor.board.store import Board
from supervisor.launch.processes import signals_blocked
from supervisor.owner import start_ticks

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    (tmp_path / "logs").mkdir()
    made = make_board(tmp_path)
    yield made
    made.remove()


@pytest.fixture
def start(tmp_path: Path, board: Board) -> Iterator[Start]:
    """Start a program under the bootstrap, with this process as its supervisor unless told otherwise."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(source: str, *arguments: str, module: str | None = None, **more: str) -> subprocess.Popen[bytes]:
        (tmp_path / "program.py").write_text(dedent(source))
        told = rank_environment(tmp_path, board)
        program = module or str(tmp_path / "program.py")
        with signals_blocked():
            process = subprocess.Popen(
                [sys.executable, "-m", "supervisor.worker.bootstrap", program, *arguments],
                env={**os.environ, **told, **more},
                cwd=tmp_path,
            )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def log(tmp_path: Path) -> str:
    return (tmp_path / "logs" / "rank-0.log").read_text()


def recorded(tmp_path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((tmp_path / "logs" / "rank-0.error.json").read_text())
    return told


def line(tmp_path: Path, word: str) -> str:
    """The rest of the line of the log that begins with a word, once it is there."""

    def there() -> str | None:
        lines = log(tmp_path).splitlines() if (tmp_path / "logs" / "rank-0.log").exists() else []
        return next((x.removeprefix(word).strip() for x in lines if x.startswith(word)), None)

    return until(lambda: (there() or "yes") if there() is not None else None, f"line {word}")


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_program_runs_as_if_it_had_been_started_by_itself(start: Start, tmp_path: Path, board: Board) -> None:
    (tmp_path / "sibling.py").write_text("WORD = 'sibling'")
    rank = start(
        """
        import os, sys, sibling
        print(__name__, sys.argv[1:], os.path.basename(sys.argv[0]), sibling.WORD)
        os.system("echo from below")
        """,
        "--lr",
        "1e-4",
    )
    assert rank.wait(timeout=180) == 0
    assert log(tmp_path) == "__main__ ['--lr', '1e-4'] program.py sibling\nfrom below\n"
    assert board.control.beat(0).phase == Phase.FINISHED
    assert board.control.beat(0).pid == rank.pid
    assert board.hush()
    assert not (tmp_path / "logs" / "rank-0.error.json").exists()


def test_a_module_is_found_below_the_current_directory(start: Start, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "job.py").write_text("import sys; print(__name__, sys.argv[1:])")
    assert start("", "x", module="inner.job").wait(timeout=180) == 0
    assert log(tmp_path) == "__main__ ['x']\n"


def test_an_exception_is_recorded_with_its_classes_and_where_it_came_from(
    start: Start, tmp_path: Path, board: Board
) -> None:
    rank = start(
        """
        class Odd(KeyError):
            pass
        def fail():
            raise Odd("no such key")
        fail()
        """
    )
    assert rank.wait(timeout=180) == 1
    told = recorded(tmp_path)
    assert (told["type"], told["message"], told["rank"], told["pid"]) == ("__main__.Odd", "'no such key'", 0, rank.pid)
    assert "builtins.LookupError" in told["bases"]
    assert "in fail" in told["traceback"]
    assert (told["phase"], told["exit_code"]) == ("loading", None)
    assert "Odd: 'no such key'" in log(tmp_path)
    assert board.control.beat(0).phase == Phase.FAILED


def test_what_an_exception_came_from_is_recorded_with_the_kernels_number(start: Start, tmp_path: Path) -> None:
    rank = start(
        """
        import transformers.trainer
        try:
            try:
                open("/dev/full", "w", buffering=1).write("x\\n")
            except OSError as error:
                raise ValueError("not written") from error
        except ValueError:
            raise RuntimeError("the dataset could not be made")
        """
    )
    assert rank.wait(timeout=180) == 1
    told = recorded(tmp_path)
    assert told["chain"] == [
        "builtins.ValueError: not written",
        "builtins.OSError: [Errno 28] No space left on device",
    ]
    assert (told["errno"], told["hooked"], told["oom"]) == (28, True, None)
    assert 0 < told["age_s"] < 600


def test_an_exception_that_hides_what_it_came_from_is_taken_at_its_word(start: Start, tmp_path: Path) -> None:
    rank = start("try:\n    open('/nowhere')\nexcept OSError:\n    raise KeyError('x') from None")
    assert rank.wait(timeout=180) == 1
    told = recorded(tmp_path)
    assert (told["chain"], told["errno"], told["hooked"]) == ([], None, False)


@pytest.mark.parametrize(
    ("end", "code", "told"),
    [("0", 0, None), ("None", 0, None), ("3", 3, 3), ("'wrong data'", 1, "wrong data"), ("2", 2, 2)],
)
def test_an_exit_is_an_end_or_a_failure_by_its_code(
    start: Start, tmp_path: Path, board: Board, end: str, code: int, told: Any
) -> None:
    assert start(f"import sys; sys.exit({end})").wait(timeout=180) == code
    assert board.control.beat(0).phase == (Phase.FINISHED if code == 0 else Phase.FAILED)
    if code:
        assert recorded(tmp_path)["type"] == "builtins.SystemExit"
        assert recorded(tmp_path)["exit_code"] == told


def test_a_failure_is_told_even_where_it_cannot_be_recorded(start: Start, tmp_path: Path, board: Board) -> None:
    (tmp_path / "logs" / "rank-0.error.partial").mkdir()  # as good as a full disk
    assert start("1 / 0").wait(timeout=180) == 1
    assert board.control.beat(0).phase == Phase.FAILED
    assert "ZeroDivisionError" in log(tmp_path)


def test_a_failed_program_does_not_wait_for_its_own_threads(start: Start, tmp_path: Path) -> None:
    rank = start("import threading; threading.Thread(target=threading.Event().wait).start(); 1 / 0")
    assert rank.wait(timeout=180) == 1
    assert recorded(tmp_path)["type"] == "builtins.ZeroDivisionError"


def test_a_crash_below_python_leaves_the_stacks(start: Start, tmp_path: Path) -> None:
    rank = start("import os, signal\ndef inner():\n    os.kill(os.getpid(), signal.SIGSEGV)\ninner()")
    assert rank.wait(timeout=180) == -signal.SIGSEGV
    assert "in inner" in (tmp_path / "logs" / "rank-0.stacks.txt").read_text()


def test_another_number_of_processes_than_was_wanted_is_refused(start: Start, tmp_path: Path) -> None:
    assert start("print('trains alone')", **{WORLD_SIZE: "2"}).wait(timeout=180) == 1
    assert recorded(tmp_path)["message"] == "2 processes were wanted, the launcher made 1"
    assert log(tmp_path) == ""


HANG = """
    import multiprocessing, os, threading, time
    def hang():
        threading.Event().wait()
    child = multiprocessing.Process(target=hang)
    child.start()
    print("child", child.pid)
    while True:
        pass
"""


def test_a_rank_and_what_it_forked_end_when_their_supervisor_dies(start: Start, tmp_path: Path) -> None:
    supervisor = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    rank = start(HANG, **{PID: str(supervisor.pid), TICKS: str(start_ticks(supervisor.pid))})
    child = int(line(tmp_path, "child"))
    supervisor.kill()
    supervisor.wait()
    assert rank.wait(timeout=180) == -signal.SIGKILL
    until(lambda: not running(child), "end of the child")


@pytest.mark.parametrize("ticks", ["1", "0"])
def test_a_rank_whose_supervisor_is_somebody_else_by_now_does_not_begin(
    start: Start, tmp_path: Path, ticks: str
) -> None:
    assert start("print('begun')", **{TICKS: ticks}).wait(timeout=180) == 1
    assert log(tmp_path) == ""


def test_a_rank_whose_supervisor_is_gone_does_not_begin(start: Start, tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert start("print('begun')", **{PID: str(gone.pid)}).wait(timeout=180) == 1
    assert log(tmp_path) == ""


def pending(pid: int, signum: int) -> bool:
    """Whether a signal waits for a process, sent and not taken."""
    told = Path(f"/proc/{pid}/status").read_text()
    masks = [int(x.split()[1], 16) for x in told.splitlines() if x.startswith(("SigPnd", "ShdPnd"))]
    return any(mask >> (signum - 1) & 1 for mask in masks)


def test_a_forked_child_obeys_its_parent_and_nobody_else(start: Start, tmp_path: Path) -> None:
    rank = start(
        """
        import multiprocessing, os, threading
        def hang():
            print("hangs", os.getpid(), flush=True)
            threading.Event().wait()
        child = multiprocessing.Process(target=hang)
        child.start()
        read, write = os.pipe()
        while not os.path.exists("go"):
            pass
        child.terminate()
        child.join(60)
        print("exit", child.exitcode)
        """
    )
    child = int(line(tmp_path, "hangs"))
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(child, signum)
        os.kill(rank.pid, signum)
    until(lambda: not pending(child, signal.SIGTERM), "a look at the signal")
    assert running(child)
    assert running(rank.pid)
    (tmp_path / "go").touch()
    assert rank.wait(timeout=180) == 0
    assert line(tmp_path, "exit") == str(128 + signal.SIGTERM)


def test_pools_work_and_end_though_their_signal_is_blocked(start: Start, tmp_path: Path) -> None:
    rank = start(
        """
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        with multiprocessing.Pool(2) as pool:
            print("pool", sum(pool.map(abs, range(-9, 0))))
        with ProcessPoolExecutor(2) as pool:
            print("futures", sum(pool.map(abs, range(-9, 0))))
        print("children", len(multiprocessing.active_children()))
        """
    )
    assert rank.wait(timeout=180) == 0
    assert (line(tmp_path, "pool"), line(tmp_path, "futures"), line(tmp_path, "children")) == ("45", "45", "0")


def test_programs_that_are_executed_are_left_as_they_are(start: Start, tmp_path: Path) -> None:
    rank = start(
        "import subprocess; print('said', subprocess.run(['echo', 'hi'], capture_output=True).stdout.decode())"
    )
    assert rank.wait(timeout=180) == 0
    assert line(tmp_path, "said") == "hi"


def test_it_answers_one_signal_with_the_stacks_of_its_threads_and_goes_on(start: Start, tmp_path: Path) -> None:
    rank = start(
        """
        import re, sys, threading
        def second():
            threading.Event().wait()
        threading.Thread(target=second, daemon=True).start()
        print("ready", flush=True)
        def holds_the_interpreter():
            re.match("(a+)+$", "a" * 24 + "b")
        for _ in range(1000):
            holds_the_interpreter()
        """
    )
    line(tmp_path, "ready")
    os.kill(rank.pid, STACKS_SIGNAL)
    stacks = tmp_path / "logs" / "rank-0.stacks.txt"
    until(lambda: "in holds_the_interpreter" in stacks.read_text(), "answer")
    assert "in second" in stacks.read_text()
    assert rank.poll() is None


def test_its_children_answer_too_and_none_of_them_dies_of_it(start: Start, tmp_path: Path) -> None:
    """A program may signal its whole group; nobody else does."""
    rank = start(
        """
        import os, signal, sys, time
        child = os.fork()
        if child == 0:
            time.sleep(600)
        print("child", child, flush=True)
        os.waitpid(child, 0)
        """
    )
    child = int(line(tmp_path, "child"))
    os.kill(child, STACKS_SIGNAL)
    stacks = tmp_path / "logs" / "rank-0.stacks.txt"
    until(lambda: "most recent call first" in stacks.read_text(), "answer")
    assert running(child)
    os.kill(child, signal.SIGKILL)
    assert rank.wait(timeout=180) == 0
