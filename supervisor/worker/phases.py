"""Says what a rank is about to do: step, evaluate, save. The Trainer tells of each only when it is over.

What is due is asked of the Trainer's own `DefaultFlowCallback`, about a copy of its flags: our callback comes first,
and then nothing is decided yet.
"""

from __future__ import annotations

import copy
from typing import Any

from transformers import DefaultFlowCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from supervisor.board.pages import Phase
from supervisor.worker.seat import Seat


class Phases:
    """Publishes a rank's phase around what is due at the end of a step or an epoch."""

    def __init__(self, at: Seat) -> None:
        self._at = at
        self._within = Phase(at.beat.phase)  # what an evaluation is made in
        self._then = Phase.TRAINING  # after what is due

    def step_ends(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        """What is due at the step comes now."""
        self._announce(args, state, DefaultFlowCallback().on_step_end(args, state, copy.copy(control)))

    def epoch_ends(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        """What is due at the epoch's end comes now."""
        self._announce(args, state, DefaultFlowCallback().on_epoch_end(args, state, copy.copy(control)))

    def _announce(self, args: TrainingArguments, state: TrainerState, due: Any) -> None:
        ends = due.should_training_stop or state.global_step >= state.max_steps
        # At the very end the best model may be loaded, and our last state is taken: that is like a save.
        self._then = Phase.SAVING if ends else Phase.TRAINING
        if due.should_evaluate:
            self._within = Phase.SAVING if _saves(args, due) else self._then
            self._at.announce(phase=Phase.EVALUATING)  # the supervisor may want what is being measured
        elif due.should_save or ends:
            self._at.publish(phase=Phase.SAVING)

    def evaluates(self) -> None:
        """One batch of an evaluation is over; the program may make them whenever it wants."""
        if self._at.beat.phase != Phase.EVALUATING:
            self._within = Phase(self._at.beat.phase)
        self._at.publish(phase=Phase.EVALUATING)

    def evaluated(self, args: TrainingArguments, control: TrainerControl) -> None:
        """An evaluation is over; whether its model is the best so far, and saved for that, is found out next."""
        if self._at.beat.phase == Phase.EVALUATING:
            saves = self._within == Phase.TRAINING and _saves(args, control)
            self._at.publish(phase=Phase.SAVING if saves else self._within)

    def saved(self) -> None:
        """A checkpoint of the Trainer's own is written."""
        if self._at.beat.phase == Phase.SAVING:
            self._at.publish(phase=self._then)


def _saves(args: TrainingArguments, control: Any) -> bool:
    return bool(control.should_save or args.save_strategy == SaveStrategy.BEST)
