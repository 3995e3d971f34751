"""Trainer scripts without a line of ours: the callback and the resume point come by themselves.

`Trainer.train` is the one public method that has everything: the trainer, `add_callback`,
and the resume argument, at a moment when torch.distributed is up. It is wrapped when
transformers.trainer is imported, not before, so that programs without it pay nothing.

TRL's trainers inherit `train`. A subclass that overrides it and does not call up is not
reached; such a program calls `SupervisorCallback.bind` itself.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from supervisor.worker import adapting

if TYPE_CHECKING:
    from supervisor.worker.resume import Resume

MODULE = "transformers.trainer"
ARGUMENTS = "transformers.training_args"


class _Finder(MetaPathFinder):
    """Finds one module by the others' means, and has its loader call back when it is there."""

    def __init__(self, module: str, then: Callable[[ModuleType], None]) -> None:
        self._module, self._then, self._asking = module, then, False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._module or self._asking:
            return None
        self._asking = True
        try:
            spec = find_spec(fullname)
        finally:
            self._asking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._then)
        return spec


class _Loader(Loader):
    def __init__(self, inner: Loader, then: Callable[[ModuleType], None]) -> None:
        self._inner, self._then = inner, then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._inner.exec_module(module)
        self._then(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)  # get_source and the like, for tracebacks and inspect


def install(*, add: bool) -> None:
    """Wrap `Trainer.train`, and have trainers adapted and say how they are set, as soon as transformers is imported.

    Args:
        add: give trainers that have no `SupervisorCallback` one; otherwise only those that
            have one are bound to it.
    """
    told = adapting.Told.read(os.environ)

    def trainer(module: ModuleType) -> None:
        wrap(module, add=add)
        adapting.wrap_trainer(module, told)

    sys.meta_path.insert(0, _Finder(MODULE, trainer))
    if told != adapting.Told():
        sys.meta_path.insert(0, _Finder(ARGUMENTS, functools.partial(adapting.wrap_arguments, told=told)))


def wrap(module: Any, *, add: bool) -> None:
    """Put a wrapped `train` in the place of `module.Trainer.train`."""
    original = module.Trainer.train

    @functools.wraps(original)
    def train(self: Any, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        from supervisor.worker.callback import SupervisorCallback
        from supervisor.worker.resume import carry_batch_size, find, resume_point
        from supervisor.worker.seat import seat

        callbacks = self.callback_handler.callbacks
        ours = next((c for c in callbacks if isinstance(c, SupervisorCallback)), None)
        if ours is None and add and not _taken:
            ours = SupervisorCallback()
            self.add_callback(ours)
        if ours is None or _taken:
            # A second trainer in the same program counts its steps from zero: it is left alone.
            if ours is not None:
                self.remove_callback(ours)
            return original(self, resume_from_checkpoint, *args, **kwargs)
        _taken.append(True)
        # First, so that a snapshot of a settled step sees nothing of what others do for the next one.
        callbacks.remove(ours)
        callbacks.insert(0, ours)
        ours.bind(self)
        adapting.publish(self)
        point = resume_point()
        if point is None:
            return original(self, resume_from_checkpoint, *args, **kwargs)
        resume = find(seat())
        assert resume is not None
        if resume.trained and not _goes_further(self, resume):
            return ours.already_trained(resume)
        ours.restore_callbacks(resume)
        self.args.eval_on_start = False  # it was done in the first life
        carry_batch_size(Path(point), self.args)
        return original(self, point, *args, **kwargs)

    module.Trainer.train = train


#: Whether a trainer of this process has been taken under supervision.
_taken: list[bool] = []


def _goes_further(trainer: Any, resume: Resume) -> bool:
    """Whether the job now asks for more steps, or more epochs, than the finished training had."""
    if trainer.args.max_steps > 0:
        return bool(trainer.args.max_steps > resume.step)
    before = json.loads(resume.parts["trainer_state.json"].read())["num_train_epochs"]
    return bool(trainer.args.num_train_epochs > before)
