"""From the GPU to the board without making training wait.

    main stream   parameters and moments -> staging buffer on the device   (training waits: microseconds)
    side stream   staging buffer -> pinned slot in shared memory           (overlaps the next step)
    thread        waits for the side stream, then marks the snapshot whole

The optimizer may change its tensors as soon as the first copy is queued, since both are on
the main stream. The staging buffer is used again only after `wait`.

What this does not protect against: a rank killed while its copy is on the way loses that
snapshot and falls back to the one before, one step.
"""

from __future__ import annotations

import mmap
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class _Span:
    """A run of bytes that is contiguous both in the staging buffer and in a slot."""

    staged: torch.Tensor  # uint8, device
    slots: list[torch.Tensor]  # uint8, host, one per slot


class Staging:
    """One staging buffer, one stream, one thread."""

    def __init__(
        self, tensors: Sequence[torch.Tensor], views: Sequence[Sequence[torch.Tensor]], memory: mmap.mmap
    ) -> None:
        """Set up for tensors of one device.

        Args:
            tensors: what is copied, in the order of every later `copy`; some may live on the CPU.
            views: per slot, where each tensor goes.
            memory: the region's mapping, pinned here so that copies into it run alongside training.
        """
        self._device = next(t.device for t in tensors if t.is_cuda)
        self._on_device = [i for i, t in enumerate(tensors) if t.is_cuda]
        self._on_host = [i for i, t in enumerate(tensors) if not t.is_cuda]
        self._views = views
        self._base = torch.frombuffer(memory, dtype=torch.uint8)
        self._pinned = _pin(self._base)
        self._stream = torch.cuda.Stream(self._device)
        self._idle = threading.Event()
        self._idle.set()
        self._failed: BaseException | None = None
        self._staged, self._spans = self._plan(tensors)
        self._queue: queue.SimpleQueue[tuple[torch.cuda.Event, Callable[[], None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._publish, name="snapshots", daemon=True)
        self._thread.start()

    def _plan(self, tensors: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[_Span]]:
        """Staging tensors in the order of the slots' addresses, and the spans they form."""
        first = self._views[0]
        order = sorted((i for i in self._on_device if tensors[i].numel()), key=lambda i: first[i].data_ptr())
        total = sum(_padded(first[i].nbytes) for i in order)
        buffer = torch.empty(total, dtype=torch.uint8, device=self._device)
        staged = {i: torch.empty_like(tensors[i]) for i in self._on_device if not tensors[i].numel()}
        runs: list[list[int]] = []
        at, end, starts = 0, -1, []
        for i in order:
            address, size = first[i].data_ptr(), first[i].nbytes
            if address != end:
                at = _padded(at)
                runs.append([])
                starts.append(at)
            runs[-1].append(i)
            staged[i] = buffer[at : at + size].view(tensors[i].dtype).reshape(tensors[i].shape)
            at, end = at + size, address + size
        base = self._base.data_ptr()
        spans = []
        for run, start in zip(runs, starts, strict=True):
            size = sum(first[i].nbytes for i in run)
            hosts = []
            for slot in self._views:
                offset = slot[run[0]].data_ptr() - base
                hosts.append(self._base[offset : offset + size])
            spans.append(_Span(buffer[start : start + size], hosts))
        return [staged[i] for i in self._on_device], spans

    def copy(self, tensors: Sequence[torch.Tensor], slot: int, publish: Callable[[], None]) -> None:
        """Queue a snapshot; ``publish`` is called from the thread once it has arrived."""
        self._idle.clear()
        views = self._views[slot]
        torch._foreach_copy_(self._staged, [tensors[i].detach() for i in self._on_device])
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for span in self._spans:
                span.slots[slot].copy_(span.staged, non_blocking=self._pinned)
            done = torch.cuda.Event(blocking=True)  # the thread that waits for it does not spin
            done.record(self._stream)
        if self._on_host:
            torch._foreach_copy_([views[i] for i in self._on_host], [tensors[i].detach() for i in self._on_host])
        self._queue.put((done, publish))

    def wait(self) -> None:
        """Until the snapshot queued last is whole.

        Raises:
            RuntimeError: it could not be brought over; the device's own error is the cause.
        """
        self._idle.wait()
        if self._failed is not None:
            raise RuntimeError("the last snapshot did not reach the board") from self._failed

    def close(self) -> None:
        """End the thread and give the pages back."""
        self._idle.wait()
        self._queue.put(None)
        self._thread.join()
        if self._pinned:
            torch.cuda.cudart().cudaHostUnregister(self._base.data_ptr())

    def _publish(self) -> None:
        while (item := self._queue.get()) is not None:
            done, publish = item
            try:
                done.synchronize()
                publish()
            except BaseException as error:  # a lost device: the training thread meets it too
                self._failed = error
            finally:
                self._idle.set()


def _padded(size: int) -> int:
    """Start of the next span in the staging buffer; 512 is what CUDA's allocator aligns to.

    >>> _padded(1), _padded(512)
    (512, 512)
    """
    return -(-size // 512) * 512


def _pin(memory: torch.Tensor) -> bool:
    """Register the shared memory with CUDA, so that copies to it are asynchronous.

    Where the driver refuses (RLIMIT_MEMLOCK, some containers) copies still work and wait.

    Source: cudaHostRegister, CUDA runtime API, "Memory Management".
    """
    if int(torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), memory.nbytes, 0)) == 0:
        return True
    try:  # the refusal stays behind as CUDA's last error, and would be met by the next kernel
        torch.zeros(1, device="cuda").add_(1)
    except RuntimeError:
        pass
    return False
