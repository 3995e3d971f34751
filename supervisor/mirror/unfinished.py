"""What a killed writer leaves in a directory that serves as a store: an unfinished file beside its final name.

Source: object_store's LocalFileSystem writes to `<name>#<number>`, and does not list such names.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

_UNFINISHED = re.compile(r".+#[0-9]+")


def sweep(url: str) -> int:
    """Remove what no living writer of ours can be writing; only the lease's owner may.

    Returns:
        How many files are gone; 0 for a store that is no directory.
    """
    if not url.startswith("file://"):
        return 0
    place, gone = Path(unquote(urlsplit(url).path)), 0
    for path in [one for one in place.rglob("*#*") if _UNFINISHED.fullmatch(one.name)]:
        with suppress(OSError):
            path.unlink()
            gone += 1
    return gone
