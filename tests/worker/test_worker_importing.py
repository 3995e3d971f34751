"""A stock checkpoint in our form holds what the stock one held, and no code of it is ever run."""

from __future__ import annotations

import json
from pathlib import Path
from pprint import pformat
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from supervisor.errors import JobError
from supervisor.worker import randomness
from supervisor.worker.importing import bring
from supervisor.worker.resume import Range, Resume


def optimizer() -> tuple[torch.optim.Optimizer, Any]:
    """One that has made a step."""
    parameter = torch.nn.Parameter(torch.ones(3))
    made = torch.optim.AdamW([parameter], lr=0.1)
    parameter.sum().backward()
    made.step()
    return made, torch.optim.lr_scheduler.StepLR(made, 2)


def stock(directory: Path, ranks: int = 2, **files: Any) -> Path:
    directory.mkdir()
    one, schedule = optimizer()
    held = {"optimizer.pt": one.state_dict(), "scheduler.pt": schedule.state_dict()}
    for rank in range(ranks):
        torch.manual_seed(rank)
        name = "rng_state.pth" if ranks == 1 else f"rng_state_{rank}.pth"
        held[name] = {**randomness.stock(randomness.capture()), "cuda": [torch.tensor([i]) for i in range(ranks)]}
    for name, value in {**held, **{name.replace("__", "."): value for name, value in files.items()}}.items():
        torch.save(value, directory / name)
    save_file({"a": torch.arange(4.0)}, directory / "adapter_model.safetensors")
    (directory / "adapter_config.json").write_text('{"base_model_name_or_path": "b"}')
    (directory / "trainer_state.json").write_text('{"global_step": 7, "epoch": 0.5, "train_batch_size": 2}')
    return directory


def brought(source: Path, target: Path, world_size: int, ranks: tuple[int, ...] = (0, 1), **more: Any) -> list[str]:
    target.mkdir()
    request = {
        "step": 7,
        "weights": "adapter_model.safetensors",
        "optimizer": "optimizer.pt",
        "ranks": ranks,
        "world_size": world_size,
        "trained": False,
        **more,
    }
    return bring(source, target, request)


def written(directory: Path, target: Path, world_size: int) -> None:
    """The stock form of what was taken in."""
    parts = {path.name: Range(path, 0, path.stat().st_size) for path in directory.iterdir()}
    resume = Resume(target, "checkpoint", 7, parts)
    target.mkdir()
    resume.write_shared(target)
    for rank in range(world_size):
        resume.write_rank(target, rank, world_size, devices=world_size)


def test_there_and_back_is_the_same(tmp_path: Path) -> None:
    source = stock(tmp_path / "stock")
    assert brought(source, tmp_path / "ours", 2) == []
    written(tmp_path / "ours", tmp_path / "again", 2)
    for name in ("optimizer.pt", "scheduler.pt"):
        before, after = (torch.load(place / name, weights_only=True) for place in (source, tmp_path / "again"))
        assert pformat(before) == pformat(after)  # the order of keys may differ
    for rank in (0, 1):
        before, after = (
            torch.load(place / f"rng_state_{rank}.pth", weights_only=False) for place in (source, tmp_path / "again")
        )
        assert before["python"] == after["python"]
        assert torch.equal(before["cpu"], after["cpu"])
        assert torch.equal(after["cuda"][rank], torch.tensor([rank]))  # each rank has its own GPU's
    state = json.loads((tmp_path / "ours" / "state.json").read_text())
    assert (state["base"]["name"], state["data"]["epoch"], state["imported"]) == ("b", 0.5, True)


def test_ranks_that_were_not_there_get_the_lowest_one_s_random_state(tmp_path: Path) -> None:
    remarks = brought(stock(tmp_path / "stock", ranks=1), tmp_path / "ours", 3, ranks=(0,))
    assert "made with 1 processes and 3 are launched" in remarks[0]
    state = json.loads((tmp_path / "ours" / "state.json").read_text())
    assert state["stood_in"] == {"1": 0, "2": 0}
    assert state["ranks"]["2"] == state["ranks"]["0"]


def test_an_old_pickle_of_weights_becomes_safetensors(tmp_path: Path) -> None:
    source = stock(tmp_path / "stock", adapter_model__bin={"w": torch.arange(3.0), "h": torch.ones(2).half()})
    brought(source, tmp_path / "ours", 2, weights="adapter_model.bin")
    made = load_file(tmp_path / "ours" / "adapter_model.safetensors")
    assert made["w"].tolist() == [0.0, 1.0, 2.0]
    assert made["h"].dtype == torch.float16


class Callable:
    """Pickled, it is a call."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_what_may_be_code_is_refused_and_not_run(tmp_path: Path) -> None:
    source = stock(tmp_path / "stock", optimizer__pt={"state": Callable(tmp_path / "ran"), "param_groups": []})
    with pytest.raises(JobError, match=r"optimizer\.pt holds more than tensors and numbers: .*GLOBAL"):
        brought(source, tmp_path / "ours", 2)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("optimizer__pt", {"a": 1}, "is no optimizer's state"),
        ("optimizer__pt", [1], "is no optimizer's state"),
        ("rng_state_1__pth", {"python": 3}, "is no random state"),
        ("rng_state_1__pth", {"python": (3, (1, 2), None), "numpy": (1, 2, 3, 4, 5), "cpu": 1}, "is no random state"),
        ("scheduler__pt", {"a": torch.zeros(100_000)}, "so large a one"),
    ],
)
def test_what_is_something_else_is_named(tmp_path: Path, name: str, value: Any, said: str) -> None:
    with pytest.raises(JobError, match=said):
        brought(stock(tmp_path / "stock", **{name: value}), tmp_path / "ours", 2)
