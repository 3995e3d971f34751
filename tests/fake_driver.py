"""A driver without a GPU, made of a C file and a text file; for the real pynvml to load."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_SOURCE = Path(__file__).parent / "fake_nvml.c"


@dataclass
class Driver:
    """What the driver does is what the file says, see fake_nvml.c."""

    file: Path
    environment: dict[str, str]

    def does(self, *lines: str) -> None:
        """From now on; in one step, for it may be reading."""
        partial = self.file.with_suffix(".new")
        partial.write_text("".join(line + "\n" for line in lines))
        partial.rename(self.file)


def build(directory: Path) -> Path:
    """Compile the library; skips the test without a compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make a driver with: apt-get install gcc libc6-dev")
    made = directory / "libnvidia-ml.so.1"
    if not made.exists():
        subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(made), str(_SOURCE)], check=True)
    return directory


def driver_in(directory: Path, library: Path) -> Driver:
    """One of two GPUs, in perfect health."""
    file = directory / "driver.txt"
    made = Driver(file, {**os.environ, "LD_LIBRARY_PATH": str(library), "FAKE_NVML": str(file)})
    made.does("gpus 2")
    return made
