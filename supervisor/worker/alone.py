"""What a step takes of this rank alone, before it waits for the others.

Ranks that wait for each other all take as long as the slowest. Counted is what nobody waits in: what the data loader
takes between two steps, and the model's own forward passes. Not counted are the backward passes, in which gradients
are summed, and what lies between: the Trainer counts tokens over all ranks there, DDP sends buffers.

What it does not show: on a GPU a forward pass is only launched, so a slow device is not seen, only slow data or a
slow host; with shards (FSDP, DeepSpeed) the forward pass itself waits for the others, and all look alike.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from torch.utils.data import dataloader

from supervisor.worker.typical import Typical


class OwnTime:
    """Adds up a step's own parts, by hooks on the model and the data loader that cost some microseconds."""

    def __init__(self) -> None:
        self._typical = Typical()
        self._began_s, self._parts_s, self._complete = float("nan"), 0.0, False
        self._stepping = False
        #: What a step usually takes of this rank alone [s]; NaN while too little has been seen.
        self.usual_s = float("nan")

    def watch(self, model: Any) -> None:
        """Count a model's forward passes in training and the waits for data, unless hooks would break its graph."""
        if getattr(model, "_compiled_call_impl", None) is not None:
            return
        model.register_forward_pre_hook(self._begin)
        model.register_forward_hook(self._end)
        _time_fetches(self._fetched)

    def ended(self) -> None:
        """A step has ended, and what is fetched from now on is for the next one."""
        self.usual_s = self._typical.add(self._parts_s if self._complete else float("nan"))
        self._parts_s, self._complete, self._stepping = 0.0, False, False

    def begins(self) -> None:
        """The next one begins; an evaluation in it has a loader of its own, which does not count."""
        self._stepping = True

    def _fetched(self, took_s: float) -> None:
        if not self._stepping:
            self._parts_s += took_s

    def _begin(self, model: Any, _inputs: Any) -> None:
        self._began_s = time.perf_counter() if model.training else float("nan")

    def _end(self, model: Any, _inputs: Any, _output: Any) -> None:
        if model.training:
            self._parts_s += time.perf_counter() - self._began_s
            self._complete = True


def _time_fetches(tell: Callable[[float], None]) -> None:
    """Have every data loader of this process tell how long its next batch was waited for.

    The iterator's name is private, but nothing public stands between a loader and whoever draws from it.
    """
    iterator: Any = getattr(dataloader, "_BaseDataLoaderIter", None)
    if iterator is None:
        return
    original = iterator.__next__

    @functools.wraps(original)
    def timed(self: Any) -> Any:
        began_s = time.perf_counter()
        try:
            return original(self)
        finally:
            tell(time.perf_counter() - began_s)

    iterator.__next__ = timed
