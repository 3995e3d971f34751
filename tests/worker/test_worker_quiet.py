"""A command's talk is its own: a library's advice stays out of it, its errors do not."""

from __future__ import annotations

import json
import subprocess
import sys

SPEAKS = """
import logging
from supervisor.worker.exporting import answer

def write(checkpoint, target, request):
    voice = logging.getLogger("bitsandbytes.backends.cpu.ops")
    voice.warning("please make sure that you `pip install kernels`")
    voice.error("the native library is broken")
    return []

answer({"any": write})
"""


def test_advice_of_bitsandbytes_is_not_passed_on_and_an_error_is() -> None:
    request = json.dumps({"form": "any", "checkpoint": "c", "target": "t"})
    done = subprocess.run(
        [sys.executable, "-c", SPEAKS], input=request, capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout) == {"remarks": []}
    assert done.stderr == "the native library is broken\n"
