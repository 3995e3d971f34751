"""What is changed when memory ran out, until nothing is left to change.

Of a GPU: fewer samples at a time, as many more micro-batches, so that a step is made of the same
samples; then activations that are computed again rather than kept. Of the machine: fewer
processes that load data, none of it pinned. Each change needs less memory than what it replaces
and none is taken back, so that every sequence of them ends, also with a program that does not obey.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from supervisor.policy.adapt import Adaptation, Settings

_GIB = 1 << 30
#: What is asked for, over what was not enough.
_MORE = 1.5


@dataclass(frozen=True, slots=True)
class Changed:
    """Something that needs less memory.

    Attributes:
        to: what the next attempt is started with.
        detail: what changes, for people.
    """

    to: Adaptation
    detail: str


@dataclass(frozen=True, slots=True)
class NothingLeft:
    """Nothing can be changed here that would need less memory.

    Attributes:
        reason: what was in force, or what is not known.
        remedy: what a person can do.
    """

    reason: str
    remedy: str


def smaller(micro_batch: int, accumulation: int) -> tuple[int, int] | None:
    """The next smaller micro-batch, with the accumulation that keeps the samples of a step; None below one sample.

    An even one is halved; an odd one becomes the next smaller divisor of what a rank takes in a step.

    >>> smaller(8, 1), smaller(6, 5), smaller(15, 2), smaller(7, 1), smaller(1, 8)
    ((4, 2), (3, 10), (10, 3), (1, 7), None)
    """
    if micro_batch <= 1:
        return None
    samples = micro_batch * accumulation
    to = (
        micro_batch // 2 if micro_batch % 2 == 0 else next(d for d in range(micro_batch - 1, 0, -1) if samples % d == 0)
    )
    return to, samples // to


def after_gpu_oom(settings: Settings, present: Adaptation, ranks: int = 1) -> Changed | NothingLeft:
    """What to change after a GPU ran out of memory.

    Args:
        settings: how the program was set when it did.
        present: what was changed before.
        ranks: that make up a step together.

    >>> after_gpu_oom(Settings(micro_batch=8, accumulation=1), Adaptation(), ranks=2).detail
    'micro-batch 4 instead of 8, accumulation 2 instead of 1: the same global batch of 16'
    >>> after_gpu_oom(Settings(micro_batch=1, accumulation=4), Adaptation(micro_batch=1)).to.checkpointing
    True
    """
    if settings.micro_batch is None:
        return NothingLeft(
            "the program did not say how many samples it takes at a time",
            "if memory ran out while the model was loaded, take `quantization: 4bit`, a smaller model or a larger GPU; "
            "else take a smaller batch, or a program that says how it is set: a Trainer without auto_find_batch_size, "
            "or supervisor.worker.fitting_batch",
        )
    if present.micro_batch is not None and settings.micro_batch > present.micro_batch:
        return NothingLeft(
            f"the program takes {settings.micro_batch} samples at a time although it was told {present.micro_batch}",
            "have it take what $SUPERVISOR_MICRO_BATCH says, or a smaller batch of its own",
        )
    accumulation = settings.accumulation or 1
    if (next_one := smaller(settings.micro_batch, accumulation)) is not None:
        to, times = next_one
        return Changed(
            replace(present, micro_batch=to),
            f"micro-batch {to} instead of {settings.micro_batch}, accumulation {times} instead of {accumulation}: "
            f"the same global batch of {to * times * ranks}",
        )
    if not settings.checkpointing and not present.checkpointing:
        return Changed(
            replace(present, checkpointing=True),
            "gradient checkpointing, since one sample at a time does not fit: activations are computed again",
        )
    how = "with" if settings.checkpointing else "without"
    return NothingLeft(
        f"micro-batch 1, accumulation {accumulation}, {how} gradient checkpointing: one sample does not fit",
        "take shorter sequences (`max_length`), a 4-bit base model (`quantization: 4bit`), a smaller LoRA rank "
        "or fewer target modules, a smaller model, or a GPU with more memory",
    )


def after_host_oom(settings: Settings, present: Adaptation, needs_bytes: int | None = None) -> Changed | NothingLeft:
    """What to change after the machine, or the job's share of it, ran out of memory.

    Args:
        settings: how the program was set when it did.
        present: what was changed before.
        needs_bytes: what it took at least, or the limit that it reached; None if unknown.

    >>> after_host_oom(Settings(loader_workers=4), Adaptation()).detail
    '2 data-loader workers of each rank instead of 4, no pinned memory'
    >>> after_host_oom(Settings(loader_workers=0), Adaptation(pin_memory=False), 40 << 30).remedy.split(":")[0]
    'ask for at least 60 GiB of host memory'
    """
    workers = settings.loader_workers
    obeys = workers is None or present.loader_workers is None or workers <= present.loader_workers
    if workers and obeys:
        to = workers // 2
        pinned = "" if present.pin_memory is False else ", no pinned memory"
        return Changed(
            replace(present, loader_workers=to, pin_memory=False),
            f"{to or 'no'} data-loader workers of each rank instead of {workers}{pinned}",
        )
    if workers is not None and present.pin_memory is not False:
        return Changed(replace(present, pin_memory=False), "no pinned memory; there were no data-loader workers")
    if workers is None:
        loads = "the program did not say how it loads its data"
    elif workers:
        loads = f"the program has {workers} data-loader workers although it was told {present.loader_workers}"
    else:
        loads = "no data-loader workers are left"
    return NothingLeft(loads, _ask_for(needs_bytes))


def _ask_for(needs_bytes: int | None) -> str:
    if needs_bytes is None:
        return "ask for more host memory: under SLURM `slurm: {mem: …}` (sbatch --mem), else a larger machine"
    gib = math.ceil(needs_bytes * _MORE / _GIB)
    return f"ask for at least {gib} GiB of host memory: under SLURM `slurm: {{mem: {gib}G}}` (sbatch --mem={gib}G)"


def forget_memory(present: Adaptation) -> Adaptation:
    """What is left of the changes when memory is tried anew: for another job, or after a person has made room.

    >>> forget_memory(Adaptation(micro_batch=2, pin_memory=False, offline=True)).told()
    {'offline': True}
    """
    return replace(present, micro_batch=None, checkpointing=None, loader_workers=None, pin_memory=None)
