"""What is to be said of the size of checkpoints: each thing once, before the first step where it can be foreseen.

What a rank foretells knows neither buffers nor strange optimizers; the first checkpoint is known to the byte.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.board.footprint import Footprint
from supervisor.checkpoint.commit import Committed
from supervisor.checkpoint.contents import OPTIMIZER
from supervisor.checkpoint.largest import largest_tensors
from supervisor.policy.footprint import saved_untrained, short_of_room, too_large, trained_besides, trained_whole


@dataclass(slots=True)
class Sizes:
    """Warns of checkpoints that have no room, or that make no sense; used by the thread that commits.

    Attributes:
        checkpoints: the directory that holds them.
        count: asks how many are kept.
    """

    checkpoints: Path
    count: Callable[[], int]
    _said: set[str] = field(default_factory=set)
    _measured: bool = False

    def foreseen(self, foot: Footprint) -> tuple[str, ...]:
        """What there is to say of checkpoints to come."""
        short = self._short(foot.bytes)
        if short is not None and foot.optimizer_bytes is None:
            short += f"; what {foot.optimizer or 'the optimizer'} keeps comes on top, and is not known yet"
        trained, besides = foot.adapter.bytes + foot.trained.bytes, foot.trained.largest
        whole = trained_whole(trained, foot.frozen_bytes, foot.bytes, besides) if foot.adapter.bytes == 0 else None
        strange = (
            saved_untrained(foot.untrained.bytes, trained, foot.untrained.largest)
            or trained_besides(foot.adapter.bytes, foot.trained.bytes, foot.bytes, besides)
            or whole
        )
        return self._once(room=short, size=strange)

    def measured(self, committed: Committed) -> tuple[str, ...]:
        """What the first checkpoint tells besides."""
        if self._measured:
            return ()
        self._measured = True
        sizes = {name: entry.bytes for name, entry in committed.manifest.files.items()}
        weights = [name for name in sizes if name.endswith(".safetensors") and name != OPTIMIZER]
        try:
            strange = too_large(sizes, OPTIMIZER, largest_tensors(committed.path, weights))
        except OSError:
            strange = None  # a disk that errs says so elsewhere
        return self._once(room=self._short(committed.bytes), size=strange)

    def _short(self, checkpoint_bytes: int) -> str | None:
        try:
            standing = len(list(self.checkpoints.glob("checkpoint-*")))
            return short_of_room(checkpoint_bytes, self.count(), standing, shutil.disk_usage(self.checkpoints).free)
        except OSError:
            return None

    def _once(self, **told: str | None) -> tuple[str, ...]:
        new = {of: words for of, words in told.items() if words is not None and of not in self._said}
        self._said |= set(new)
        return tuple(new.values())
