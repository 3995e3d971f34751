"""What is copied is the same bit for bit, whatever its size, type and layout."""

from __future__ import annotations

import pytest
import torch

from supervisor.worker.copying import PIECE_BYTES, SMALL_ELEMENTS, Copier

SOURCES = {
    "empty": torch.empty(0),
    "a number": torch.tensor(3.5),
    "as large as torch copies on one thread": torch.randn(SMALL_ELEMENTS),
    "one more": torch.randn(SMALL_ELEMENTS + 1),
    "several pieces and a bit": torch.randn(3 * PIECE_BYTES // 4 + 7),
    "half precision": torch.randn(SMALL_ELEMENTS * 2).to(torch.bfloat16),
    "a parameter": torch.nn.Parameter(torch.randn(SMALL_ELEMENTS * 2)),
    "transposed": torch.randn(300, 200).T,
    "every other": torch.randn(SMALL_ELEMENTS * 4)[::2],
}


@pytest.mark.parametrize("name", SOURCES)
def test_one_tensor_arrives(name: str) -> None:
    source = SOURCES[name]
    target = torch.zeros(source.shape, dtype=source.dtype)
    Copier().copy([target], [source])
    assert torch.equal(target, source)


def test_many_tensors_arrive_whole_every_time() -> None:
    copier, sources = Copier(), list(SOURCES.values()) * 5
    for _ in range(20):
        targets = [torch.zeros(s.shape, dtype=s.dtype) for s in sources]
        copier.copy(targets, sources)
        assert all(torch.equal(t, s) for t, s in zip(targets, sources, strict=True))


def test_nothing_to_copy_is_no_error() -> None:
    Copier().copy([], [])
