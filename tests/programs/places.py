"""Named points of programs: what is done there is placed, not timed; and the data that they train on.

At a named point a program looks for a file of that name below `DIR/places`, and does what stands in it: `hold` waits
there until the file is gone, `raise` has rank 0 raise once, `eat` has it take memory until it is killed, `lock` has the
last rank wait for ever for a lock that it holds itself, `spin` has it run in a circle, `slow <seconds>` has every rank
take so long once.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import torch
from torch.utils.data import Dataset

#: Tokens of a sample on which the model has no finite loss.
POISON = 63


class Numbers(Dataset):
    """Token sequences that are a pure function of their index."""

    def __init__(self, length: int, poisoned: int = -1, sleep_s: float = 0.0) -> None:
        self.length, self.poisoned, self.sleep_s = length, poisoned, sleep_s

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        time.sleep(self.sleep_s)
        generator = torch.Generator().manual_seed(index)
        ids = torch.randint(0, 64, (16,), generator=generator)
        if index == self.poisoned:
            ids = torch.full((16,), POISON)
        return {"input_ids": ids, "labels": ids.clone()}


class Places:
    """The named points of this program."""

    def __init__(self, directory: Path, rank: int) -> None:
        self.directory, self.rank = directory, rank

    def reach(self, point: str) -> None:
        place = self.directory / point
        try:
            asked = place.read_text()  # once: another rank may take it away
        except FileNotFoundError:
            return
        if asked == "raise":
            if self.rank == 0:
                place.unlink()
                raise RuntimeError(f"asked to fail at {point}")
            return
        if asked == "eat":
            if self.rank == 0:
                place.unlink()
                eat()
            return
        word, _, more = asked.partition(" ")
        if word in ("lock", "spin"):
            if self.rank + 1 == int(os.environ.get("WORLD_SIZE", "1")):
                place.unlink()
                hang(word)
            return
        if word == "slow":
            time.sleep(float(more))
            return
        (self.directory / f"{point}.reached-{self.rank}").write_text(os.environ.get("SUPERVISOR_ATTEMPT", ""))
        while place.exists():
            time.sleep(0.005)


def eat() -> None:
    """Take memory until somebody stops it, but not all of a machine whose limits do not hold."""
    taken = [bytearray(os.urandom(1 << 20) * 64) for _ in range(64)]
    raise RuntimeError(f"{len(taken) * 64} MiB were given")


def hang(how: str) -> None:
    """Never come back, in one of the ways in which programs do not."""
    lock = threading.Lock()
    lock.acquire()
    while how == "spin":
        sum(range(1000))
    lock.acquire()
