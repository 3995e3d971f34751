"""The supervisor imports the job section; it must not pay for torch."""

import subprocess
import sys

PROGRAM = """
import sys
import jobs.lora
from jobs.lora_args import LoraArgs, check
from pathlib import Path
check(LoraArgs(model="org/model", data="org/data"), Path.cwd())
heavy = {"torch", "transformers", "peft", "datasets", "accelerate", "pyarrow", "numpy"} & set(sys.modules)
sys.exit(f"imported {sorted(heavy)}" if heavy else 0)
"""


def test_importing_and_checking_a_job_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
