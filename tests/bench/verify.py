"""What verifying a checkpoint of 480 MB costs, against reading the same files once.

Both warm, in one process and turn by turn. Reading is the plainest there is: `read`
in pieces of a mebibyte. Verification reads, hashes with xxh3-128, and looks at every header.

Run it (exit 1 if verification takes more than 1.5 times as long):
    python tests/bench/verify.py --dir /some/disk --rounds 9
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from supervisor.checkpoint.commit import commit
from supervisor.checkpoint.parts import Part, part_from_bytes
from supervisor.checkpoint.verify import Intact, verify

TENSORS = 320
ADAPTER_BYTES = 500_000  # of each tensor; moments are twice that
MOST = 1.5
PIECE = 2**20


def main() -> None:
    arguments = argparse.ArgumentParser(description="verify, against reading")
    arguments.add_argument("--dir", type=Path, default=Path.cwd(), help="a directory on the disk to measure")
    arguments.add_argument("--rounds", type=int, default=9)
    given = arguments.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="bench-verify-", dir=given.dir) as disk:
        sys.exit(measure(make(Path(disk)), given.rounds))


def measure(checkpoint: Path, rounds: int) -> int:
    verified, plain = [], []
    read_plainly(checkpoint)  # warm
    for n in range(rounds):
        for measured in (verified, plain) if n % 2 else (plain, verified):
            began = time.perf_counter()
            if measured is verified:
                assert isinstance(verify(checkpoint, "bench"), Intact)
            else:
                read_plainly(checkpoint)
            measured.append(time.perf_counter() - began)
    total = sum(path.stat().st_size for path in checkpoint.iterdir())
    ratio = statistics.median(verified) / statistics.median(plain)
    for what, times in ((f"verify of {total / 1e6:.0f} MB", verified), ("plain read", plain)):
        print(f"{what}: {statistics.median(times) * 1e3:.0f} ms ({', '.join(f'{s * 1e3:.0f}' for s in times)})")
    print(f"ratio {ratio:.2f}, at most {MOST}")
    return int(ratio > MOST)


def make(disk: Path) -> Path:
    state = {"step": 1, "world_size": 1, "ranks": {"0": {"rng": "00" * 5056}}}
    names = [f"layer.{n}.lora_A.weight" for n in range(TENSORS)]
    return commit(
        disk / "checkpoints",
        run_id="bench",
        lineage=0,
        step=1,
        world_size=1,
        parts=[
            tensors("adapter_model.safetensors", names),
            tensors("optimizer.safetensors", [f"{name}.{m}" for name in names for m in ("exp_avg", "exp_avg_sq")]),
            part_from_bytes("adapter_config.json", b"{}"),
            part_from_bytes("trainer_state.json", b"{}"),
            part_from_bytes("state.json", json.dumps(state).encode()),
        ],
        confirm=lambda: None,
        clock=time.monotonic,
    ).path


def tensors(file: str, names: list[str]) -> Part:
    spans = [[n * ADAPTER_BYTES, (n + 1) * ADAPTER_BYTES] for n in range(len(names))]
    header = json.dumps(
        {
            name: {"dtype": "F32", "shape": [ADAPTER_BYTES // 4], "data_offsets": span}
            for name, span in zip(names, spans, strict=True)
        }
    ).encode()

    def pieces() -> Iterator[bytes]:
        yield len(header).to_bytes(8, "little") + header
        for _ in names:
            yield os.urandom(ADAPTER_BYTES)

    return Part(file, 8 + len(header) + len(names) * ADAPTER_BYTES, pieces)


def read_plainly(checkpoint: Path) -> None:
    for path in checkpoint.iterdir():
        with path.open("rb", buffering=0) as file:
            while file.read(PIECE):
                pass


if __name__ == "__main__":
    main()
