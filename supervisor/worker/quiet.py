"""What libraries say that is of no use to whoever gave a command."""

from __future__ import annotations

import logging


def hush_advice() -> None:
    """Keep bitsandbytes' advice about a faster kernel for CPUs to itself; its errors are still heard.

    peft imports it wherever it is installed, whether or not anything is quantised.
    Source: bitsandbytes 0.50, backends/cpu/ops.py.
    """
    logging.getLogger("bitsandbytes.backends.cpu").setLevel(logging.ERROR)
