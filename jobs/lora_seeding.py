"""Random numbers that do not depend on when a run was interrupted.

Before every optimizer step each rank seeds all its generators from (seed, rank,
step). Dropout and everything else that is drawn within a step is then a
function of the step alone: a rank that starts again, on a new node, after any
number of restarts, draws what it would have drawn anyway, and no random state
has to outlive it. Evaluation may draw as much as it likes in between.

The order of the data does not come from here: accelerate's sampler has a
generator of its own, seeded by (seed, epoch).
"""

from __future__ import annotations

import hashlib
import random
from typing import Any

from transformers import TrainerCallback


class SeedEveryStep(TrainerCallback):  # type: ignore[misc]
    """Seeds `random`, numpy and torch at the beginning of each optimizer step.

    Attributes:
        seed: of the run (`training.seed`).
        rank: of this process in the world.
    """

    def __init__(self, seed: int, rank: int) -> None:
        self.seed = seed
        self.rank = rank

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """All micro-batches of a step draw from the same seeding."""
        seed_everything(step_seed(self.seed, self.rank, state.global_step))


def step_seed(seed: int, rank: int, step: int) -> int:
    """A number of 63 bits; neighbours in any argument have nothing in common.

    >>> step_seed(42, 0, 0), step_seed(42, 0, 1), step_seed(42, 1, 0)
    (4609882205794134092, 1765327072177549673, 5689687752019390874)

    Source:
        A cryptographic hash rather than a sum: with seed + step, rank 1 would draw
        at every step what rank 0 draws at the next one.
    """
    digest = hashlib.blake2b(f"{seed}/{rank}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1  # torch.manual_seed takes it as signed


def seed_everything(seed: int) -> None:
    """Seed the generators of `random`, numpy and torch, those of every CUDA device included."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # numpy's legacy generator takes 32 bits
    torch.manual_seed(seed)  # seeds CUDA devices too, lazily before CUDA is up
