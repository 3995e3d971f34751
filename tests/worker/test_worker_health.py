"""What a step shows, and a step that is passed over: nothing of the state moves but the step and its learning rate."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState, PartialState
from transformers import Trainer, TrainerCallback, TrainingArguments
from worker_samples import tiny_lora

from supervisor.board.environment import ADAPTED, ON_NAN
from supervisor.worker.health import Health, Measured


class Attached(TrainerCallback):  # type: ignore[misc]
    """Does what the callback does, without a board, and keeps what it saw."""

    def __init__(self) -> None:
        self.health, self.trainer = Health(), None
        self.seen: list[Measured] = []
        self.states: list[dict[str, Any]] = []

    def on_train_begin(self, args, state, control, **kwargs) -> None:  # type: ignore[no-untyped-def]
        self.health.attach(self.trainer, kwargs["optimizer"], rank=0)

    def on_step_end(self, args, state, control, model=None, optimizer=None, lr_scheduler=None, **kwargs) -> None:  # type: ignore[no-untyped-def]
        self.seen.append(self.health.settle(state.global_step))
        weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        self.states.append({"weights": weights, "optimizer": moments(optimizer), "rate": lr_scheduler.get_last_lr()[0]})

    def on_train_end(self, args, state, control, **kwargs) -> None:  # type: ignore[no-untyped-def]
        self.health.detach()


def moments(optimizer: Any) -> list[torch.Tensor]:
    state = optimizer.state_dict()["state"]
    return [value.clone() for key in sorted(state) for value in state[key].values() if isinstance(value, torch.Tensor)]


class Counting(Trainer):  # type: ignore[misc]
    """Notes the loss of each micro-batch, and spoils those of one step."""

    spoiled = -1

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        self.losses.setdefault(self.state.global_step + 1, []).append(loss.item())
        return loss * float("nan") if self.state.global_step + 1 == self.spoiled else loss


def train(out: Path, *, spoiled: int = -1, **options: Any) -> tuple[Counting, Attached]:
    data = [{"input_ids": torch.arange(4) + i, "labels": torch.arange(4) + i} for i in range(16)]
    given = {"optim": "adamw_torch", "weight_decay": 0.1, "lr_scheduler_type": "cosine", **options}
    arguments = TrainingArguments(
        str(out),
        max_steps=4,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        **given,
    )
    attached = Attached()
    trainer = Counting(tiny_lora(), arguments, train_dataset=data, callbacks=[attached])
    trainer.losses, trainer.spoiled, attached.trainer = {}, spoiled, trainer
    trainer.train()
    return trainer, attached


def test_each_step_tells_its_own_loss_and_gradient_norm(tmp_path: Path) -> None:
    trainer, attached = train(tmp_path)
    for step, measured in enumerate(attached.seen, 1):
        assert measured.loss == pytest.approx(sum(trainer.losses[step]), rel=1e-5)
        assert measured.grad_norm is not None
        assert 0 < measured.grad_norm < 100
    assert not any(measured.bad for measured in attached.seen)


def test_what_is_no_number_is_seen_although_the_log_hides_it(tmp_path: Path) -> None:
    trainer, attached = train(tmp_path, spoiled=3, logging_steps=1)
    rows = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert all(math.isfinite(loss) for loss in rows)
    assert [measured.bad for measured in attached.seen] == [False, False, True, True]
    assert attached.seen[2] == Measured(math.inf, math.inf, bad=True, first=3)
    assert attached.seen[2].told() == {"loss": None, "grad_norm": None, "diverged": True}


def test_the_norm_is_known_without_clipping_too(tmp_path: Path) -> None:
    _, attached = train(tmp_path, max_grad_norm=0.0)
    assert all(measured.grad_norm for measured in attached.seen)


@pytest.mark.parametrize("optim", ["adamw_torch", "sgd", "adafactor"])
def test_a_step_that_is_passed_over_changes_nothing_but_the_learning_rate(
    tmp_path: Path, optim: str, passing_over: None
) -> None:
    trainer, attached = train(tmp_path, optim=optim)
    before, after = attached.states[1], attached.states[2]
    assert all(torch.equal(before["weights"][name], after["weights"][name]) for name in before["weights"])
    assert len(before["optimizer"]) == len(after["optimizer"])
    assert all(map(torch.equal, before["optimizer"], after["optimizer"]))
    assert after["rate"] < before["rate"]
    assert sorted(trainer.losses) == [1, 2, 4]  # its data was taken and not looked at
    assert trainer.state.global_step == 4
    later = attached.states[3]["weights"]
    assert any(not torch.equal(later[name], after["weights"][name]) for name in later)


@pytest.fixture
def passing_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADAPTED, json.dumps({"skip": [[3, 3]]}))


def test_a_trainer_is_left_as_it_was(tmp_path: Path, passing_over: None) -> None:
    trainer, _ = train(tmp_path)
    assert "training_step" not in vars(trainer)
    assert "clip_grad_norm_" not in vars(trainer.accelerator)


class Scaled:
    """One parameter under a gradient scaler, stepped as the Trainer steps."""

    def __init__(self, scale: float = 2.0**16) -> None:
        PartialState(cpu=True)
        AcceleratorState(cpu=True)
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        self.optimizer = AcceleratedOptimizer(torch.optim.AdamW([self.weight], lr=0.1), scaler=self.scaler)
        self.trainer = SimpleNamespace(
            accelerator=SimpleNamespace(scaler=self.scaler, clip_grad_norm_=self.clip),
            args=SimpleNamespace(device=torch.device("cpu")),
            state=SimpleNamespace(global_step=0),
            training_step=self.forward_and_backward,
        )
        self.factor = 1.0
        self.health = Health()
        self.health.attach(self.trainer, self.optimizer, rank=0)

    def forward_and_backward(self, factor: float) -> torch.Tensor:
        loss = (self.weight * factor).sum()
        self.scaler.scale(loss).backward()
        return loss.detach()

    def clip(self, parameters: Any, most: float) -> torch.Tensor:
        self.scaler.unscale_(self.optimizer.optimizer)
        return torch.nn.utils.clip_grad_norm_(parameters, most)

    def step(self, factor: float = 1.0, *, overflow: bool = False) -> Measured:
        self.trainer.training_step(factor)
        if overflow and self.weight.grad is not None:
            self.weight.grad.fill_(math.inf)
        self.trainer.accelerator.clip_grad_norm_([self.weight], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.trainer.state.global_step += 1
        return self.health.settle(self.trainer.state.global_step)


def test_an_overflow_while_a_scaler_looks_for_its_scale_is_ordinary() -> None:
    made = Scaled()
    measured = made.step(overflow=True)
    assert (measured.bad, measured.grad_norm) == (False, None)
    assert made.scaler.get_scale() == 2.0**15
    assert made.step().grad_norm == pytest.approx(math.sqrt(3))


def test_a_scale_that_has_fallen_away_or_a_loss_that_is_no_number_is_not() -> None:
    made = Scaled(scale=1.0)
    assert made.step(overflow=True).bad  # half of it is left, and it was small already
    assert Scaled().step(math.nan).bad


def test_a_scaler_does_not_notice_a_step_that_is_passed_over(passing_over: None) -> None:
    made = Scaled()
    made.step()
    made.step()
    before, scale = made.weight.detach().clone(), made.scaler.state_dict()
    made.step(math.nan)  # never looked at
    assert torch.equal(made.weight, before)
    assert made.scaler.state_dict() == scale
    made.step()
    assert not torch.equal(made.weight, before)


@pytest.mark.parametrize(("word", "ends"), [("rollback", True), ("stop", True), ("ignore", False)])
def test_the_job_says_whether_an_attempt_is_to_end(word: str, ends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ON_NAN, word)
    measured = Scaled().step(math.nan)
    assert (measured.bad, measured.ends) == (True, ends)
