"""Copying tensors from memory to memory, quickly also where the cores are busy.

torch copies a large tensor with all of OpenMP's threads, which meet at a barrier after each.
Where data loaders or other ranks want the cores too, the threads wait for one another: with
one busy process on two cores 1,344 tensors of 480 MB took 3 s. Here threads take one piece
after the other and nobody waits for who got no core: 26 ms on two idle cores, 43 ms on one,
80 ms on one that is shared. `torch.set_num_threads(1)` would avoid the barriers as well, but
it makes MKL choose its own threads differently from then on, which may show in the last bit
of a product.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

#: Up to so many elements torch copies on one thread; at::internal::GRAIN_SIZE.
SMALL_ELEMENTS = 32768
#: A thread takes so much at a time [bytes].
PIECE_BYTES = 4 << 20
#: More threads than this do not make memory faster.
MAX_THREADS = 4
#: Types whose data is where `data_ptr` says; subclasses may only look like their data.
PLAIN = frozenset({torch.Tensor, torch.nn.Parameter})

_Piece = tuple[int, int, int]  # where to, where from, how many bytes


class Copier:
    """As many threads as torch may use, and the one that calls is one of them."""

    def __init__(self) -> None:
        self._others = min(MAX_THREADS, torch.get_num_threads()) - 1
        self._pool = ThreadPoolExecutor(max(1, self._others), thread_name_prefix="copies")

    def copy(self, targets: Sequence[torch.Tensor], sources: Sequence[torch.Tensor]) -> None:
        """Copy each source into its target and return when all is there.

        Args:
            targets: contiguous, on the CPU, as large as their sources and of the same types.
            sources: anywhere.
        """
        pieces: list[_Piece] = []
        rest = []
        for target, source in zip(targets, sources, strict=True):
            if source.numel() > SMALL_ELEMENTS and type(source) in PLAIN and source.is_cpu and source.is_contiguous():
                to, of, size = target.data_ptr(), source.data_ptr(), target.nbytes
                pieces += [(to + at, of + at, min(PIECE_BYTES, size - at)) for at in range(0, size, PIECE_BYTES)]
            else:
                rest.append((target, source))
        todo = iter(pieces)  # `next` of a list's iterator is atomic under the interpreter's lock
        helpers = [self._pool.submit(_move, todo) for _ in range(min(self._others, len(pieces) - 1))]
        _move(todo)
        if rest:
            with torch.no_grad():
                torch._foreach_copy_([target for target, _ in rest], [source for _, source in rest])
        for helper in helpers:
            if not helper.cancel():  # one that got no core by now has nothing left to do
                helper.result()


def _move(pieces: Iterator[_Piece]) -> None:
    for to, of, size in pieces:
        ctypes.memmove(to, of, size)  # gives the interpreter's lock up meanwhile
