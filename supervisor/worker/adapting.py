"""What a program is set to in place of its own settings, and the word of how it is set.

When memory ran out, the supervisor has the next attempt take fewer samples at a time. What a
step is made of stays: as many more micro-batches make it up. `TrainingArguments` are changed
when they are made, so that all that is computed from them (a trainer's own configuration,
generations, lengths) follows; again when a trainer is given them, for a script that sets them later.

Not the same to the last sample: with several ranks accelerate fills the last micro-batches of an
epoch up with its first samples, and of smaller ones there is less to fill up. Steps are as many.
"""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from supervisor.board.environment import ACCUMULATION, adapted_in
from supervisor.errors import JobError
from supervisor.worker.seat import seat, supervised

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What stands in place of the program's own settings; None leaves its own.

    Attributes:
        micro_batch: samples that this device takes at a time, at most.
        accumulation: micro-batches of a step, of the program's own size: the ranks are others than they were.
        checkpointing: activations are computed again rather than kept.
        loader_workers: processes that load data for this rank, at most.
        pin_memory: whether loaded batches lie in pinned memory.
    """

    micro_batch: int | None = None
    accumulation: int | None = None
    checkpointing: bool | None = None
    loader_workers: int | None = None
    pin_memory: bool | None = None

    @staticmethod
    def read(environment: Mapping[str, str]) -> Told:
        """What the supervisor said in the environment.

        >>> Told.read({"SUPERVISOR_ADAPTED": '{"micro_batch": 2}', "SUPERVISOR_ACCUMULATION": "3"})
        ... # doctest: +ELLIPSIS
        Told(micro_batch=2, accumulation=3, checkpointing=None, ...
        """
        said = adapted_in(environment)
        names = ("micro_batch", "checkpointing", "loader_workers", "pin_memory")
        accumulation = int(environment[ACCUMULATION]) if ACCUMULATION in environment else None
        return Told(accumulation=accumulation, **{name: said.get(name) for name in names})

    def batch(self, micro_batch: int, accumulation: int) -> tuple[int, int]:
        """Micro-batch and accumulation in place of a program's own: the same samples in a step.

        >>> Told(micro_batch=2).batch(8, 1), Told(micro_batch=4).batch(9, 1), Told(micro_batch=4).batch(2, 3)
        ((2, 4), (3, 3), (2, 3))
        >>> Told(micro_batch=2, accumulation=3).batch(4, 2)
        (2, 6)
        """
        samples = micro_batch * (self.accumulation or accumulation)
        most = min(micro_batch, self.micro_batch or micro_batch)
        taken = next(size for size in range(most, 0, -1) if samples % size == 0)
        return taken, samples // taken


#: What was put in place of which own pair, of arguments made in this process: copies of them bear the new one.
_put: dict[tuple[int, int], tuple[int, int]] = {}


def fitting_batch(micro_batch: int, accumulation: int = 1) -> tuple[int, int]:
    """For a loop of one's own: how many samples to take at a time, and how many times for a step.

    Without a supervisor, and as long as memory was enough, it is what was given. Else it is less and more often,
    the same samples in all. Saying it lets the supervisor go lower when memory runs out.

    Args:
        micro_batch: samples that the program would take at a time.
        accumulation: how many times for a step.

    Raises:
        ValueError: one of them is below 1.
    """
    if micro_batch < 1 or accumulation < 1:
        raise ValueError(f"a micro-batch of {micro_batch}, {accumulation} times, makes no step")
    if not supervised():
        return micro_batch, accumulation
    taken, times = Told.read(os.environ).batch(micro_batch, accumulation)
    _put[taken, times] = micro_batch, accumulation
    seat().publish(micro_batch=taken, accumulation=times)
    return taken, times


def own_batch(micro_batch: int, accumulation: int) -> tuple[int, int]:
    """What a loop of one's own would take without us, of what it takes."""
    return _put.get((micro_batch, accumulation), (micro_batch, accumulation))


def adapt(args: Any, told: Told) -> None:
    """Change a program's `TrainingArguments`; what they were is kept in attributes ``supervisor_own_…``.

    A second time, or with a copy of changed ones, it changes nothing.
    """
    if (told.micro_batch or told.accumulation) and not _finds_its_own(args):
        _batch(args, told)
    if told.checkpointing and not _checkpoints(args):
        _checkpoint(args)
    if told.loader_workers is not None and args.dataloader_num_workers > told.loader_workers:
        object.__setattr__(args, "supervisor_own_loader_workers", args.dataloader_num_workers)
        _set(args, "dataloader_num_workers", told.loader_workers)
        if told.loader_workers == 0:  # torch refuses what is for workers where there are none
            _set(args, "dataloader_prefetch_factor", None)
            _set(args, "dataloader_persistent_workers", False)
            _set(args, "dataloader_multiprocessing_context", None)
    if told.pin_memory is False:
        _set(args, "dataloader_pin_memory", False)


def _finds_its_own(args: Any) -> bool:
    if not args.auto_find_batch_size:
        return False
    log.warning("auto_find_batch_size is on: the batch is the program's own affair, and is left alone")
    return True


def _batch(args: Any, told: Told) -> None:
    own = _own_batch(args)
    taken, times = told.batch(*own)
    _put[taken, times] = own
    object.__setattr__(args, "supervisor_own_micro_batch", own[0])
    object.__setattr__(args, "supervisor_own_accumulation", own[1])
    object.__setattr__(args, "supervisor_put", (taken, times))
    _set(args, "per_device_train_batch_size", taken)
    _set(args, "gradient_accumulation_steps", times)
    if told.micro_batch:
        # An evaluation that does not fit would otherwise come again whatever training takes.
        _set(args, "per_device_eval_batch_size", min(args.per_device_eval_batch_size, told.micro_batch))


def _own_batch(args: Any) -> tuple[int, int]:
    """What the program asked for: of what was put there, its own; what it has set since, as it is."""
    now = args.per_device_train_batch_size, args.gradient_accumulation_steps
    put = getattr(args, "supervisor_put", None)
    if put is None:
        return _put.get(now, now)
    own = args.supervisor_own_micro_batch, args.supervisor_own_accumulation
    return own[0] if now[0] == put[0] else now[0], own[1] if now[1] == put[1] else now[1]


def _checkpoint(args: Any) -> None:
    object.__setattr__(args, "supervisor_own_checkpointing", False)
    for kind in ("gradient", "activation"):  # two names of one thing, of which early releases know the first
        own = getattr(args, f"{kind}_checkpointing_kwargs", None)
        _set(args, f"{kind}_checkpointing", True)
        # The other kind needs inputs that require a gradient, which a frozen base's do not, and breaks under DDP.
        kept = own if isinstance(own, dict) else {}
        _set(args, f"{kind}_checkpointing_kwargs", {**kept, "use_reentrant": False})


def _checkpoints(args: Any) -> bool:
    return bool(args.gradient_checkpointing or getattr(args, "activation_checkpointing", None))


def _set(args: Any, name: str, value: Any) -> None:
    """Set what this release knows; arguments may be frozen."""
    if hasattr(args, name):
        object.__setattr__(args, name, value)


def wrap_arguments(module: Any, told: Told) -> None:
    """Have every `module.TrainingArguments` adapted before anything is computed from it."""
    original = module.TrainingArguments.__post_init__

    @functools.wraps(original)
    def adapted(self: Any) -> None:
        adapt(self, told)
        original(self)

    module.TrainingArguments.__post_init__ = adapted


def wrap_trainer(module: Any, told: Told) -> None:
    """Have every `module.Trainer` say how it is set as soon as it is made, and be set as it was told."""
    original = module.Trainer.__init__

    @functools.wraps(original)
    def made(self: Any, *rest: Any, **named: Any) -> None:
        given = named.get("args", rest[1] if len(rest) > 1 else None)
        if given is not None:
            adapt(given, told)
        original(self, *rest, **named)
        _check_checkpointing(self.model, self.args)
        _check_epochs(self)
        publish(self)

    module.Trainer.__init__ = made


def publish(trainer: Any) -> None:
    """Say how a trainer is set; an OOM at its very first step can then be answered."""
    if not supervised():
        return
    args = trainer.args
    own_affair = args.auto_find_batch_size
    seat().publish(
        micro_batch=-1 if own_affair else args.per_device_train_batch_size,
        accumulation=-1 if own_affair else args.gradient_accumulation_steps,
        loader_workers=args.dataloader_num_workers,
        checkpointing=int(_checkpoints(args)),
    )


def _check_checkpointing(model: Any, args: Any) -> None:
    """Take back what this model cannot do; the supervisor sees that it is off."""
    if hasattr(args, "supervisor_own_checkpointing") and not getattr(model, "supports_gradient_checkpointing", True):
        log.warning("%s does not support gradient checkpointing", type(model).__name__)
        for kind in ("gradient", "activation"):
            _set(args, f"{kind}_checkpointing", False)


def _check_epochs(trainer: Any) -> None:
    """Refuse where smaller micro-batches would make epochs of another length.

    What `dataloader_drop_last` drops is the rest that makes no whole micro-batch of every rank.

    Raises:
        JobError: an epoch would have more steps.
    """
    args, data = trainer.args, trainer.train_dataset
    own = getattr(args, "supervisor_own_micro_batch", None)
    if own is None or not args.dataloader_drop_last or not hasattr(data, "__len__"):
        return
    now = args.per_device_train_batch_size, args.gradient_accumulation_steps
    sizes = (own, args.supervisor_own_accumulation), now
    steps = [max(1, math.ceil(len(data) // (size * args.world_size) / times)) for size, times in sizes]
    if steps[0] != steps[1]:
        raise JobError(
            f"memory is enough for a micro-batch of {sizes[1][0]}, not {own}, but with dataloader_drop_last an epoch "
            f"has {steps[1]} steps with it instead of {steps[0]}",
            "set dataloader_drop_last to false, or the smaller batch in the job, and start with --accept-changes",
        )
