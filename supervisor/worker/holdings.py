"""What a loop of one's own trains and goes on with: models, optimizers, schedulers, the scaler, what it registers.

The first model is the checkpoint's adapter or model; what the others have of their own lies in extra.safetensors. One
optimizer or scheduler is kept as the Trainer's is, several are kept by their numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from supervisor.checkpoint.contents import EXTRA, OPTIMIZER
from supervisor.errors import JobError
from supervisor.worker import tree
from supervisor.worker.capture import ModelCapture, Tensors, hoist, join_optimizer, lower, split_optimizer
from supervisor.worker.resume import Resume

log = logging.getLogger(__name__)

REGISTERED = "registered.safetensors"


@dataclass(slots=True)
class Holdings:
    """Everything but the data's position and the random state.

    Attributes:
        models: not wrapped; the first one is the one that is trained for.
        optimizers: in the program's order.
        schedulers: likewise.
        scaler: accelerate's gradient scaler, None without one.
        registered: what else has a state, by name.
    """

    models: Sequence[ModelCapture]
    optimizers: Sequence[Any]
    schedulers: Sequence[Any]
    scaler: Any
    registered: dict[str, Any] = field(default_factory=dict)

    def weights(self) -> dict[str, Tensors]:
        """What training changes of the models, by file; the tensors are alive."""
        files = self.models[0].files()
        for number, model in enumerate(self.models[1:], 1):
            for file, tensors in model.files().items():
                own = {f"model:{number}:{file}:{name}": tensor for name, tensor in tensors.items()}
                files.setdefault(EXTRA, {}).update(own)
        return files

    def told(self) -> tuple[dict[str, Any], dict[str, Tensors]]:
        """The state as JSON and tensors, which are alive."""
        files = self.weights()
        split = [split_optimizer(one.state_dict()) for one in self.optimizers]
        schedules = [tree.encode(one.state_dict(), "scheduler") for one in self.schedulers]
        told = {
            "adapter_config": self.models[0].adapter_config,
            "optimizer": split[0][1] if len(split) == 1 else None,
            "optimizers": [joined for _, joined in split],
            "scheduler": schedules[0] if len(schedules) == 1 else None,
            "schedulers": schedules,
            "scaler": None if self.scaler is None else tree.encode(self.scaler.state_dict(), "scaler"),
        }
        several = len(split) > 1
        files[OPTIMIZER] = {
            f"{number}:{name}" if several else name: tensor
            for number, (tensors, _) in enumerate(split)
            for name, tensor in tensors.items()
        }
        kept: Tensors = {}
        told["registered"] = {name: hoist(one.state_dict(), name, kept) for name, one in self.registered.items()}
        return told, {**files, **({REGISTERED: kept} if kept else {})}

    def restore(self, resume: Resume) -> None:
        """Put a state back, bit for bit.

        Raises:
            JobError: it is the state of other things than the program has.
        """
        state = resume.state
        self._restore_models(resume)
        optimizers = state.get("optimizers") or [state["optimizer"]]
        schedulers = state.get("schedulers", [state.get("scheduler")] if state.get("scheduler") else [])
        _check("optimizers", len(optimizers), len(self.optimizers))
        _check("schedulers", len(schedulers), len(self.schedulers))
        tensors = _copies(resume.tensors(OPTIMIZER))
        for number, (optimizer, joined) in enumerate(zip(self.optimizers, optimizers, strict=True)):
            own = _under(f"{number}:", tensors) if len(optimizers) > 1 else tensors
            _load(optimizer, join_optimizer(own, joined), number)
        for scheduler, told in zip(self.schedulers, schedulers, strict=True):
            scheduler.load_state_dict(tree.decode(told))
        if self.scaler is not None and state.get("scaler") is not None:
            self.scaler.load_state_dict(tree.decode(state["scaler"]))
        for name in self.registered:
            self.restore_registered(resume, name)

    def restore_registered(self, resume: Resume, name: str) -> None:
        """Put the state of one registered thing back; one that was not registered then keeps what it has."""
        there = resume.state.get("registered", {})
        if name not in there:
            log.warning("the state to go on from knows nothing of %r: it begins as it is", name)
            return
        self.registered[name].load_state_dict(lower(there[name], _copies(resume.tensors(REGISTERED))))

    def check_registered(self, resume: Resume) -> None:
        """Make sure that everything whose state was kept is there.

        Raises:
            JobError: something is not.
        """
        for name in resume.state.get("registered", {}):
            if name not in self.registered:
                raise JobError(
                    f"the checkpoint holds the state of {name!r}, which nothing was registered for",
                    f"call session.register({name!r}, …) before session.batches()",
                )

    def _restore_models(self, resume: Resume) -> None:
        for number, model in enumerate(self.models):
            extra = resume.tensors(EXTRA)
            if number == 0:
                first = {name: tensor for name, tensor in extra.items() if not name.startswith("model:")}
                model.restore({model.file: resume.tensors(model.file), EXTRA: first})
            else:
                model.restore({file: _under(f"model:{number}:{file}:", extra) for file in (model.file, EXTRA)})


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _copies(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Tensors of one's own: those of a resume lie over pages that the next snapshots are written to."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _check(what: str, then: int, now: int) -> None:
    if then != now:
        raise JobError(
            f"the checkpoint holds the state of {then} {what}, Session was given {now}",
            f"give it the same {what} in the same order, or begin anew with --fresh",
        )


def _load(optimizer: Any, state: dict[str, Any], number: int) -> None:
    """Load an optimizer's state in the types it was saved in.

    Source: torch.optim.Optimizer.load_state_dict casts what belongs to a parameter to the parameter's type,
    which rounds the moments that are kept more exactly.
    """
    try:
        optimizer.load_state_dict(state)
    except ValueError as error:
        remedy = "give Session the same optimizers over the same parameters, or begin anew with --fresh"
        raise JobError(f"the state of optimizer {number} is of other parameters: {error}", remedy) from error
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, saved in state["state"].items():
        now = optimizer.state[parameters[index]]
        for key, value in saved.items():
            if isinstance(value, torch.Tensor) and key in now and now[key].dtype != value.dtype:
                now[key] = value.to(now[key].device)
