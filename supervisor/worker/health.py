"""What a trainer's steps show of their health, and the steps that are passed over.

`training_step` and `Accelerator.clip_grad_norm_` are public; wrapped on the one trainer that is
supervised, they give the loss of each micro-batch and the norm of each step's gradients. The
Trainer itself replaces a loss that is not finite before it logs it (`logging_nan_inf_filter`).

A step that is passed over takes its batches and does nothing with them: no forward, no backward,
no update, of no optimizer and no gradient scaler. The learning rate, the step's number and the
data's position move on. All ranks pass over the same steps, so no collective is left half done.
"""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from supervisor.board.environment import ON_NAN, adapted_in
from supervisor.board.pages import Phase
from supervisor.worker.divergence import Detector
from supervisor.worker.seat import Seat
from supervisor.worker.snapshots import SnapshotTaker

#: A scale that overflow after overflow has brought below this is none that looks for its place any more:
#: it starts at 65536, and 17 halvings in a row lead here.
LEAST_SCALE = 1.0


def skipped_steps(environment: Mapping[str, str]) -> tuple[tuple[int, int], ...]:
    """First and last of each range of steps whose data is passed over.

    >>> skipped_steps({"SUPERVISOR_ADAPTED": '{"micro_batch": 2, "skip": [[7, 9]]}'}), skipped_steps({})
    (((7, 9),), ())
    """
    return tuple((int(first), int(last)) for first, last in adapted_in(environment).get("skip", ()))


def ends_attempts(environment: Mapping[str, str]) -> bool:
    """Whether an attempt whose training goes wrong is to end.

    >>> ends_attempts({ON_NAN: "rollback"}), ends_attempts({ON_NAN: "ignore"}), ends_attempts({})
    (True, False, False)
    """
    return environment.get(ON_NAN) in ("rollback", "stop")


@dataclass(frozen=True, slots=True)
class Measured:
    """The newest step, as far as it is known; what is not finite is infinite here.

    Attributes:
        loss: mean over its micro-batches, None while unknown.
        grad_norm: before clipping, None while unknown.
        bad: whether it has gone wrong.
        first: the first step that ever did, None while none has.
        ends: whether the attempt is to end for it.
    """

    loss: float | None = None
    grad_norm: float | None = None
    bad: bool = False
    first: int | None = None
    ends: bool = False

    def told(self) -> dict[str, Any]:
        """For the snapshot's JSON, which has no number that is not finite.

        >>> Measured(loss=float("inf"), bad=True, first=7).told()
        {'loss': None, 'grad_norm': None, 'diverged': True}
        """
        loss, norm = (v if v is not None and math.isfinite(v) else None for v in (self.loss, self.grad_norm))
        return {"loss": loss, "grad_norm": norm, "diverged": self.bad}

    def beat(self) -> dict[str, float | int]:
        """For the beat: what is known.

        >>> Measured(loss=2.5).beat()
        {'loss': 2.5}
        """
        known = {"loss": self.loss, "grad_norm": self.grad_norm, "diverged_at": self.first}
        return {name: value for name, value in known.items() if value is not None}


@dataclass(slots=True)
class Health:
    """Looks at the steps of one trainer, once it is attached to it.

    Attributes:
        newest: the step settled last.
    """

    newest: Measured = field(default_factory=Measured)
    _trainer: Any = None
    _skip: tuple[tuple[int, int], ...] = ()
    _detector: Detector = field(default_factory=Detector)
    _loss: torch.Tensor | None = None
    _norm: Any = None
    _replaced: list[Callable[[], None]] = field(default_factory=list)

    @property
    def looks(self) -> bool:
        """Whether steps are looked at."""
        return bool(self._replaced)

    def attach(self, trainer: Any, optimizer: Any, rank: int) -> None:
        """Begin to look; a program that binds no trainer is not looked into.

        Args:
            trainer: whose steps.
            optimizer: accelerate's, around the program's own.
            rank: a rise is seen by all ranks, so the first one looks for it; a value that is not finite by each.
        """
        self.detach()  # within one call the Trainer may begin anew: it looks for a batch size that fits
        if trainer is None or optimizer is None:
            return
        self._trainer, self._skip = trainer, skipped_steps(os.environ)
        self._detector = Detector(spikes=rank == 0)
        self._replace(trainer, "training_step", self._training_step)
        self._replace(trainer.accelerator, "clip_grad_norm_", self._clip)
        if self._skip:
            self._replace(optimizer, "step", self._update)

    def detach(self) -> None:
        """Leave the trainer as it was: it may train again, and count its steps from zero."""
        while self._replaced:
            self._replaced.pop()()

    def settle(self, step: int) -> Measured:
        """What the step that is settled now has shown.

        The values are read here, once a step. This waits for the device, as the Trainer does at each
        micro-batch unless its filter of losses that are not finite is turned off.
        """
        loss, norm, self._loss, self._norm = self._loss, self._norm, None, None
        if loss is None:
            return self.newest  # it was passed over, or this trainer makes its steps in another way
        measured, length = float(loss), None if norm is None else float(norm)
        if length is not None and not math.isfinite(length) and math.isfinite(measured) and self._scale_moves():
            length = None  # an overflow: the scaler leaves this update out by itself, and tries a smaller scale
        bad = self._detector.see(step, measured, length)
        ends = bad and ends_attempts(os.environ)
        self.newest = Measured(no_nan(measured), no_nan(length), bad, self._detector.first, ends)
        return self.newest

    def _scale_moves(self) -> bool:
        scaler = getattr(self._trainer.accelerator, "scaler", None)
        return scaler is not None and scaler.is_enabled() and float(scaler.get_scale()) >= LEAST_SCALE

    @property
    def _passes_over(self) -> bool:
        step = self._trainer.state.global_step + 1
        return any(first <= step <= last for first, last in self._skip)

    def _training_step(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._passes_over:
            return torch.zeros((), device=self._trainer.args.device)
        loss = original(*args, **kwargs)
        # What it returns has been divided by the number of micro-batches already.
        self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()
        return loss

    def _clip(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._passes_over:
            return torch.zeros((), device=self._trainer.args.device)
        self._norm = original(*args, **kwargs)
        return self._norm

    def _update(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # Without gradients most optimizers change nothing, but a GradScaler refuses to step.
        return None if self._passes_over else original(*args, **kwargs)

    def _replace(self, of: Any, name: str, by: Callable[..., Any]) -> None:
        own = vars(of).get(name)  # set on the object itself, by somebody else who wraps it
        original = getattr(of, name)

        @functools.wraps(original)  # also what a scheduler looks for on an optimizer's `step`
        def called(*args: Any, **kwargs: Any) -> Any:
            return by(original, *args, **kwargs)

        setattr(of, name, called)
        self._replaced.append(lambda: delattr(of, name) if own is None else setattr(of, name, own))


def await_end(at: Seat, taker: SnapshotTaker | None, step: int, measured: Measured) -> None:
    """Training has gone wrong: say so, and make no step more, which would overwrite the last good snapshot.

    The supervisor ends this process; other ranks cannot make a step without it.
    """
    if taker is not None:
        taker.finish()
    at.announce(phase=Phase.PAUSED, step=step, **measured.beat())
    while True:
        time.sleep(0.01)


def no_nan(value: float | None) -> float | None:
    """A beat has no NaN but for what is unknown: what is no number is infinite."""
    return value if value is None or math.isfinite(value) else math.inf
