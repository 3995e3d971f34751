"""Every wording of an exhausted GPU gives the same numbers, and a neighbour is told from the program itself."""

from __future__ import annotations

import pytest

from supervisor.policy.oom import OutOfMemory, read_oom

MIB, GIB = 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("message", "told"),
    [
        # 1.0 to 1.9
        (
            "CUDA out of memory. Tried to allocate 4.00 GiB (GPU 0; 10.00 GiB total capacity; 4.50 GiB already "
            "allocated; 1.75 GiB free; 3.75 GiB cached)",
            OutOfMemory(4 * GIB, 10 * GIB, int(1.75 * GIB), int(3.75 * GIB)),
        ),
        # 1.10 to 2.0
        (
            "CUDA out of memory. Tried to allocate 1024.00 MiB (GPU 0; 40.00 GiB total capacity; 37.00 GiB "
            "already allocated; 256.00 MiB free; 37.50 GiB reserved in total by PyTorch) If reserved memory is "
            ">> allocated",
            OutOfMemory(GIB, 40 * GIB, 256 * MIB, int(37.5 * GIB)),
        ),
        # 2.1, with its slip of the pen; in a container, where the second is the program itself
        (
            "CUDA out of memory. Tried to allocate 564.00 MiB. GPU 1 has a total capacty of 22.00 GiB of which "
            "203.00 MiB is free. Process 70 has 9.00 GiB memory in use. Process 71 has 8.00 GiB memory in use. "
            "Of the allocated memory 2.00 GiB is allocated by PyTorch, and 1.00 GiB is reserved by PyTorch but "
            "unallocated.",
            OutOfMemory(564 * MIB, 22 * GIB, 203 * MIB, 8 * GIB, ((70, 9 * GIB),)),
        ),
        # ROCm, and one whose share is not told
        (
            "HIP out of memory. Tried to allocate 124.00 MiB. GPU 0 has a total capacity of 20.00 GiB of which "
            "554.00 MiB is free.",
            OutOfMemory(124 * MIB, 20 * GIB, 554 * MIB),
        ),
        (
            "XPU out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 16.00 GiB. Of the "
            "allocated memory 8.00 GiB is allocated by PyTorch, and 512.00 MiB is reserved by PyTorch but "
            "unallocated.",
            OutOfMemory(int(1.5 * GIB), 16 * GIB, None, int(8.5 * GIB)),
        ),
        (
            "MPS backend out of memory (MPS allocated: 5.50 GB, other allocations: 14.50 GB, max allowed: 20.00 "
            "GB). Tried to allocate 128.00 MB on private pool.",
            OutOfMemory(128 * MIB, 20 * GIB, None, int(5.5 * GIB)),
        ),
        (
            "Allocation on device 0 would exceed allowed memory. (out of memory)\nCurrently allocated     : 9.00 "
            "GiB\nRequested               : 2.00 GiB\nDevice limit            : 10.00 GiB\nFree (according to "
            "CUDA): 1.00 GiB",
            OutOfMemory(2 * GIB, 10 * GIB, GIB, 9 * GIB),
        ),
        ("CUDA error: out of memory", None),
        ("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", None),
    ],
)
def test_every_wording_is_read(message: str, told: OutOfMemory | None) -> None:
    assert read_oom(message) == told


@pytest.mark.parametrize(
    ("told", "neighbour"),
    [
        (OutOfMemory(GIB, 80 * GIB, GIB, 10 * GIB), True),  # what is neither free nor ours is others'
        (OutOfMemory(GIB, 80 * GIB, GIB, 70 * GIB), False),
        (OutOfMemory(GIB, 80 * GIB, GIB, 3 * GIB, ((7, 2 * GIB),)), False),  # what is listed counts
        (OutOfMemory(GIB, 80 * GIB, GIB, 3 * GIB, ((7, 4 * GIB),)), True),
        (OutOfMemory(GIB, 80 * GIB, None, 3 * GIB), False),  # unknown is not a neighbour
        (OutOfMemory(GIB, 80 * GIB, GIB, None), False),
    ],
)
def test_others_are_to_blame_if_they_hold_more_than_we(told: OutOfMemory, neighbour: bool) -> None:
    assert told.neighbour is neighbour


@pytest.mark.parametrize("text", ["", "1.2.3 GiB free", "Tried to allocate GiB", "process 7 has memory in use" * 999])
def test_what_has_no_number_is_no_trouble(text: str) -> None:
    assert read_oom(text) is None or read_oom(text) == OutOfMemory(free_bytes=0)
