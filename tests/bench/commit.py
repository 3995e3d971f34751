"""What a commit of 480 MB costs, against the stock way, and what training feels of it.

The state is 40 M trainable parameters with AdamW's two moments, as the board
holds it. The commit, whole (copy, hash, sync, rename), is compared with what the stock Trainer does for the
same state (`save_file` for the adapter, `torch.save` for the optimizer) plus the
sync that it leaves out, turn by turn, since disks have moods.

Then a process makes optimizer steps on one thread while this one commits now and then: the steps that a commit
overlapped are set beside the others. That needs a core to spare: it is printed and judged nowhere.

Run it (exit 1 if a commit takes longer than the stock way):
    python tests/bench/commit.py --dir /some/disk --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from supervisor.checkpoint.commit import commit
from supervisor.checkpoint.parts import Part, part_from_bytes, part_from_range

TENSORS = 320
ELEMENTS = 125_000  # 320 x 125,000 x 4 bytes = 160 MB, and twice that in moments
PAUSE_S = 1.0
STEPS = """
import sys, time, torch
torch.set_num_threads(1)
model = torch.nn.Sequential(*(torch.nn.Linear(512, 512) for _ in range(6)))
adam = torch.optim.AdamW(model.parameters())
rows = torch.randn(256, 512)
while True:
    began = time.monotonic()
    model(rows).square().mean().backward()
    adam.step()
    adam.zero_grad()
    print(began, time.monotonic(), flush=True)
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description="a commit, against the stock way, and beside training")
    arguments.add_argument("--dir", type=Path, default=Path.cwd(), help="a directory on the disk to measure")
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with (
        tempfile.TemporaryDirectory(prefix="bench-commit-", dir=given.dir) as disk,
        tempfile.TemporaryDirectory(prefix="bench-board-", dir="/dev/shm") as board,
    ):
        sys.exit(measure(Path(disk), Path(board), given.rounds))


def measure(disk: Path, board: Path, rounds: int) -> int:
    adapter = {f"layer.{n}.lora_A.weight": torch.randn(ELEMENTS) for n in range(TENSORS)}
    moments = {f"{name}.{m}": torch.randn(ELEMENTS) for name in adapter for m in ("exp_avg", "exp_avg_sq")}
    save_file(adapter, board / "adapter")
    save_file(moments, board / "optimizer")
    parts = make_parts(board)
    ours, stock = [], []
    for n in range(1, rounds + 1):
        for measured in (ours, stock) if n % 2 else (stock, ours):
            os.sync()
            began = time.perf_counter()
            if measured is ours:
                commit_one(disk / "ours", 1, parts)
            else:
                save_stock(disk / "stock", adapter, moments)
            measured.append(time.perf_counter() - began)
        shutil.rmtree(disk / "ours")
        shutil.rmtree(disk / "stock")
    ours_s, stock_s = statistics.median(ours), statistics.median(stock)
    total = sum(part.size for part in parts)
    print(f"commit of {total / 1e6:.0f} MB: {ours_s:.3f} s ({', '.join(f'{s:.3f}' for s in ours)})")
    print(f"  save_file + torch.save + fsync: {stock_s:.3f} s ({', '.join(f'{s:.3f}' for s in stock)})")
    print(f"  ratio {ours_s / stock_s:.2f}")
    beside_training(disk, parts, rounds)
    return int(ours_s > stock_s)


def beside_training(disk: Path, parts: list[Part], rounds: int) -> None:
    """Print how long steps take that a commit overlaps, and those between commits."""
    training = subprocess.Popen([sys.executable, "-c", STEPS], stdout=subprocess.PIPE, text=True)
    assert training.stdout is not None
    training.stdout.readline()  # the first step is over: all is imported
    commits = []
    for step in range(rounds):
        time.sleep(PAUSE_S)  # what is measured beside commits is steps without one
        began = time.monotonic()
        commit_one(disk / "beside", step, parts)
        commits.append((began, time.monotonic()))
    training.terminate()
    steps = [tuple(map(float, line.split())) for line in training.stdout.read().splitlines() if line.count(" ") == 1]
    training.wait()
    during = [end - begin for begin, end in steps if any(begin < until and end > since for since, until in commits)]
    first, last = commits[0][0] - PAUSE_S / 2, commits[-1][1]
    between = [e - b for b, e in steps if first < b < last and not any(b < u and e > s for s, u in commits)]
    slower = statistics.mean(during) / statistics.mean(between) - 1
    print(f"steps of {statistics.mean(between) * 1e3:.1f} ms ({len(between)} of them between commits)")
    print(f"  during a commit: {statistics.mean(during) * 1e3:.1f} ms ({len(during)} of them), {slower:+.1%}")


def make_parts(board: Path) -> list[Part]:
    return [
        part_from_range("adapter_model.safetensors", board / "adapter", 0, (board / "adapter").stat().st_size),
        part_from_range("optimizer.safetensors", board / "optimizer", 0, (board / "optimizer").stat().st_size),
        part_from_bytes("adapter_config.json", b"{}"),
        part_from_bytes("trainer_state.json", b"{}"),
    ]


def commit_one(checkpoints: Path, step: int, parts: list[Part]) -> Path:
    state = {"step": step, "world_size": 1, "ranks": {"0": {"rng": "00" * 5056}}}
    return commit(
        checkpoints,
        run_id="bench",
        lineage=0,
        step=step,
        world_size=1,
        parts=[*parts, part_from_bytes("state.json", json.dumps(state).encode())],
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


if __name__ == "__main__":
    main()
