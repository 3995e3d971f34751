"""A loop of one's own goes on in a second life as if there had been one, whatever it consists of."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DataLoaderConfiguration
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from worker_samples import granting, make_board, note_newest, seat_at

from supervisor.board.environment import ADAPTED
from supervisor.board.pages import Phase, Trained
from supervisor.board.store import Board
from supervisor.errors import JobError
from supervisor.worker.session import Session


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine torch's threads wait for each other longer than such small a model takes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    made = make_board(tmp_path)
    yield made
    made.remove()


class KilledError(Exception):
    """Stands for the end of the first life."""


class Stream(IterableDataset):
    def __init__(self, rows: torch.Tensor) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        yield from ([row] for row in self.rows)


class Counted:
    """Something with a state, of which the program makes use."""

    def __init__(self) -> None:
        self.mean, self.seen = torch.zeros(3), 0

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mean, self.seen = state["mean"], state["seen"]


@dataclass
class Loop:
    """A program; each of its lives begins with `prepare`."""

    accumulate: int = 1
    by_hand: bool = False
    dataset: Callable[[torch.Tensor], Dataset[Any]] = TensorDataset
    seeded: bool = False
    config: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=lambda: {"epochs": 3})
    noise: bool = False
    optimizers: int = 2
    batch: int = 4
    poisoned: int = -1
    kinds: tuple[Any, ...] = (torch.optim.AdamW, torch.optim.RMSprop)
    says: bool = True
    steps: bool = True

    def prepare(self) -> None:
        GradientState._reset_state()
        AcceleratorState._reset_state(reset_partial_state=True)
        torch.manual_seed(5)
        random.seed(6)
        np.random.seed(7)
        steps = 1 if self.by_hand else self.accumulate
        self.accelerator = Accelerator(
            cpu=True, gradient_accumulation_steps=steps, dataloader_config=DataLoaderConfiguration(**self.config)
        )
        self.model = torch.nn.Sequential(
            torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.3), torch.nn.Linear(4, 1)
        )
        halves = [list(self.model[0].parameters()), [p for m in self.model[1:] for p in m.parameters()]]
        shares = halves if self.optimizers == 2 else [halves[0] + halves[1]]
        made = [kind(share, lr=0.05) for kind, share in zip(self.kinds, shares, strict=False)]
        self.opts = [self.accelerator.prepare_optimizer(one) for one in made]
        self.schedulers = [
            self.accelerator.prepare_scheduler(torch.optim.lr_scheduler.ExponentialLR(one, 0.9)) for one in made
        ]
        rows = self.dataset(torch.randn(22, 3, generator=torch.Generator().manual_seed(8)))
        generator = torch.Generator().manual_seed(9) if self.seeded else None
        shuffled = not isinstance(rows, IterableDataset)
        data = DataLoader(rows, self.batch, shuffle=shuffled, collate_fn=self.collate, generator=generator)
        self.data = self.accelerator.prepare(data)
        self.model = self.accelerator.prepare(self.model)
        self.counted = Counted()
        self.seen: list[torch.Tensor] = []

    def collate(self, rows: list[Any]) -> torch.Tensor:
        made = torch.stack([row[0] for row in rows])
        if self.noise:
            made = made + torch.rand_like(made) * random.random() * np.random.rand()
        return made

    def run(self, until: int | None = None, **seat: Any) -> Session:
        """Train in one life, to the end or until a step is made."""
        session = Session(self.accelerator, self.model, self.opts, self.schedulers, self.data, **self.limits, **seat)
        with session:
            if self.counted is not None:
                session.register("counted", self.counted)
            for number, batch in enumerate(session.batches(), 1):
                self.seen.append(batch)
                poisoned = session.step + 1 == self.poisoned
                with self.accelerator.accumulate(self.model):
                    loss = (self.model(batch) - batch.sum(dim=1, keepdim=True)).square().mean()
                    if not poisoned:
                        self.accelerator.backward(loss)
                    if self.steps and (not self.by_hand or number % self.accumulate == 0 or session.epoch_ends):
                        self.update()
                if poisoned:
                    loss = loss * float("nan")
                if self.says and session.step_done(loss):
                    if session.step % 4 == 0:
                        session.evaluated({"eval_loss": float(loss.detach())})
                    if session.step == until:
                        raise KilledError
        return session

    def update(self) -> None:
        for one in (*self.opts, *self.schedulers):
            one.step()
        for one in self.opts:
            one.zero_grad()
        if self.counted is not None:
            self.counted.mean, self.counted.seen = self.counted.mean.lerp(self.seen[-1].mean(0), 0.1), len(self.seen)

    @property
    def given(self) -> int:
        """Batches that this life was given."""
        return len(self.seen)

    def result(self) -> dict[str, torch.Tensor]:
        """All that training has made, the random state included."""
        moments = {
            f"{number}.{index}.{key}": torch.as_tensor(value)
            for number, one in enumerate(self.opts)
            for index, state in one.state_dict()["state"].items()
            for key, value in state.items()
        }
        rates = torch.tensor([group["lr"] for one in self.opts for group in one.param_groups])
        rest = {"rates": rates, "mean": self.counted.mean, "random": torch.rand(2)}
        draws = {"python": torch.tensor(random.random()), "numpy": torch.tensor(np.random.rand())}
        return {**self.model.state_dict(), **moments, **rest, **draws}


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


LOOPS: dict[str, Loop] = {
    "the plain one": Loop(),
    "accumulation": Loop(accumulate=3),
    "accumulation by hand": Loop(accumulate=3, by_hand=True),
    "a collator that draws": Loop(noise=True, accumulate=2),
    "a stateful loader": Loop(config={"use_stateful_dataloader": True}, noise=True),
    "seeded epochs": Loop(config={"use_seedable_sampler": True}),
    "a stream": Loop(dataset=Stream, noise=True),
    "batches that rank 0 hands out": Loop(config={"dispatch_batches": True}, noise=True),
    "a generator of its own": Loop(seeded=True, noise=True),
    "an optimizer without moments": Loop(kinds=(torch.optim.SGD, torch.optim.SGD)),
    "one optimizer": Loop(optimizers=1, limits={"max_steps": 16}),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_of_many_lives_goes_on_as_if_there_had_been_one(board: Board, name: str) -> None:
    loop = LOOPS[name]
    loop.prepare()
    undisturbed, expected = loop.run(), loop.result()
    # Early, with the last batch of a pass fetched ahead, with none left of the pass.
    kills = [2, 6, 7] if undisturbed.step > 7 else [2, 3, 6]
    with granting(board):
        for attempt, step in enumerate(kills, 1):
            loop.prepare()
            with pytest.raises(KilledError):
                loop.run(until=step, at=seat_at(board, attempt))
            assert note_newest(board, attempt + 1) == step - 1
            board.control.forget(0)
        loop.prepare()
        ended = loop.run(at=seat_at(board, attempt=4))
        beat = board.control.beat(0)
    assert differing(loop.result(), expected) == []
    assert (ended.step, ended.log_history) == (undisturbed.step, undisturbed.log_history)
    assert (beat.phase, beat.trained, beat.resumed) == (Phase.TRAINED, Trained.ON_BOARD, kills[-1] - 1)
    assert note_newest(board, attempt=5) == undisturbed.step


def test_what_was_trained_to_its_end_is_not_trained_again_but_further_if_more_is_asked_for(board: Board) -> None:
    loop = Loop(limits={"max_steps": 10})
    loop.prepare()
    loop.run()
    longer = loop.result()
    with granting(board):
        for attempt, limit, expected in ((1, 8, 8), (2, 8, 8), (3, 10, 10)):
            loop.limits = {"max_steps": limit}
            loop.prepare()
            loop.run(at=seat_at(board, attempt))
            beat = board.control.beat(0)
            assert (beat.step, beat.phase, beat.trained) == (expected, Phase.TRAINED, Trained.ON_BOARD)
            assert loop.given == (0 if attempt == 2 else limit if attempt == 1 else 2)
            note_newest(board, attempt + 1)
            board.control.forget(0)
    assert differing(loop.result(), longer) == []


def test_smaller_batches_are_taken_from_where_the_larger_ones_ended(board: Board) -> None:
    loop = Loop(optimizers=1, limits={"epochs": 2})
    loop.prepare()
    loop.run()
    whole = torch.cat(loop.seen)
    with granting(board):
        loop.prepare()
        with pytest.raises(KilledError):
            loop.run(until=4, at=seat_at(board))
        before = torch.cat(loop.seen[:-1])
        note_newest(board, attempt=2)
        loop.batch, loop.accumulate = 2, 2
        loop.prepare()
        ended = loop.run(at=seat_at(board, attempt=2))
    assert torch.equal(torch.cat([before, *loop.seen]), whole)
    assert ended.step == 12


def test_a_loader_that_passed_over_what_it_had_given_out_is_gone_on_with_all_the_same(board: Board) -> None:
    loop = Loop(optimizers=1, limits={"epochs": 2}, config={"use_stateful_dataloader": True})
    loop.prepare()
    loop.run()
    whole = torch.cat(loop.seen)
    seen = []
    with granting(board):
        for attempt, (batch, until) in enumerate([(4, 2), (2, 4), (2, None)], 1):
            loop.batch, loop.accumulate = batch, 4 // batch
            loop.prepare()
            if until is None:
                loop.run(at=seat_at(board, attempt=attempt))
                seen += loop.seen
                break
            with pytest.raises(KilledError):
                loop.run(until=until, at=seat_at(board, attempt=attempt))
            seen += loop.seen[: -4 // batch]  # the step under way is made again
            note_newest(board, attempt + 1)
            board.control.forget(0)
    assert torch.equal(torch.cat(seen), whole)


def test_a_step_of_other_samples_is_refused_with_the_numbers_when_the_ranks_are_others(board: Board) -> None:
    loop = Loop(accumulate=2, limits={"max_steps": 4})
    with granting(board):
        loop.prepare()
        with pytest.raises(KilledError):
            loop.run(until=3, at=seat_at(board))
        note_newest(board, attempt=2)
        path = board.directory / "resume-2" / "state.json"
        told = json.loads(path.read_text())
        told["data"]["world_size"] = 2  # as if another rank had taken as many
        path.write_text(json.dumps(told))
        note = path.with_name("resume.json")
        parts = json.loads(note.read_text())
        parts["parts"]["state.json"]["size"] = path.stat().st_size
        note.write_text(json.dumps(parts))
        loop.prepare()
        then, now = "a step was 2 batches of 4 samples on 2 ranks", "is now 2 batches of 4 samples on 1 ranks"
        with pytest.raises(JobError, match=f"{then}, and {now}; take both numbers from"):
            loop.run(at=seat_at(board, attempt=2))


def test_a_step_whose_data_is_passed_over_moves_all_but_the_weights(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(accumulate=2, limits={"max_steps": 8})
    with granting(board):
        loop.prepare()
        with pytest.raises(KilledError):
            loop.run(until=4, at=seat_at(board))
        note_newest(board, attempt=2)
        monkeypatch.setenv(ADAPTED, json.dumps({"skip": [[4, 5]]}))
        loop.prepare()
        at = seat_at(board, attempt=2)
        ended = loop.run(at=at)
    assert (ended.step, loop.given) == (8, 6)
    assert loop.schedulers[0].get_last_lr() == pytest.approx([0.05 * 0.9**8])


def test_a_loss_that_is_no_number_is_published_and_marked(board: Board) -> None:
    loop = Loop(limits={"max_steps": 6}, poisoned=3)
    with granting(board):
        loop.prepare()
        loop.run(at=seat_at(board))
        beat = board.control.beat(0)
    assert beat.diverged_at == 3
    assert note_newest(board, attempt=2) == 6


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda loop: loop.opts.pop(), "the state of 2 optimizers, Session was given 1"),
        (lambda loop: loop.schedulers.pop(), "the state of 2 schedulers, Session was given 1"),
        (lambda loop: loop.opts.reverse(), "the state of optimizer 0 is of other parameters"),
        (lambda loop: setattr(loop, "counted", None), "holds the state of 'counted', which nothing was registered for"),
        (
            lambda loop: setattr(loop, "data", accelerated(loop, 5)),
            "3 batches of 4 samples were given out",
        ),
    ],
)
def test_a_program_that_is_another_one_is_told_so(board: Board, change: Callable[[Loop], Any], problem: str) -> None:
    loop = Loop()
    with granting(board):
        loop.prepare()
        with pytest.raises(KilledError):
            loop.run(until=4, at=seat_at(board))
        note_newest(board, attempt=2)
        loop.prepare()
        change(loop)
        with pytest.raises(JobError, match=problem):
            loop.run(at=seat_at(board, attempt=2))


def accelerated(loop: Loop, size: int) -> Any:
    return loop.accelerator.prepare(DataLoader(TensorDataset(torch.zeros(22, 3)), size))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"data": DataLoader(TensorDataset(torch.zeros(4, 3)))},
            "the data loader given to Session is a plain DataLoader",
        ),
        (
            {"opts": [torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])]},
            "optimizer 0 given to Session is a plain SGD",
        ),
        ({"opts": []}, "given no optimizer"),
        ({"says": False}, "session.step_done was not called"),
        ({"steps": False}, "without a step of an optimizer"),
        ({"counted": 3}, "'counted' has no state_dict"),
    ],
)
def test_a_loop_that_cannot_be_gone_on_with_is_told_why(change: dict[str, Any], problem: str) -> None:
    loop = Loop()
    loop.prepare()
    for name, value in change.items():
        setattr(loop, name, value)
    with pytest.raises(JobError, match=problem):
        loop.run()
