"""Older Trainers load the optimizer onto a device called cpu:0, which torch itself does not know."""

from pathlib import Path

import torch

from supervisor.worker.resume import _accept_indexed_cpu


def test_a_state_loads_onto_an_indexed_cpu_however_often_it_was_allowed(tmp_path: Path) -> None:
    saved = {"exp_avg": torch.arange(3.0)}
    torch.save(saved, tmp_path / "optimizer.pt")
    _accept_indexed_cpu()
    _accept_indexed_cpu()
    loaded = torch.load(tmp_path / "optimizer.pt", map_location=torch.device("cpu:0"), weights_only=True)
    assert torch.equal(loaded["exp_avg"], saved["exp_avg"])
