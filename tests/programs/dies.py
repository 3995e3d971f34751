"""A program that dies in one of the ways that are told apart; it imports nothing heavy.

Usage: dies.py --out DIR --how segfault|killed|exit|gpu_oom|disk_full|value|wrapped|network|abort|eat
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

OOM = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 80.00 GiB of which 1.00 GiB is "
    "free. Process 7 has 70.00 GiB memory in use. Including non-PyTorch memory, this process has 9.00 GiB memory in use"
)


def fill() -> None:
    with open("/dev/full", "w") as file:
        file.write("x")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out")
    parser.add_argument("--how", required=True)
    match parser.parse_args().how:
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(7)
        case "gpu_oom":
            raise RuntimeError(OOM)
        case "disk_full":
            fill()
        case "value":
            raise ValueError("no such column")
        case "wrapped":
            try:
                fill()
            except OSError as error:
                raise RuntimeError("the cache could not be made") from error
        case "network":
            raise ConnectionRefusedError(111, "Connection refused")
        case "eat":  # within a group of processes that may have less than this
            kept = [bytearray(b"x" * (1 << 20)) for _ in range(2048)]
            raise RuntimeError(f"{len(kept)} MiB were given")
        case "abort":
            print("terminate called after throwing an instance of 'c10::Error'", file=sys.stderr)
            print("  what():  CUDA error: an illegal memory access was encountered", file=sys.stderr, flush=True)
            os.abort()


if __name__ == "__main__":
    main()
