"""Damage of every kind that disks, copies and people do to a checkpoint, drawn at random.

A kind takes a `Scene` and does one thing to the newest checkpoint; what it returns are the words of
which a verdict's reason has to hold one. Some draws change nothing (a swap of two equal blocks):
`Scene.is_damaged` compares bytes, and `damage` draws again.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from checkpoint_samples import RUN, contents, safetensors

from supervisor.checkpoint.commit import commit
from supervisor.checkpoint.parts import part_from_bytes
from supervisor.journal import Journal

OLDER, NEWEST = 20, 30
MANIFEST = "manifest.json"


def write_checkpoint(checkpoints: Path, step: int, chance: random.Random, run_id: str = RUN) -> dict[str, bytes]:
    """Commit one whose tensors are random bytes; what its files hold, the manifest's too."""
    files = contents(step)
    files["adapter_model.safetensors"] = safetensors(a=chance.randbytes(3000), b=chance.randbytes(3000))
    files["optimizer.safetensors"] = safetensors(exp_avg=chance.randbytes(6000), exp_avg_sq=chance.randbytes(6000))
    made = commit(
        checkpoints,
        run_id=run_id,
        lineage=0,
        step=step,
        world_size=2,
        parts=[part_from_bytes(name, data) for name, data in files.items()],
        confirm=lambda: None,
        clock=time.monotonic,
    )
    return {path.name: path.read_bytes() for path in made.path.iterdir()}


@dataclass
class Scene:
    """A run directory with two checkpoints, of which the newest is damaged and mended again and again.

    Attributes:
        run_dir: of the run.
        chance: where damage is drawn from.
        whole: what the newest holds.
        older: what the other one holds.
        strange: what the same step of another run holds.
    """

    run_dir: Path
    chance: random.Random
    whole: dict[str, bytes] = field(init=False)
    older: dict[str, bytes] = field(init=False)
    strange: dict[str, bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.run_dir.mkdir()
        self.older = write_checkpoint(self.checkpoints, OLDER, self.chance)
        self.whole = write_checkpoint(self.checkpoints, NEWEST, self.chance)
        other = self.run_dir / "other"
        self.strange = write_checkpoint(other, NEWEST, self.chance, run_id="run-b")
        shutil.rmtree(other)
        journal = Journal.open(self.run_dir, time.time, "here")
        journal.append("run_started", run_id=RUN)
        for step in (OLDER, NEWEST):
            journal.append("checkpoint_committed", step=step, lineage=0, path=f"checkpoints/checkpoint-{step}")
        journal.close()

    @property
    def checkpoints(self) -> Path:
        return self.run_dir / "checkpoints"

    @property
    def newest(self) -> Path:
        return self.checkpoints / f"checkpoint-{NEWEST}"

    def any_name(self) -> str:
        return self.chance.choice(sorted(self.whole))

    def mend(self) -> None:
        """Put the newest back as it was committed, and forget what was set aside."""
        shutil.rmtree(self.run_dir / "torn", ignore_errors=True)
        clear(self.newest)
        self.newest.mkdir(mode=0o700)
        fill(self.newest, self.whole)

    def is_damaged(self) -> bool:
        """Whether anything that was committed is not there as it was."""
        if not self.newest.is_dir() or self.newest.is_symlink():
            return True
        return any(not is_whole(self.newest / name, data) for name, data in self.whole.items())


def clear(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


def fill(directory: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (directory / name).write_bytes(data)


def is_whole(path: Path, data: bytes) -> bool:
    try:
        status = path.lstat()
        return stat.S_ISREG(status.st_mode) and status.st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False


def edited(change: Callable[[bytearray, random.Random], None]) -> Callable[[Scene], list[str]]:
    """A kind that changes the bytes of one file."""

    def kind(scene: Scene) -> list[str]:
        name = scene.any_name()
        data = bytearray(scene.whole[name])
        change(data, scene.chance)
        (scene.newest / name).write_bytes(data)
        return [name]

    return kind


def span(data: bytearray, chance: random.Random) -> slice:
    """A block as disks have them, or a few bytes."""
    size = chance.choice([1, 8, 64, 512, 4096])
    at = chance.randrange(len(data)) // size * size
    return slice(at, min(at + size, len(data)))


def flip_bits(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice([1, 1, 1, 2, 9])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.choice([0, len(data) - 1, chance.randrange(len(data))]) :]


def zero(data: bytearray, chance: random.Random) -> None:
    block = span(data, chance)
    data[block] = bytes(block.stop - block.start)


def zero_all(data: bytearray, chance: random.Random) -> None:
    data[:] = bytes(len(data))


def scribble(data: bytearray, chance: random.Random) -> None:
    block = span(data, chance)
    data[block] = chance.randbytes(block.stop - block.start)


def misdirect(data: bytearray, chance: random.Random) -> None:
    """A block lands where another belongs."""
    block = span(data, chance)
    size = block.stop - block.start
    source = chance.randrange(len(data) - size + 1)
    data[block] = data[source : source + size]


def lose_block(data: bytearray, chance: random.Random) -> None:
    del data[span(data, chance)]


def repeat_block(data: bytearray, chance: random.Random) -> None:
    block = span(data, chance)
    data[block.stop : block.stop] = data[block]


def extend(data: bytearray, chance: random.Random) -> None:
    size = chance.choice([1, 512, 4096])
    data += chance.choice([bytes(size), chance.randbytes(size), b" " * size, b"\n" * size])


def double(data: bytearray, chance: random.Random) -> None:
    data += bytes(data)


def count_differently(data: bytearray, chance: random.Random) -> None:
    """One digit becomes another one: a step, a size, an offset, a digest."""
    digits = [at for at, byte in enumerate(data) if chr(byte) in "0123456789"]
    if digits:
        data[chance.choice(digits)] = ord(chance.choice("0123456789"))


def line_ends(data: bytearray, chance: random.Random) -> None:
    """What a copy in text mode does."""
    data[:] = data.replace(b"\n", b"\r\n")


def gone(scene: Scene) -> list[str]:
    name = scene.any_name()
    (scene.newest / name).unlink()
    return [name, "no manifest"]


def swapped(scene: Scene) -> list[str]:
    one, other = scene.chance.sample(sorted(scene.whole), 2)
    (scene.newest / one).write_bytes(scene.whole[other])
    (scene.newest / other).write_bytes(scene.whole[one])
    return [one, other]


def copied_over(scene: Scene) -> list[str]:
    one, other = scene.chance.sample(sorted(scene.whole), 2)
    (scene.newest / other).write_bytes(scene.whole[one])
    return [other]


def of_older_step(scene: Scene) -> list[str]:
    name = scene.any_name()
    (scene.newest / name).write_bytes(scene.older[name])
    return [name, "named checkpoint-30, but committed as step 20"]


def of_other_run(scene: Scene) -> list[str]:
    name = scene.any_name()
    (scene.newest / name).write_bytes(scene.strange[name])
    return [name, "of another run (run-b)"]


def all_of_older_step(scene: Scene) -> list[str]:
    fill(scene.newest, scene.older)
    return ["named checkpoint-30, but committed as step 20"]


def all_of_other_run(scene: Scene) -> list[str]:
    fill(scene.newest, scene.strange)
    return ["of another run (run-b)"]


def mixed_with_older(scene: Scene) -> list[str]:
    """A copy that was begun and not finished: some files are of another step."""
    names = scene.chance.sample(sorted(scene.whole), scene.chance.randrange(1, len(scene.whole)))
    fill(scene.newest, {name: scene.older[name] for name in names})
    return [*names, "named checkpoint-30, but committed as step 20"]


def link_to_older(scene: Scene) -> list[str]:
    name = scene.any_name()
    (scene.newest / name).unlink()
    (scene.newest / name).symlink_to(scene.checkpoints / f"checkpoint-{OLDER}" / name)
    return [name]


def link_to_the_same(scene: Scene) -> list[str]:
    """The right bytes, but somewhere else, where others may change them."""
    name = scene.any_name()
    elsewhere = scene.run_dir / "elsewhere"
    elsewhere.write_bytes(scene.whole[name])
    (scene.newest / name).unlink()
    (scene.newest / name).symlink_to(elsewhere)
    return [name]


def link_in_a_ring(scene: Scene) -> list[str]:
    name = scene.any_name()
    (scene.newest / name).unlink()
    (scene.newest / name).symlink_to(name)
    return [name]


def all_a_link(scene: Scene) -> list[str]:
    clear(scene.newest)
    scene.newest.symlink_to(scene.checkpoints / f"checkpoint-{OLDER}")
    return ["not a directory of its own"]


def no_file(scene: Scene) -> list[str]:
    name = scene.any_name()
    (scene.newest / name).unlink()
    if scene.chance.random() < 0.5:
        (scene.newest / name).mkdir()
    else:
        os.mkfifo(scene.newest / name)
    return [name]


def with_a_hole(scene: Scene) -> list[str]:
    """A length without data, as after a crash on some file systems: a terabyte of nothing."""
    name = scene.any_name()
    os.truncate(scene.newest / name, scene.chance.choice([2**20, 2**32, 2**40]))
    return [name]


def emptied(scene: Scene) -> list[str]:
    for name in scene.whole:
        (scene.newest / name).unlink()
    return ["empty"]


def twice(scene: Scene) -> list[str]:
    """Two files are hurt at once."""
    return [*edited(flip_bits)(scene), *edited(cut)(scene)]


KINDS: dict[str, Callable[[Scene], list[str]]] = {
    **{
        change.__name__: edited(change)
        for change in (
            *(flip_bits, cut, zero, zero_all, scribble, misdirect, lose_block, repeat_block, extend, double),
            *(count_differently, line_ends),
        )
    },
    **{
        kind.__name__: kind
        for kind in (
            *(gone, swapped, copied_over, of_older_step, of_other_run, all_of_older_step, all_of_other_run),
            *(mixed_with_older, link_to_older, link_to_the_same, link_in_a_ring, all_a_link, no_file, with_a_hole),
            *(emptied, twice),
        )
    },
}


def damage(scene: Scene, kind: str) -> list[str]:
    """Damage the newest checkpoint for certain; words of which the reason has to hold one."""
    for _ in range(1000):
        named = KINDS[kind](scene)
        if scene.is_damaged():
            return named
        scene.mend()
    raise AssertionError(f"{kind} never changed anything")
