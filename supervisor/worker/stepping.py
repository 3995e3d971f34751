"""Which optimizers and schedulers of a loop have made a step, seen from their own `step`.

A step of the run is over when the program asks for the next batch, if one of its optimizers has made a step, and none
of the others still gathers gradients: those are in no snapshot. So it does not matter after which batches a loop says
that a step is done, nor whether it accumulates by accelerate or by itself.

accelerate moves a prepared schedule as many times in a step as there are processes. With another number of them it goes
on as many times as before: a step is of the same samples.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any


class Stepping:
    """Watches the steps of prepared optimizers, and of schedulers, until `detach`.

    Attributes:
        stepped: per optimizer, whether it has made a step since `begin`.
        scheduled: per scheduler, the same.
        usual: the schedulers that moved in the last step, by number.
        pace: how often a prepared one moves in a step: once for each process that the run began with.
    """

    def __init__(self, optimizers: Sequence[Any], schedulers: Sequence[Any], accelerator: Any) -> None:
        self._optimizers, self._schedulers, self._accelerator = optimizers, schedulers, accelerator
        self.stepped = [False] * len(optimizers)
        self.scheduled = [False] * len(schedulers)
        self.usual: list[int] = []
        self.pace: int = accelerator.num_processes
        for number, optimizer in enumerate(optimizers):
            self._watch(optimizer, self.stepped, number)
        for number, scheduler in enumerate(schedulers):
            self._watch(scheduler, self.scheduled, number)
            scheduler.step = self._paced(scheduler, scheduler.step)

    @property
    def over(self) -> bool:
        """Whether a step of the run is whole."""
        if not any(self.stepped):
            return False
        waiting = (one for one, stepped in zip(self._optimizers, self.stepped, strict=True) if not stepped)
        return not any(_gathers(optimizer) for optimizer in waiting)

    def begin(self) -> None:
        """The next step of the run begins."""
        if any(self.stepped):
            self.usual = [number for number, moved in enumerate(self.scheduled) if moved]
        self.stepped[:] = [False] * len(self.stepped)
        self.scheduled[:] = [False] * len(self.scheduled)

    def pass_over(self) -> None:
        """A step that is not made: the schedulers that usually move do."""
        self._accelerator.gradient_state.sync_gradients = True  # else accelerate's take it for a part of a step
        for number in self.usual:
            self._schedulers[number].step()

    def detach(self) -> None:
        """Leave them as they were."""
        for one in (*self._optimizers, *self._schedulers):
            vars(one).pop("step", None)

    def _watch(self, one: Any, made: list[bool], number: int) -> None:
        original = one.step

        @functools.wraps(original)  # also what a scheduler looks for on an optimizer's `step`
        def step(*args: Any, **kwargs: Any) -> Any:
            made[number] = made[number] or bool(self._accelerator.sync_gradients)
            return original(*args, **kwargs)

        one.step = step

    def _paced(self, scheduler: Any, move: Callable[..., Any]) -> Callable[..., Any]:
        """A schedule's `step`, at the pace it began with.

        Source: accelerate/scheduler.py, `AcceleratedScheduler.step`; one that goes with batches that are split moves
        once, and of one that has an end no more than that.
        """

        @functools.wraps(move)
        def paced(*args: Any, **kwargs: Any) -> Any:
            by_processes = getattr(scheduler, "step_with_optimizer", False) and not scheduler.split_batches
            if not by_processes or self.pace == self._accelerator.num_processes or not self._accelerator.sync_gradients:
                return move(*args, **kwargs)
            inner = scheduler.scheduler
            scheduler.split_batches = True
            try:
                for _ in range(self.pace):
                    if inner._step_count <= getattr(inner, "total_steps", math.inf):
                        move(*args, **kwargs)
            finally:
                scheduler.split_batches = False
            return None

        return paced


def _gathers(optimizer: Any) -> bool:
    return any(p.grad is not None for group in optimizer.param_groups for p in group["params"])
