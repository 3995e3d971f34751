"""A small file, whole or not at all: written beside its place, for its user alone, and moved there.

What it does not do: sync. Whoever needs it after the machine has gone down commits it.
"""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Put a file in place, also of an older one.

    Raises:
        OSError: it could not be written; what was there is as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.touch(mode=0o600)
    partial.write_text(text)
    partial.replace(path)
