"""A rank knows its place from the environment; without a supervisor everything of ours does nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from worker_samples import environment, make_board

from supervisor.board.environment import ATTEMPT, BOARD, RUN_ID
from supervisor.board.pages import Orders, Phase, Reply
from supervisor.owner import start_ticks
from supervisor.worker.seat import Seat, supervised

WITHOUT = """
import sys
from supervisor.worker import SupervisorCallback, resume_point
assert resume_point() is None
from transformers import TrainerControl, TrainerState, TrainingArguments
callback = SupervisorCallback()
told = TrainingArguments("{out}", report_to="none", use_cpu=True), TrainerState(), TrainerControl()
for hook in ("on_train_begin", "on_epoch_begin", "on_step_begin", "on_step_end", "on_prediction_step", "on_log",
             "on_epoch_end", "on_train_end"):
    getattr(callback, hook)(*told, logs={{"loss": 1.0}})
print("nothing happened")
"""


def bare() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("SUPERVISOR_")}


def test_a_rank_sits_down_where_the_environment_says(tmp_path: Path) -> None:
    board = make_board(tmp_path, ranks=2)
    seat = Seat.take(environment(board.directory, attempt=3, rank=1, world_size=2, lineage=4))
    assert (seat.rank, seat.local_rank, seat.world_size, seat.attempt, seat.lineage) == (1, 1, 2, 3, 4)
    assert not seat.leads
    assert (seat.beat.pid, seat.beat.start_ticks) == (os.getpid(), start_ticks(os.getpid()))
    board.remove()


def test_a_single_process_is_rank_0_and_leads(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    seat = Seat.take({BOARD: str(board.directory), ATTEMPT: "1"})
    assert (seat.rank, seat.local_rank, seat.world_size, seat.leads) == (0, 0, 1, True)
    board.remove()


def test_what_a_rank_publishes_is_read_by_its_supervisor_and_back(tmp_path: Path) -> None:
    board = make_board(tmp_path, ranks=2)
    seat = Seat.take(environment(board.directory, rank=1, world_size=2))
    seat.publish(phase=Phase.TRAINING, step=7)
    assert (board.control.beat(1).phase, board.control.beat(1).step) == (Phase.TRAINING, 7)
    assert board.control.beat(0).pid == 0
    assert not board.hush()
    seat.announce(loss=2.5)
    assert board.hush()
    told = board.control.beat(1)
    assert (told.step, told.loss, told.time_s) == (7, 2.5, seat.beat.time_s)
    board.control.give_orders(Orders(attempt=1, drain=1))
    board.control.reply(1, Reply(granted=2, text="here"))
    assert seat.orders().drain == 1
    assert seat.replied().text == "here"
    board.remove()


@pytest.mark.parametrize(("told", "expected"), [({}, False), ({BOARD: ""}, False), ({RUN_ID: "x"}, False)])
def test_without_a_board_nobody_supervises(told: dict[str, str], expected: bool) -> None:
    assert supervised(told) is expected
    assert supervised({BOARD: "/dev/shm/x"})


def test_without_a_supervisor_the_callback_and_the_resume_point_do_nothing(tmp_path: Path) -> None:
    program = WITHOUT.format(out=tmp_path / "out")
    done = subprocess.run(
        [sys.executable, "-c", program], env=bare(), check=False, capture_output=True, text=True, timeout=180
    )
    assert done.stdout == "nothing happened\n", done.stderr


def test_importing_the_worker_imports_no_torch() -> None:
    program = (
        "import sys, supervisor.worker; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=180)
    assert done.stdout == "[]\n"
