"""The callback that makes a Trainer's run survivable.

A snapshot is taken when a step is settled, which is when the next one begins: evaluation,
logging and other callbacks come after `on_step_end`, draw random numbers and change the
trainer's state. At an epoch's edge the Trainer restores the random state before it opens the
data loader, elsewhere after it fetched the first batch; so there the snapshot is taken in
`on_epoch_begin`, and the first `on_step_begin` of each loop is passed over.
"""

from __future__ import annotations

import json
import time
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import TrainOutput

from supervisor.board.pages import Phase, Trained
from supervisor.checkpoint.contents import OPTIMIZER
from supervisor.checkpoint.shards import own_file
from supervisor.worker import randomness, sharded, sums, tree
from supervisor.worker.alone import OwnTime
from supervisor.worker.capture import ModelCapture, Tensors, split_optimizer
from supervisor.worker.closing import level_train_loss
from supervisor.worker.facts import base_of, batch_of, libraries, trainer_state
from supervisor.worker.footprint import foretell
from supervisor.worker.health import Health, await_end
from supervisor.worker.history import History
from supervisor.worker.pacing import Pacing
from supervisor.worker.phases import Phases
from supervisor.worker.restoring import model_files, restore
from supervisor.worker.resume import Resume, find
from supervisor.worker.seat import Seat, WorldSizeError, seat, supervised
from supervisor.worker.snapshots import SnapshotTaker
from supervisor.worker.standby import remember_modules


class SupervisorCallback(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Publishes what a rank does, snapshots every settled step, and restores what there is to resume from.

    Without a supervisor it does nothing. It finds its trainer through the bootstrap; in a
    program of one's own that is started in another way, call `bind` before `train`.
    """

    def __init__(self) -> None:
        self._seat: Seat | None = seat() if supervised() else None
        if self._seat is not None:
            self._phases, self._pacing = Phases(self._seat), Pacing(self._seat)
            self._history = History(self._seat.board, self._seat.attempt)
        self._trainer: Any = None
        self._model: ModelCapture | None = None
        self._sharded, self._checked = False, 0
        self._taker: SnapshotTaker | None = None
        self._resume: Resume | None = None
        self._edge = False
        self._first = True
        self._health = Health()
        self._libraries: dict[str, str] = {}
        self._alone = OwnTime()

    def bind(self, trainer: Any) -> None:
        """Tell the callback whose it is; what the hooks are not given is taken from there."""
        self._trainer = trainer
        if self._seat is None:
            return
        sharded.refuse_foreign()
        if (resume := find(self._seat)) is not None:
            sharded.take_over_loading(trainer, resume)

    def restore_callbacks(self, resume: Resume) -> None:
        """Give the other callbacks the state they had, before training begins.

        The Trainer does this only if asked to, and by building new objects; without it
        EarlyStopping would begin to count anew.
        """
        self._resume = resume
        saved = json.loads(resume.parts["trainer_state.json"].read())["stateful_callbacks"]
        callbacks = [c for c in self._trainer.callback_handler.callbacks if isinstance(c, ExportableState)]
        for name, states in saved.items():
            namesakes = [c for c in callbacks if type(c).__name__ == name]
            for callback, state in zip(namesakes, states if isinstance(states, list) else [states], strict=False):
                for attribute, value in state.get("attributes", {}).items():
                    setattr(callback, attribute, value)

    def already_trained(self, resume: Resume) -> TrainOutput:
        """What `train` returns when training had reached its end and only the program's rest is to be done again."""
        if resume.state.get("imported"):  # its weights are named as the Trainer saved them
            self._trainer._load_from_checkpoint(str(resume.directory / "stock"))
        else:
            ModelCapture(self._trainer.model).restore(model_files(resume, self._at.rank))
        state = TrainerState.load_from_json(str(resume.directory / "stock" / "trainer_state.json"))
        self._trainer.state = state
        at = self._at
        # The state is on the board or on disk already; saying so has it committed if it is not.
        at.announce(
            phase=Phase.TRAINED,
            resumed=state.global_step,
            step=state.global_step,
            max_steps=state.max_steps,
            trained=Trained.ON_BOARD,
        )
        return TrainOutput(state.global_step, float("nan"), {})

    @property
    def _at(self) -> Seat:
        assert self._seat is not None
        return self._seat

    # -- the Trainer's hooks

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check the world's size, restore what the stock form cannot carry, start publishing."""
        if self._seat is None:
            return
        if args.world_size != self._at.world_size:
            raise WorldSizeError(
                f"{self._at.world_size} processes were launched, but the program trains with {args.world_size}; "
                "each would train a model of its own. Is the GPU visible? On a CPU set use_cpu=True"
            )
        self._sharded = sharded.is_sharded(kwargs["model"])
        self._model = ModelCapture(kwargs["model"])
        self._libraries = libraries()
        self._resume = self._resume or find(self._at)
        self._taker = SnapshotTaker(self._at, since=self._resume.step if self._resume is not None else 0)
        if self._resume is not None:
            restore(self._resume, self._at.rank, self._trainer, self._model, kwargs)
        self._health.attach(self._trainer, kwargs.get("optimizer"), self._at.rank)
        self._first, self._edge = True, False
        if not args.torch_compile:
            self._alone.watch(self._model.model)
        if self._at.leads:
            remember_modules(self._at)
            foretell(self._at, [self._model.model], self._model.files(), [kwargs.get("optimizer")])
        self._at.announce(
            phase=Phase.TRAINING,
            resumed=state.global_step,
            step=state.global_step,
            max_steps=state.max_steps,
        )

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """At an edge between epochs the step before it is settled now."""
        if self._seat is None:
            return
        if self._edge:
            self._settle(state, kwargs)
        self._edge, self._first = False, True

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The step before this one is settled."""
        if self._seat is None:
            return
        self._alone.begins()
        if self._first:
            self._first = False
            assert self._taker is not None
            self._pacing.begins()
            self._pacing.obey(self._taker)
        else:
            self._settle(state, kwargs)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """What is due at the step comes now: say so before it begins, for nobody else does."""
        if self._seat is None:
            return
        self._alone.ended()
        self._phases.step_ends(args, state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """What is due at the epoch's end is still to come."""
        self._edge = True
        if self._seat is not None:
            self._phases.epoch_ends(args, state, control)
        if self._resume is not None and (control.should_training_stop or state.global_step >= state.max_steps):
            level_train_loss(self._trainer, state)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """An evaluation is under way."""
        if self._seat is not None:
            self._phases.evaluates()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """It is over."""
        if self._seat is not None:
            self._phases.evaluated(args, control)

    on_predict = on_evaluate

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A checkpoint of the Trainer's own is written."""
        if self._seat is not None:
            self._phases.saved()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Publish the loss, where steps are not looked at one by one."""
        loss = (kwargs.get("logs") or {}).get("loss")
        if self._seat is not None and not self._health.looks and isinstance(loss, (int, float)):
            self._at.publish(loss=float(loss))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Training is over: snapshot the state that it ends in."""
        if self._seat is None:
            return
        measured = self._health.settle(state.global_step)
        self._health.detach()
        if measured.ends:
            await_end(self._at, self._taker, state.global_step, measured)  # nobody wants to keep such an end
        if not self._at.orders().period:
            self._at.announce(phase=Phase.TRAINED, step=state.global_step, trained=Trained.WITHOUT_SNAPSHOT)
            return
        optimizer = kwargs.get("optimizer")
        if optimizer is not None and callable(getattr(optimizer, "eval", None)):
            optimizer.eval()  # schedule-free optimizers keep the weights to be used apart from those they train
        self._snapshot(state, kwargs, trained=True)
        assert self._taker is not None
        self._taker.finish()
        self._at.announce(phase=Phase.TRAINED, step=state.global_step, trained=Trained.ON_BOARD)

    # -- settling

    def _settle(self, state: TrainerState, kwargs: dict[str, Any]) -> None:
        orders = self._at.orders()
        step = state.global_step
        measured = self._health.settle(step)
        asked_for = orders.asks_for(step)
        due = orders.wants(step)
        if due:
            self._snapshot(state, kwargs, trained=False)
        assert self._taker is not None
        self._pacing.settled(step, measured, self._taker, taken=due, asked_for=asked_for, own_s=self._alone.usual_s)

    def _snapshot(self, state: TrainerState, kwargs: dict[str, Any], *, trained: bool) -> None:
        assert self._taker is not None
        began_s = time.perf_counter()
        told: dict[str, Any] = {"rank": {"rng": randomness.capture(), "trainer": sums.told(self._trainer)}}
        told["rank"]["health"] = self._health.newest.told()
        files: dict[str, Tensors] = {}
        wholes: dict[str, Tensors] = {}
        if self._at.leads or self._sharded:
            files, joined = self._tensors(kwargs)
            if self._sharded:
                files, wholes = sharded.divide(files, self._at.rank, leads=self._at.leads)
        if self._at.leads:
            told["shared"] = {**self._shared(state, kwargs, trained), "optimizer": joined}
            self._history.append(state.log_history)
        own = getattr(self._trainer, "_tr_loss", None)
        if isinstance(own, torch.Tensor):
            files.setdefault(own_file(self._at.rank), {})["trainer.tr_loss"] = own
        self._taker.take(
            step=state.global_step,
            trained=trained,
            diverged=self._health.newest.bad,
            files=files,
            told=told,
            history_bytes=self._history.size_bytes,
            began_s=began_s,
            wholes=wholes,
        )

    def _tensors(self, kwargs: dict[str, Any]) -> tuple[dict[str, Tensors], dict[str, Any]]:
        """The state's tensors by file, alive, and the JSON that joins the optimizer's again."""
        assert self._model is not None
        optimizer = kwargs["optimizer"]
        if self._sharded:
            sharded.gather_in(self._model.model)
        files = self._model.files()
        files[OPTIMIZER], joined = split_optimizer(optimizer.state_dict())
        if self._sharded and len(files[OPTIMIZER]) != self._checked:
            # Of 448 parameters it takes 4 ms, and state only comes: at the first step, or of a group that is added.
            sharded.check_optimizer(optimizer)
            self._checked = len(files[OPTIMIZER])
        return files, joined

    def _shared(self, state: TrainerState, kwargs: dict[str, Any], trained: bool) -> dict[str, Any]:
        """What all ranks have in common, beside tensors."""
        assert self._model is not None
        scheduler = kwargs.get("lr_scheduler")
        scaler = getattr(kwargs["optimizer"], "scaler", None)
        best = trained and bool(getattr(self._trainer, "args", None) and self._trainer.args.load_best_model_at_end)
        return {
            "trainer_state": trainer_state(state, self._trainer),
            "adapter_config": self._model.adapter_config,
            "scheduler": None if scheduler is None else tree.encode(scheduler.state_dict(), "scheduler"),
            "scaler": None if scaler is None else tree.encode(scaler.state_dict(), "scaler"),
            "data": {
                "epoch": state.epoch,
                "step": state.global_step,
                "batch_size": state.train_batch_size,
                **batch_of(getattr(self._trainer, "args", None)),
            },
            "base": base_of(self._model.model),
            "libraries": self._libraries,
            "best_loaded": best and state.best_model_checkpoint is not None,
            "sharded": self._sharded,
        }
