"""What a program is set to instead of its own: the same samples in every step, however it is said."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_samples import granting, make_board, rank_environment

from supervisor.board.environment import ACCUMULATION, ADAPTED
from supervisor.errors import JobError
from supervisor.worker import adapting
from supervisor.worker.adapting import Told, adapt, fitting_batch
from supervisor.worker.facts import batch_of
from supervisor.worker.resume import carry_batch_size

counts = st.integers(1, 64)


@given(counts, counts, st.none() | counts, st.none() | counts)
def test_a_batch_keeps_its_samples_and_takes_at_most_what_is_told(
    micro_batch: int, accumulation: int, told: int | None, other: int | None
) -> None:
    taken, times = Told(micro_batch=told, accumulation=other).batch(micro_batch, accumulation)
    assert taken * times == micro_batch * (other or accumulation)
    assert taken <= min(micro_batch, told or micro_batch)


def test_what_is_told_comes_from_the_environment_and_what_it_does_not_know_is_passed_over() -> None:
    said = json.dumps({"micro_batch": 2, "checkpointing": True, "skip": [[3, 4]], "of a later release": 1})
    assert Told.read({ADAPTED: said, ACCUMULATION: "3"}) == Told(micro_batch=2, checkpointing=True, accumulation=3)
    assert Told.read({}) == Told()


def arguments(**given: Any) -> Any:
    from transformers import TrainingArguments

    return TrainingArguments("out", report_to="none", use_cpu=True, **given)


def batch(args: Any) -> tuple[int, int]:
    return args.per_device_train_batch_size, args.gradient_accumulation_steps


def test_arguments_are_changed_once_and_what_they_were_is_kept() -> None:
    args = arguments(per_device_train_batch_size=6, gradient_accumulation_steps=3, per_device_eval_batch_size=32)
    for _ in range(2):
        adapt(args, Told(micro_batch=3))
        assert batch(args) == (3, 6)
        told = batch_of(args)
        assert (told["own_micro_batch"], told["own_accumulation"]) == (6, 3)
        assert (told["micro_batch"], told["accumulation"], told["world_size"]) == (3, 6, 1)
        assert args.per_device_eval_batch_size == 3


def test_a_copy_of_changed_arguments_is_not_changed_again() -> None:
    args = arguments(per_device_train_batch_size=10, gradient_accumulation_steps=1)
    told = Told(micro_batch=5, accumulation=2)
    adapt(args, told)
    copy = dataclasses.replace(args)
    adapt(copy, told)
    assert batch(args) == batch(copy) == (5, 4)
    assert batch_of(copy)["own_micro_batch"] == 10


def test_what_a_script_sets_after_making_its_arguments_is_its_own() -> None:
    args = arguments()
    adapt(args, Told(micro_batch=2))
    assert batch(args) == (2, 4)
    args.per_device_train_batch_size = 12
    adapt(args, Told(micro_batch=2))
    assert batch(args) == (2, 6)
    args.gradient_accumulation_steps = 2
    adapt(args, Told(micro_batch=2))
    assert batch(args) == (2, 12)


def test_frozen_arguments_are_changed_as_well() -> None:
    @dataclasses.dataclass(frozen=True)
    class Frozen:
        per_device_train_batch_size: int = 8
        per_device_eval_batch_size: int = 8
        gradient_accumulation_steps: int = 1
        auto_find_batch_size: bool = False

    args = Frozen()
    adapt(args, Told(micro_batch=4))
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (4, 2)


def test_a_program_that_finds_its_batch_by_itself_is_left_alone_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    args = arguments(auto_find_batch_size=True)
    adapt(args, Told(micro_batch=2, pin_memory=False))
    assert batch(args) == (8, 1)
    assert args.dataloader_pin_memory is False
    assert "auto_find_batch_size is on" in caplog.text


def test_without_loaders_nothing_is_left_that_torch_takes_for_loaders_only() -> None:
    from torch.utils.data import DataLoader

    args = arguments(
        dataloader_num_workers=4,
        dataloader_prefetch_factor=2,
        dataloader_persistent_workers=True,
        dataloader_multiprocessing_context="fork",
    )
    adapt(args, Told(loader_workers=2))
    assert (args.dataloader_num_workers, args.dataloader_prefetch_factor) == (2, 2)
    adapt(args, Told(loader_workers=0, pin_memory=False))
    loader: Any = DataLoader(
        [1, 2],  # type: ignore[arg-type]
        num_workers=args.dataloader_num_workers,
        prefetch_factor=args.dataloader_prefetch_factor,
        persistent_workers=args.dataloader_persistent_workers,
        multiprocessing_context=args.dataloader_multiprocessing_context,
        pin_memory=args.dataloader_pin_memory,
    )
    assert [int(value) for value in loader] == [1, 2]
    own_few = arguments(dataloader_num_workers=1)
    adapt(own_few, Told(loader_workers=2))
    assert own_few.dataloader_num_workers == 1


def test_checkpointing_is_of_the_kind_that_a_frozen_base_can_bear() -> None:
    own_kind = {"use_reentrant": True, "determinism_check": "none"}
    args = arguments(gradient_checkpointing_kwargs=own_kind)
    adapt(args, Told(checkpointing=True))
    assert args.gradient_checkpointing is True
    assert args.gradient_checkpointing_kwargs == {"use_reentrant": False, "determinism_check": "none"}
    own = arguments(gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": True})
    adapt(own, Told(checkpointing=True))
    assert own.gradient_checkpointing_kwargs == {"use_reentrant": True}


class Made:
    """As much of a Trainer as is looked at."""

    def __init__(self, model: Any = None, args: Any = None, train_dataset: Any = None) -> None:
        self.model, self.args, self.train_dataset = model, args or arguments(), train_dataset


def trainer_class(told: Told) -> Any:
    class Trainer(Made):
        def __init__(self, model: Any = None, args: Any = None, train_dataset: Any = None) -> None:
            """Make one."""
            super().__init__(model, args, train_dataset)

    adapting.wrap_trainer(SimpleNamespace(Trainer=Trainer), told)
    return Trainer


def test_a_trainer_is_reached_however_it_is_given_its_arguments() -> None:
    trainer = trainer_class(Told(micro_batch=2))
    assert batch(trainer(None, arguments()).args) == (2, 4)
    assert batch(trainer(args=arguments()).args) == (2, 4)
    assert batch(trainer().args) == (8, 1)  # made inside: those of a real module are reached when they are made
    assert trainer.__init__.__doc__ == "Make one."


def test_a_model_that_cannot_do_checkpointing_goes_without() -> None:
    trainer = trainer_class(Told(checkpointing=True))
    for supports in (True, False):
        model = SimpleNamespace(supports_gradient_checkpointing=supports)
        assert trainer(model, arguments()).args.gradient_checkpointing is supports


@pytest.mark.parametrize(("rows", "fits"), [(24, True), (26, False), (30, False), (9, True)])
def test_epochs_that_would_be_longer_are_refused(rows: int, fits: bool) -> None:
    """With 30 rows three whole micro-batches of 8 are 3 steps, of 2 there are 15, 4 to a step."""
    own = {"per_device_train_batch_size": 8, "dataloader_drop_last": True}
    trainer = trainer_class(Told(micro_batch=2))
    if fits:
        assert batch(trainer(None, arguments(**own), range(rows)).args) == (2, 4)
        return
    with pytest.raises(JobError, match=r"dataloader_drop_last.* 4 steps .*instead of 3"):
        trainer(None, arguments(**own), range(rows))
    trainer(None, arguments(per_device_train_batch_size=8), range(rows))


def steps_of(rows: int, micro_batch: int, accumulation: int, ranks: int) -> list[list[int]]:
    """The samples of every step of an epoch, of all ranks, as accelerate deals them out."""
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler, SequentialSampler

    whole = BatchSampler(SequentialSampler(range(rows)), micro_batch, drop_last=False)
    shards = [list(BatchSamplerShard(whole, ranks, rank) if ranks > 1 else whole) for rank in range(ranks)]
    assert len({len(shard) for shard in shards}) == 1
    starts = range(0, len(shards[0]), accumulation)
    return [sorted(i for shard in shards for b in shard[at : at + accumulation] for i in b) for at in starts]


@pytest.mark.parametrize("ranks", [1, 2])
def test_steps_are_as_many_and_made_of_the_same_samples(ranks: int) -> None:
    """But for what the last one of an epoch is filled up with where there are several ranks."""
    filled_up = 0
    for rows in range(1, 40):
        for own in ((4, 1), (4, 3), (6, 2), (9, 1)):
            before = steps_of(rows, *own, ranks)
            samples = own[0] * own[1] * ranks
            assert len(before) == math.ceil(rows / samples)
            for micro_batch in (1, 2, 3):
                taken, times = Told(micro_batch=micro_batch).batch(*own)
                after = steps_of(rows, taken, times, ranks)
                assert len(after) == len(before)
                assert after[:-1] == before[:-1]
                last = list(range((len(after) - 1) * samples, rows))
                assert sorted(set(after[-1]) & set(last)) == sorted(set(before[-1]) & set(last)) == last
                filled_up += after[-1] != before[-1]
                if ranks == 1 or (rows % (own[0] * ranks) == 0 and own[0] % taken == 0):
                    assert after[-1] == before[-1]
    assert (filled_up > 0) == (ranks > 1)


SCRIPT = """
import json, sys
sys.path.insert(0, {tests!r})
from transformers import Trainer, TrainingArguments
from supervisor.worker import fitting_batch
from supervisor.worker.seat import seat
from worker_samples import tiny_lora

def told():
    beat = seat().beat
    return [beat.micro_batch, beat.accumulation, beat.loader_workers, beat.checkpointing]

found = [told()]
found.append([*fitting_batch(8, 3), *told()])
own = dict(per_device_train_batch_size=4, gradient_accumulation_steps=3, dataloader_num_workers=3, report_to="none",
           use_cpu=True, save_strategy="no")
for args in (TrainingArguments({out!r}, **own), TrainingArguments({out!r}, auto_find_batch_size=True, **own), None):
    Trainer(tiny_lora(), args, train_dataset=[1, 2, 3])
    found.append(told())
print("found", json.dumps(found))
"""


def found_by(tmp_path: Path, **told: Any) -> list[list[int]]:
    """What programs of one rank found and said, in a process of their own."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "script.py").write_text(SCRIPT.format(tests=str(Path(__file__).parent), out=str(tmp_path / "out")))
    board = make_board(tmp_path)
    environment = rank_environment(tmp_path, board, hooks="off", **told)
    command = [sys.executable, "-m", "supervisor.worker.bootstrap", str(tmp_path / "script.py")]
    try:
        with granting(board):
            done = subprocess.run(command, env={**os.environ, **environment}, cwd=tmp_path, check=False, timeout=180)
    finally:
        board.remove()
    text = (tmp_path / "logs" / "rank-0.log").read_text()
    assert done.returncode == 0, text
    lines = [line.removeprefix("found ") for line in text.splitlines() if line.startswith("found ")]
    found: list[list[int]] = json.loads(lines[0])
    return found


UNKNOWN = [-1, -1, -1, -1]


def test_programs_say_how_they_are_set_before_they_train(tmp_path: Path) -> None:
    unknown, loop, trainer, finds, default = found_by(tmp_path)
    assert unknown == UNKNOWN
    assert loop == [8, 3, 8, 3, -1, -1]
    assert trainer == [4, 3, 3, 0]
    assert finds == [-1, -1, 3, 0]
    assert default == [8, 1, 0, 0]


def test_programs_take_what_they_are_told_and_say_so(tmp_path: Path) -> None:
    told = {"micro_batch": 2, "loader_workers": 1, "pin_memory": False, "checkpointing": True}
    _, loop, trainer, finds, default = found_by(tmp_path, adapted=told, accumulation=2)
    assert loop == [2, 8, 2, 8, -1, -1]
    assert trainer == [2, 4, 1, 1]
    assert finds == [-1, -1, 1, 1]
    assert default == [2, 8, 0, 1]


def test_a_loop_of_its_own_keeps_its_batch_without_a_supervisor_and_needs_a_sample() -> None:
    assert fitting_batch(8, 2) == (8, 2)
    with pytest.raises(ValueError, match="makes no step"):
        fitting_batch(0)


def test_the_stock_form_names_the_batch_size_that_the_trainer_has(tmp_path: Path) -> None:
    path = tmp_path / "trainer_state.json"
    for size, kept, finds in ((2, 2, False), (8, 8, False), (2, 8, True)):
        path.write_text(json.dumps({"train_batch_size": 8, "global_step": 7}))
        carry_batch_size(tmp_path, SimpleNamespace(train_batch_size=size, auto_find_batch_size=finds))
        assert json.loads(path.read_text()) == {"train_batch_size": kept, "global_step": 7}
    assert [one.name for one in tmp_path.iterdir()] == ["trainer_state.json"]
