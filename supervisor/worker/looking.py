"""Losses and gradient norms of a loop's steps, and whether training has gone wrong."""

from __future__ import annotations

import functools
import math
import os
from typing import Any

import torch

from supervisor.worker.divergence import Detector
from supervisor.worker.health import LEAST_SCALE, Measured, ends_attempts, no_nan


class Looking:
    """Collects what a loop tells of its batches, and looks at it once a step, which waits for the device.

    Attributes:
        newest: the step settled last.
    """

    def __init__(self, accelerator: Any, rank: int) -> None:
        """Begin to look at the norms that `Accelerator.clip_grad_norm_` returns.

        Args:
            accelerator: the loop's.
            rank: a rise is seen by all ranks, so the first one looks for it; a value that is not finite by each.
        """
        self.newest = Measured()
        self._accelerator = accelerator
        self._detector = Detector(spikes=rank == 0)
        self._loss: Any = None
        self._norm: Any = None
        self._batches = 0
        original = accelerator.clip_grad_norm_

        @functools.wraps(original)
        def clip(*args: Any, **kwargs: Any) -> Any:
            self._norm = original(*args, **kwargs)
            return self._norm

        accelerator.clip_grad_norm_ = clip

    def detach(self) -> None:
        """Leave the accelerator as it was."""
        vars(self._accelerator).pop("clip_grad_norm_", None)

    def add(self, loss: Any) -> None:
        """The loss of one batch, as it was before it was divided by anything."""
        value = loss.detach() if isinstance(loss, torch.Tensor) else loss
        self._loss = value if self._loss is None else self._loss + value
        self._batches += 1

    def settle(self, step: int) -> Measured:
        """What the step that is settled now has shown."""
        loss, norm, self._loss, self._norm = self._loss, self._norm, None, None
        if loss is None:
            return self.newest  # it was passed over, or the loop tells no loss
        measured, self._batches = float(loss) / self._batches, 0
        length = None if norm is None else float(norm)
        if length is not None and not math.isfinite(length) and math.isfinite(measured) and self._scale_moves():
            length = None  # an overflow: the scaler leaves this update out by itself, and tries a smaller scale
        bad = self._detector.see(step, measured, length)
        first = self._detector.first
        self.newest = Measured(no_nan(measured), no_nan(length), bad, first, bad and ends_attempts(os.environ))
        return self.newest

    def _scale_moves(self) -> bool:
        scaler = self._accelerator.scaler
        return scaler is not None and scaler.is_enabled() and float(scaler.get_scale()) >= LEAST_SCALE
