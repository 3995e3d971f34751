"""What a commit of 480 MB costs, and what verifying it costs.

The state is 40 M trainable parameters with AdamW's two moments, as the board
holds it. The commit is compared with what the stock Trainer does for the same
state (`save_file` for the adapter, `torch.save` for the optimizer) plus the
sync that it leaves out; the verification with reading the same files once.
All of it in one process, turn by turn, since disks have moods.

Run it:
    python tests/bench/commit.py --dir /some/disk --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from supervisor.checkpoint.commit import commit
from supervisor.checkpoint.parts import part_from_bytes, part_from_range
from supervisor.checkpoint.verify import Intact, verify

TENSORS = 320
ELEMENTS = 125_000  # 320 x 125,000 x 4 bytes = 160 MB, and twice that in moments
PLAIN_PIECE = 2**20


def main() -> None:
    arguments = argparse.ArgumentParser(description="commit and verify, against the stock way")
    arguments.add_argument("--dir", type=Path, default=Path.cwd(), help="a directory on the disk to measure")
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="bench-commit-", dir=given.dir) as disk,
        tempfile.TemporaryDirectory(prefix="bench-board-", dir="/dev/shm") as board,
    ):
        measure(Path(disk), Path(board), given.rounds)


def measure(disk: Path, board: Path, rounds: int) -> None:
    adapter = {f"layer.{n}.lora_A.weight": torch.randn(ELEMENTS) for n in range(TENSORS)}
    moments = {f"{name}.{m}": torch.randn(ELEMENTS) for name in adapter for m in ("exp_avg", "exp_avg_sq")}
    save_file(adapter, board / "adapter")
    save_file(moments, board / "optimizer")
    parts = make_parts(board)
    total = sum(part.size for part in parts)
    ours, stock, verified, plain = [], [], [], []
    for n in range(1, rounds + 1):
        for measured in (ours, stock) if n % 2 else (stock, ours):
            os.sync()
            began = time.perf_counter()
            if measured is ours:
                done = commit_one(disk / "ours", n, parts)
            else:
                save_stock(disk / "stock", adapter, moments)
            measured.append(time.perf_counter() - began)
        for path in done.iterdir():
            read_plainly(path)  # warm
        for measured in (verified, plain) if n % 2 else (plain, verified):
            began = time.perf_counter()
            if measured is verified:
                assert isinstance(verify(done, "bench"), Intact)
            else:
                for path in done.iterdir():
                    read_plainly(path)
            measured.append(time.perf_counter() - began)
        shutil.rmtree(disk / "ours")
        shutil.rmtree(disk / "stock")
    report("commit", total, ours, "save_file + torch.save + fsync", stock)
    report("verify", total, verified, "plain read", plain)


def make_parts(board: Path) -> list:
    state = {"step": 1, "world_size": 1, "ranks": {"0": {"rng": "00" * 5056}}}
    return [
        part_from_range("adapter_model.safetensors", board / "adapter", 0, (board / "adapter").stat().st_size),
        part_from_range("optimizer.safetensors", board / "optimizer", 0, (board / "optimizer").stat().st_size),
        part_from_bytes("adapter_config.json", b"{}"),
        part_from_bytes("trainer_state.json", b"{}"),
        part_from_bytes("state.json", json.dumps(state).encode()),
    ]


def commit_one(checkpoints: Path, n: int, parts: list) -> Path:
    return commit(
        checkpoints,
        run_id="bench",
        lineage=0,
        step=1,
        world_size=1,
        parts=parts,
        confirm=lambda: None,
        clock=time.monotonic,
    ).path


def save_stock(directory: Path, adapter: dict, moments: dict) -> None:
    directory.mkdir()
    save_file(adapter, directory / "adapter_model.safetensors")
    torch.save(moments, directory / "optimizer.pt")
    for path in [*directory.iterdir(), directory]:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def read_plainly(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(PLAIN_PIECE):
            pass


def report(what: str, total: int, ours: list[float], other: str, theirs: list[float]) -> None:
    ours_s, theirs_s = statistics.median(ours), statistics.median(theirs)
    print(f"{what} of {total / 1e6:.0f} MB: {ours_s:.3f} s ({', '.join(f'{s:.3f}' for s in ours)})")
    print(f"  {other}: {theirs_s:.3f} s ({', '.join(f'{s:.3f}' for s in theirs)})")
    print(f"  ratio {ours_s / theirs_s:.2f}")


if __name__ == "__main__":
    main()
