"""Pieces of tensors, as one process of one rank cuts and joins them; with several ranks, see tests/faults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor, init_device_mesh

from supervisor.checkpoint.contents import OPTIMIZER
from supervisor.checkpoint.shards import WHOLE
from supervisor.errors import JobError
from supervisor.worker import sharded
from supervisor.worker.capture import split_optimizer
from supervisor.worker.resume import Range, Resume
from supervisor.worker.snapshots import image_of


@pytest.fixture(scope="module", autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of one."""
    met = tmp_path_factory.mktemp("met") / "store"
    torch.distributed.init_process_group("gloo", store=torch.distributed.FileStore(str(met), 1), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def trained(
    optimizer: type[torch.optim.Optimizer] = torch.optim.AdamW,
) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    fully_shard(model)
    stepper = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(2, 4)).sum().backward()
    stepper.step()
    return model, stepper


def test_what_is_trained_has_to_be_sharded_as_a_whole() -> None:
    model, _ = trained()
    assert sharded.is_sharded(model)
    assert not sharded.is_sharded(torch.nn.Linear(2, 2))
    model.register_parameter("left_out", torch.nn.Parameter(torch.ones(1)))
    with pytest.raises(JobError, match="left_out is trained, but FSDP2 leaves it out"):
        sharded.is_sharded(model)


def test_another_placement_is_refused_by_name() -> None:
    mesh = init_device_mesh("cpu", (1,))
    model = torch.nn.Linear(2, 2, bias=False)
    model.weight = torch.nn.Parameter(distribute_tensor(torch.ones(2, 2), mesh, [Replicate()]))
    with pytest.raises(JobError, match=r"weight is placed as R.* over \(1,\) of 1 ranks"):
        sharded.is_sharded(model)


def test_an_optimizer_whose_state_has_a_shape_of_its_own_is_refused() -> None:
    model, adamw = trained()
    sharded.check_optimizer(adamw)
    first = next(model.parameters())
    adamw.state[first]["row"] = torch.ones(3)
    with pytest.raises(JobError, match=r"AdamW keeps row of \(3,\) for a sharded parameter of \(3, 4\)"):
        sharded.check_optimizer(adamw)


def written(
    place: Path, files: dict[str, dict[str, torch.Tensor]], wholes: dict[str, dict[str, torch.Tensor]]
) -> dict[str, Range]:
    """Files as a snapshot's slot holds them."""
    parts = {}
    for name, tensors in files.items():
        image = image_of(tensors, wholes.get(name))
        data = bytearray(image.size)
        data[: len(image.header)] = image.header
        for key, tensor in tensors.items():
            raw = tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            data[image.offsets[key] : image.offsets[key] + len(raw)] = raw
        (place / name).write_bytes(data)
        parts[name] = Range(place / name, 0, image.size)
    return parts


@pytest.mark.parametrize("named", [True, False])
def test_deepspeed_is_refused_by_its_stage(*, named: bool) -> None:
    plugin = SimpleNamespace(zero_stage=2)
    with pytest.raises(JobError, match=r"DeepSpeed ZeRO-2 is not supported"):
        sharded.refuse_foreign({"deepspeed_plugins": {"default": plugin} if named else plugin})


@pytest.mark.parametrize(("kind", "size"), [("tp", 2), ("cp", 4), ("dp_replicate", 2)])
def test_further_kinds_of_parallelism_are_refused_by_name(kind: str, size: int) -> None:
    with pytest.raises(JobError, match=rf"parallelism_config has {kind}_size {size}, which is not supported"):
        sharded.refuse_foreign({"parallelism_config": SimpleNamespace(**{f"{kind}_size": size})})


def test_an_optimizer_gets_its_pieces_back_from_pieces_and_from_what_is_whole(tmp_path: Path) -> None:
    _, adamw = trained()
    tensors, joined = split_optimizer(adamw.state_dict())
    pieces, wholes = sharded.divide({OPTIMIZER: tensors}, 0, leads=True)
    assert set(pieces) == {OPTIMIZER, "shard-0.optimizer.safetensors"}
    parts = written(tmp_path, pieces, wholes)
    (tmp_path / "state.json").write_text(json.dumps({"world_size": 1, "optimizer": joined}))
    parts["state.json"] = Range(tmp_path / "state.json", 0, (tmp_path / "state.json").stat().st_size)
    cut = Resume(tmp_path, "snapshot", 1, parts)
    assert cut.in_pieces()
    assert WHOLE in parts["shard-0.optimizer.safetensors"].image()[1]

    (tmp_path / "whole").mkdir()
    joined_parts = written(tmp_path / "whole", {OPTIMIZER: cut.tensors(OPTIMIZER)}, {})
    whole = Resume(tmp_path, "checkpoint", 1, {**joined_parts, "state.json": parts["state.json"]})
    assert not whole.in_pieces()

    for resume in (cut, whole):
        model, other = trained()
        for state in other.state.values():
            state["exp_avg"].zero_()
        sharded.restore_optimizer(other, resume, 0, sharded.some_shard(model))
        for mine, theirs in zip(other.state.values(), adamw.state.values(), strict=True):
            assert isinstance(mine["exp_avg"], DTensor)
            assert torch.equal(mine["exp_avg"].to_local(), theirs["exp_avg"].to_local())
            assert torch.equal(mine["step"], theirs["step"])
