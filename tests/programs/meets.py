"""tiny_trainer, which meets with something on its way, once or every time.

Usage: meets.py --how crash|refused|neighbour|enospc|hub|hunger [--at STEP] [--times N] [--where PLACE]
[OPTIONS OF tiny_trainer], where STEP 0 is before training. What it meets is real but for the neighbour on the GPU:
a port that nobody listens on, the disk at PLACE full, the hub (HF_ENDPOINT) asked for a file of `org/tiny`,
data-loader workers that take 800 MiB each.
"""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path

import tiny_trainer
import torch

OOM = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 80.00 GiB of which 1.00 GiB is "
    "free. Process 7 has 70.00 GiB memory in use. Including non-PyTorch memory, this process has 9.00 GiB memory in use"
)
HUNGER_BYTES = 800 << 20


class Hungry(tiny_trainer.Numbers):
    """Rows for training, of which each loader's process keeps more than it needs."""

    kept: bytes = b""

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not self.kept and len(self) > 12 and torch.utils.data.get_worker_info() is not None:
            self.kept = b"x" * HUNGER_BYTES
        return super().__getitem__(index)


class Meets(tiny_trainer.Trace):
    """Meets with it at the end of a step."""

    options: argparse.Namespace

    def on_step_end(self, args, state, control, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super().on_step_end(args, state, control, **kwargs)
        if state.global_step == self.options.at:
            meet(self.options)


def meet(options: argparse.Namespace) -> None:
    """Meet with it, unless it came as often as it was to come."""
    count = options.out / "met"
    met = len(count.read_text()) if count.exists() else 0
    if met >= options.times:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    count.write_text("x" * (met + 1))
    match options.how:
        case "crash":
            raise RuntimeError("it went wrong")
        case "refused":
            with socket.socket() as nobody:
                nobody.bind(("127.0.0.1", 0))  # bound, so that nobody else listens there, and deaf
                socket.create_connection(nobody.getsockname())
        case "neighbour":
            raise torch.OutOfMemoryError(OOM)
        case "enospc":
            with options.where.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)
        case "hub":
            from huggingface_hub import hf_hub_download

            hf_hub_download("org/tiny", "answer.json")


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--how", required=True)
    parser.add_argument("--at", type=int, default=0)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--where", type=Path)
    options, rest = parser.parse_known_args()
    options.out = Path(rest[rest.index("--out") + 1])
    sys.argv[1:] = rest
    if options.how == "hunger":
        tiny_trainer.Numbers = Hungry  # type: ignore[misc]
    elif options.at:
        Meets.options = options
        tiny_trainer.Trace = Meets  # type: ignore[misc]
    else:
        meet(options)
    tiny_trainer.main()


if __name__ == "__main__":
    main()
