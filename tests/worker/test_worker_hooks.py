"""A Trainer script without a line of ours is supervised; everything else is left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from worker_samples import granting, make_board, rank_environment

from supervisor.board.pages import Phase
from supervisor.board.slots import SlotReader
from supervisor.board.store import Board
from supervisor.worker import hooks

SCRIPT = """
import inspect, json, sys
sys.path.insert(0, {tests!r})
assert not [m for m in ("torch", "transformers") if m in sys.modules]  # the bootstrap pays for nothing
import torch, transformers
from transformers import Trainer, TrainerCallback, TrainingArguments
from worker_samples import tiny_lora

class Seen(TrainerCallback):
    def __init__(self):
        self.order = None
    def on_train_begin(self, args, state, control, **kwargs):
        self.order = [type(c).__name__ for c in trainer.callback_handler.callbacks]

data = [{{"input_ids": torch.arange(4) + i, "labels": torch.arange(4) + i}} for i in range(8)]
told = []
for _ in range(2):
    seen = Seen()
    args = TrainingArguments({out!r}, max_steps=3, per_device_train_batch_size=2, report_to="none", use_cpu=True,
                             save_strategy="no", disable_tqdm=True)
    trainer = Trainer(tiny_lora(), args, train_dataset=data, callbacks=[seen])
    trainer.train()
    told.append({{"order": seen.order, "step": trainer.state.global_step}})
told.append({{"source": "def train(" in inspect.getsource(transformers.trainer.Trainer),
              "name": Trainer.train.__qualname__, "doc": Trainer.train.__doc__ is not None}})
print("told", json.dumps(told))
"""


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    (tmp_path / "logs").mkdir()
    made = make_board(tmp_path)
    yield made
    made.remove()


def test_the_first_trainer_of_a_script_is_supervised_and_the_second_is_not(tmp_path: Path, board: Board) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(tests=str(Path(__file__).parent), out=str(tmp_path / "out")))
    told = rank_environment(tmp_path, board)
    command = [sys.executable, "-m", "supervisor.worker.bootstrap", str(tmp_path / "script.py")]
    with granting(board) as asked:
        done = subprocess.run(command, env={**os.environ, **told}, check=False, timeout=180)
    text = (tmp_path / "logs" / "rank-0.log").read_text()
    assert done.returncode == 0, text
    first, second, module = json.loads(
        next(x for x in text.splitlines() if x.startswith("told ")).removeprefix("told ")
    )
    assert first["order"][0] == "SupervisorCallback"
    assert first["order"].count("SupervisorCallback") == 1
    assert "SupervisorCallback" not in second["order"]
    assert (first["step"], second["step"]) == (3, 3)
    assert module == {"source": True, "name": "Trainer.train", "doc": True}

    beat = board.control.beat(0)
    assert (beat.phase, beat.step, beat.max_steps, beat.resumed, beat.trained) == (Phase.FINISHED, 3, 3, 0, 1)
    assert len(asked) == 1
    reader = SlotReader(board.regions(0)[0][1])
    assert [(s.header.step, s.header.trained) for s in reader.snapshots()] == [(3, 1), (2, 0), (1, 0)]
    reader.close()


class Plain:
    """As much of a Trainer as the wrapper looks at."""

    def __init__(self) -> None:
        self.callback_handler = SimpleNamespace(callbacks=[])
        self.called: list[Any] = []

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> str:
        """Train."""
        self.called.append((resume_from_checkpoint, args, kwargs))
        return "trained"


def test_with_hooks_off_a_trainer_without_our_callback_trains_as_it_is() -> None:
    class Trainer(Plain):
        train = Plain.train

    module = SimpleNamespace(Trainer=Trainer)
    hooks.wrap(module, add=False)
    trainer = Trainer()
    assert trainer.train("from here", 1, trial=2) == "trained"
    assert trainer.called == [("from here", (1,), {"trial": 2})]
    assert trainer.callback_handler.callbacks == []
    assert Trainer.train.__doc__ == "Train."


def test_a_module_is_wrapped_when_it_is_imported_and_not_before(tmp_path: Path) -> None:
    (tmp_path / "watched.py").write_text("VALUE = 1\ndef f():\n    return 2\n")
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from supervisor.worker.hooks import _Finder
seen = []
sys.meta_path.insert(0, _Finder("watched", lambda module: seen.append(module.VALUE)))
import json, string
assert seen == []
import watched, inspect
assert seen == [1]
import watched as again
assert seen == [1]
assert inspect.getsource(watched.f).startswith("def f")
assert watched.__spec__.origin.endswith("watched.py")
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=180)
    assert done.stdout == "fine\n", done.stderr
