"""What is captured is what training changes, under peft's names, and goes back bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from worker_samples import tiny_base, tiny_lora

from supervisor.checkpoint.contents import ADAPTER, EXTRA, MODEL
from supervisor.worker.capture import ModelCapture, Tensors, flat, join_optimizer, names_of, split_optimizer

Files = dict[str, Tensors]


def copied(files: Mapping[str, Tensors]) -> Files:
    return {file: {name: t.detach().clone() for name, t in tensors.items()} for file, tensors in files.items()}


def shaken(model: torch.nn.Module) -> None:
    """Other values in everything that training may change."""
    with torch.no_grad():
        for number, tensor in enumerate([*model.parameters(), *model.buffers()]):
            if tensor.is_floating_point():
                tensor.add_(0.1 * (number + 1))


def equal(one: Mapping[str, Tensors], other: Mapping[str, Tensors]) -> bool:
    return [*one] == [*other] and all(
        [*one[f]] == [*other[f]] and all(torch.equal(one[f][n], other[f][n]) for n in one[f]) for f in one
    )


ADAPTERS: dict[str, Callable[[], Any]] = {
    "lora": tiny_lora,
    "all linear layers": lambda: tiny_lora(target_modules="all-linear"),
    "dora": lambda: tiny_lora(use_dora=True),
    "trained bias": lambda: tiny_lora(bias="lora_only"),
    "a whole module saved": lambda: tiny_lora(modules_to_save=["lm_head"]),
    "new tokens": lambda: tiny_lora(trainable_token_indices=[1, 2]),
    "another name": lambda: named_adapter("mine"),
}


def named_adapter(name: str) -> Any:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(tiny_base(), LoraConfig(r=2, target_modules=["q_proj"]), adapter_name=name)


def vera() -> Any:
    from peft import VeraConfig, get_peft_model

    return get_peft_model(tiny_base(), VeraConfig(r=4, target_modules=["q_proj", "v_proj"]))


ADAPTERS["vera, which saves buffers"] = vera


@pytest.fixture(params=ADAPTERS.values(), ids=ADAPTERS.keys())
def adapted(request: pytest.FixtureRequest) -> Any:
    return request.param()


def saved_by_peft(model: Any, directory: Path) -> tuple[Tensors, dict[str, Any]]:
    """Its own file and configuration; a named adapter is put into a folder of its own."""
    model.save_pretrained(directory, save_embedding_layers=False)
    (found,) = directory.rglob("adapter_model.safetensors")
    return load_file(found), json.loads((found.parent / "adapter_config.json").read_text())


def as_told(config: dict[str, Any]) -> dict[str, Any]:
    """Sets have no order in a file."""
    return {key: sorted(value) if isinstance(value, list) else value for key, value in config.items()}


def test_an_adapter_is_captured_as_peft_itself_would_save_it(adapted: Any, tmp_path: Path) -> None:
    capture = ModelCapture(adapted)
    shaken(adapted)
    theirs, config = saved_by_peft(adapted, tmp_path)
    ours = capture.files()[ADAPTER]
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert as_told(json.loads(json.dumps(capture.adapter_config))) == as_told(config)


def test_peft_loads_what_was_captured(adapted: Any, tmp_path: Path) -> None:
    from peft import PeftModel
    from safetensors.torch import save_file

    capture = ModelCapture(adapted)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.25)
    save_file(copied(capture.files())[ADAPTER], tmp_path / ADAPTER, {"format": "pt"})
    (tmp_path / "adapter_config.json").write_text(json.dumps(capture.adapter_config))
    loaded = PeftModel.from_pretrained(tiny_base(), str(tmp_path))
    ids = torch.arange(8).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(ids).logits, adapted.eval()(ids).logits)


def test_what_was_captured_goes_back_bit_for_bit(adapted: Any) -> None:
    capture = ModelCapture(adapted)
    shaken(adapted)
    before = copied(capture.files())
    shaken(adapted)
    assert not equal(capture.files(), before)
    capture.restore(before)
    assert equal(capture.files(), before)


def test_what_is_captured_is_alive() -> None:
    model = tiny_lora()
    files = ModelCapture(model).files()
    shaken(model)
    assert equal(files, ModelCapture(model).files())


def with_extras() -> Any:
    """A norm that the user unfroze by hand, and buffers of which one changes while training."""
    model = tiny_lora()
    model.base_model.model.model.norm.weight.requires_grad_(True)
    model.register_buffer("seen", torch.zeros(3))
    model.register_buffer("fixed", torch.ones(3))
    return model


def test_an_unfrozen_norm_and_a_changed_buffer_are_captured_beside_the_adapter() -> None:
    model = with_extras()
    capture = ModelCapture(model)
    norm = "base_model.model.model.norm.weight"
    assert [*capture.files()[EXTRA]] == [norm]
    model.seen.add_(1)
    assert [*capture.files()[EXTRA]] == [norm, "buffer:seen"]
    model.seen = torch.full((3,), 2.0)  # replaced rather than changed
    assert capture.files()[EXTRA]["buffer:seen"].tolist() == [2.0] * 3
    before = copied(capture.files())
    shaken(model)
    capture.restore(before)
    assert model.seen.tolist() == [2.0] * 3
    after = capture.files()
    assert torch.equal(after[EXTRA][norm], before[EXTRA][norm])


def test_a_restored_buffer_is_captured_again_in_the_next_life() -> None:
    first = with_extras()
    capture = ModelCapture(first)
    first.seen.add_(1)
    saved = copied(capture.files())
    second = ModelCapture(with_extras())
    second.restore(saved)
    assert names_of(second.files()) == names_of(saved)
    assert equal(second.files(), saved)


def test_a_frozen_base_is_left_out() -> None:
    model = tiny_lora()
    files = ModelCapture(model).files()
    assert [*files] == [ADAPTER]
    assert sum(t.numel() for t in flat(files)) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_of_a_model_without_adapter_everything_trainable_is_captured_once() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2))
    model[0].bias.requires_grad_(False)
    model[2].weight = model[0].weight  # tied
    capture = ModelCapture(model)
    assert capture.adapter_config is None
    assert [*capture.files()[MODEL]] == ["0.weight", "1.weight", "1.bias", "2.bias"]


def test_running_averages_of_norms_are_captured_though_nothing_marks_their_change() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.InstanceNorm1d(2, track_running_stats=True))
    capture = ModelCapture(model)
    model(torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 1.0], [0.0, 2.0]]]))
    kept = ("running_mean", "running_var", "num_batches_tracked")
    assert [*capture.files()[EXTRA]] == [f"buffer:{layer}.{name}" for layer in (0, 1) for name in kept]
    before = copied(capture.files())
    fresh = ModelCapture(
        torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.InstanceNorm1d(2, track_running_stats=True))
    )
    fresh.restore(before)
    assert equal(fresh.files(), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: f[ADAPTER].update(stranger=torch.zeros(2)),
            "holds stranger as torch.float32 (2,), the model has no",
        ),
        (lambda f: f.update({EXTRA: {"buffer:gone": torch.zeros(2)}}), "holds buffer:gone as torch.float32 (2,)"),
        (
            lambda f: replace_first(f, lambda t: t.reshape(-1)),
            "as torch.float32 (32,), the model has torch.float32 (2,",
        ),
        (lambda f: replace_first(f, lambda t: t.bfloat16()), "as torch.bfloat16 (2, 16), the model has torch.float32"),
    ],
)
def test_what_does_not_fit_is_named_with_both_shapes(change: Callable[[Files], None], message: str) -> None:
    capture = ModelCapture(tiny_lora())
    saved = copied(capture.files())
    change(saved)
    with pytest.raises(ValueError) as refused:
        capture.restore(saved)
    assert message in str(refused.value)


def replace_first(files: Files, by: Callable[[torch.Tensor], torch.Tensor]) -> None:
    name = next(iter(files[ADAPTER]))
    files[ADAPTER][name] = by(files[ADAPTER][name])


class ScheduleFree(torch.optim.Optimizer):
    """As schedule-free optimizers keep their state: numbers in the groups, floats and flags beside tensors."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1, "k": 0, "weight_sum": 0.0, "lr_max": -1.0, "train_mode": True})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["k"] += 1
            group["lr_max"] = max(group["lr"], group["lr_max"])
            group["weight_sum"] += group["lr_max"] ** 2
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state.update(z=p.clone(), norm=0.0, betas=(0.9, None), history=[], seen=False, k=0)
                state["norm"] = 0.5 * state["norm"] + float(p.grad.norm())
                state["history"] = [*state["history"][-1:], p.grad.clone()]
                state["seen"], state["k"] = True, state["k"] + 1
                state["z"].sub_(p.grad, alpha=group["lr"] / (1.0 + state["norm"]))
                p.lerp_(state["z"], group["lr_max"] ** 2 / group["weight_sum"])


def adafactor(params: Any) -> torch.optim.Optimizer:
    from transformers import Adafactor

    made: torch.optim.Optimizer = Adafactor(params, scale_parameter=True, relative_step=True, lr=None)
    return made


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.05, amsgrad=True),
    "AdamW, learning rate a tensor": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.05)),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05),
    "SGD with momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "Adafactor of transformers": adafactor,
    "Adafactor of torch": lambda p: torch.optim.Adafactor(p, lr=0.05),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3, history_size=3),
    "Rprop": torch.optim.Rprop,
    "ASGD": torch.optim.ASGD,
    "schedule-free": ScheduleFree,
}


class Problem:
    """A small regression; two groups where the optimizer allows it, one parameter never used."""

    def __init__(self, make: Callable[[Any], torch.optim.Optimizer], dtype: torch.dtype) -> None:
        torch.manual_seed(3)
        self.model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).to(dtype)
        self.unused = torch.nn.Parameter(torch.ones(2, dtype=dtype))
        self.optimizer = make([*self.model.parameters()])
        if not isinstance(self.optimizer, torch.optim.LBFGS):
            self.optimizer.add_param_group({"params": [self.unused], "lr": self.optimizer.param_groups[0]["lr"]})
        self.inputs = torch.linspace(-1, 1, 12, dtype=dtype).reshape(4, 3)

    def loss(self) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = (self.model(self.inputs) - 0.5).square().mean()
        loss.backward()
        return loss

    def train(self, steps: int) -> list[torch.Tensor]:
        for _ in range(steps):
            self.loss()
            if isinstance(self.optimizer, torch.optim.LBFGS):
                self.optimizer.step(self.loss)  # evaluates the loss again within its step
            else:
                self.optimizer.step()
        return [p.detach().clone() for p in self.model.parameters()]


def through_files(state: Mapping[str, Any]) -> dict[str, Any]:
    tensors, told = split_optimizer(state)
    assert all(isinstance(t, torch.Tensor) for t in tensors.values())
    return join_optimizer({n: t.clone() for n, t in tensors.items()}, json.loads(json.dumps(told, allow_nan=False)))


def same_state(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and [*one] == [*other] and all(same_state(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=True)
        return type(one) is type(other) and len(one) == len(other) and all(same_state(a, b) for a, b in pairs)
    return type(one) is type(other) and bool(one == other)


@pytest.fixture(params=OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def make(request: pytest.FixtureRequest) -> Callable[[Any], torch.optim.Optimizer]:
    chosen: Callable[[Any], torch.optim.Optimizer] = request.param
    return chosen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_optimizer_that_was_taken_apart_makes_the_same_next_steps(
    make: Callable[[Any], torch.optim.Optimizer], dtype: torch.dtype
) -> None:
    first = Problem(make, dtype)
    before = first.train(4)
    state = through_files(first.optimizer.state_dict())
    assert same_state(state, sorted_state(first.optimizer.state_dict()))
    second = Problem(make, dtype)
    second.optimizer.load_state_dict(state)
    with torch.no_grad():
        for parameter, value in zip(second.model.parameters(), before, strict=True):
            parameter.copy_(value)
    assert all(map(torch.equal, first.train(3), second.train(3)))


def sorted_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Entries in the order in which they are joined: tensors first, parameters by number."""
    ordered = {
        index: dict(sorted(entries.items(), key=lambda item: not isinstance(item[1], torch.Tensor)))
        for index, entries in sorted(state["state"].items())
    }
    return {**state, "state": ordered}


def test_an_optimizer_that_has_made_no_step_comes_back_empty(make: Callable[[Any], torch.optim.Optimizer]) -> None:
    fresh = Problem(make, torch.float32).optimizer.state_dict()
    assert same_state(through_files(fresh), sorted_state(fresh))


def test_states_are_told_apart_by_name_and_place() -> None:
    t = (torch.tensor(float(n)) for n in count())
    state = {
        "state": {
            10: {"exp_avg": next(t), "nested": {"a.b": [next(t), 3], 4: (next(t), None)}},
            2: {"exp_avg": next(t), "exp_avg.more": next(t), "flag": True},
        },
        "param_groups": [{"lr": 0.1, "params": [10, 2], "named": {"x": next(t)}}],
        "scaler": {"scale": next(t), "growth": 2},
    }
    tensors, _ = split_optimizer(state)
    assert len(tensors) == 7
    assert same_state(through_files(state), sorted_state(state))


def test_a_state_that_needs_a_pickle_is_refused_by_its_place() -> None:
    state: dict[str, Any] = {"state": {0: {"rule": {"f": {1}}}}, "param_groups": []}
    with pytest.raises(TypeError, match=r"state\.0\.rule\.f is a set"):
        split_optimizer(state)


def test_the_order_of_names_is_the_order_of_tensors() -> None:
    files = {"a": {"x": torch.zeros(1), "y": torch.zeros(2)}, "b": {"z": torch.zeros(3)}}
    tensors: Iterator[torch.Tensor] = iter(flat(files))
    assert dict(zip(names_of(files), (t.numel() for t in tensors), strict=True)) == {"x": 1, "y": 2, "z": 3}
