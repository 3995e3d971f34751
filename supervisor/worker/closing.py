"""What the Trainer says at its end, made true for a training of several lives."""

from __future__ import annotations

from typing import Any


def level_train_loss(trainer: Any, state: Any) -> None:
    """Make the Trainer's closing mean one over the whole training.

    It divides the sum of all losses, which we restored, by the steps of this life alone.
    The steps cannot be changed without inflating its rates, so the sum is brought down.

    Args:
        trainer: a `transformers.Trainer` that went on from a checkpoint, after its last step.
        state: its state.
    """
    if not all(hasattr(trainer, name) for name in ("_total_loss_scalar", "_tr_loss", "_initial_global_step")):
        return
    pending = trainer._tr_loss.item()
    share = (state.global_step - trainer._initial_global_step) / max(state.global_step, 1)
    trainer._total_loss_scalar = (trainer._total_loss_scalar + pending) * share - pending
