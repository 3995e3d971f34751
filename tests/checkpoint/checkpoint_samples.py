"""Small checkpoints for tests: whole ones, and whole trees to compare."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from killing import KILLED

from supervisor.checkpoint.commit import Committed, commit
from supervisor.checkpoint.manifest import Health
from supervisor.checkpoint.parts import Part, part_from_bytes

ROOT = Path(__file__).parents[2]
RUN = "run-a"


def safetensors(**tensors: bytes) -> bytes:
    """A safetensors file of one-dimensional byte tensors."""
    header, offset = {}, 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(tensors.values())


def contents(step: int, world_size: int = 2, size: int = 64) -> dict[str, bytes]:
    """What the files of a checkpoint hold; other steps hold other bytes."""
    fill = bytes([step % 251])
    state = {"step": step, "world_size": world_size, "ranks": {str(r): {"rng": "00"} for r in range(world_size)}}
    return {
        "adapter_config.json": b'{"peft_type": "LORA"}',
        "adapter_model.safetensors": safetensors(a=fill * size, b=b"b" * size),
        "optimizer.safetensors": safetensors(exp_avg=fill * size * 2),
        "rank-1.safetensors": safetensors(shard=fill * 8),
        "state.json": json.dumps(state).encode(),
        "trainer_state.json": b'{"log_history": [{"loss": NaN}]}',
    }


def parts(step: int, world_size: int = 2, size: int = 64) -> list[Part]:
    return [part_from_bytes(name, data) for name, data in contents(step, world_size, size).items()]


def commit_step(
    checkpoints: Path,
    step: int,
    *,
    run_id: str = RUN,
    lineage: int = 0,
    made_of: list[Part] | None = None,
    confirm: Callable[[], None] = lambda: None,
    health: Health | None = None,
) -> Committed:
    return commit(
        checkpoints,
        run_id=run_id,
        lineage=lineage,
        step=step,
        world_size=2,
        parts=parts(step) if made_of is None else made_of,
        confirm=confirm,
        clock=time.monotonic,
        health=health,
    )


def tree(directory: Path) -> dict[str, bytes | None]:
    """Every name below a directory and what it holds (None for a directory)."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
    }


def python(program: str, *arguments: object, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a little program that can import the project and this file."""
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*before, sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def killed_everywhere(root: Path, *, prepare: str, act: str) -> int:
    """Have ``act`` killed before each of its calls, in `root/1`, `root/2` …; how many places there were.

    Both are expressions over ``here``, the directory to work in.
    """
    program = f"""
import sys
from pathlib import Path
from killing import killed_at_every_call
from checkpoint_samples import *
from supervisor.checkpoint.aside import set_aside
from supervisor.checkpoint.final import write_final
from supervisor.checkpoint.retain import delete

killed_at_every_call(Path(sys.argv[1]), lambda here: {prepare}, lambda here: {act})
"""
    child = python(program, root)
    codes = [int(line) for line in child.stdout.splitlines()]
    assert codes == [KILLED] * (len(codes) - 1) + [0], child.stderr
    return len(codes) - 1
