"""What to do when the file system keeps an attempt from starting: wait for it, without counting that as a failure.

Training under way needs no disk; a start does. A server that fails over is back within
minutes, and three barren attempts are over in seconds.
"""

from __future__ import annotations

import errno

#: What the kernel says of a file system that is gone, or of the empty place where it was mounted.
#: Not ENOSPC and EDQUOT, which a person has to mend, and not EACCES.
GONE = frozenset(
    {
        errno.EIO,
        errno.ENOENT,
        errno.ENOTCONN,
        errno.ENXIO,
        errno.EROFS,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
    }
)
#: From one try to the next [s].
RETRY_S = 5.0
#: Then a person has to look, and the allocation is not kept idle any longer [s].
PATIENCE_S = 600.0


def wait_for_storage_s(error_number: int | None, gone_s: float) -> float | None:
    """Seconds until a start is to be tried again that the file system refused.

    Args:
        error_number: errno of the refusal; None while unknown.
        gone_s: since the first of these refusals in a row [s].

    Returns:
        None if waiting does not help, or has not: then it is an attempt that failed.

    >>> wait_for_storage_s(errno.ESTALE, 0.0), wait_for_storage_s(errno.ENOSPC, 0.0)
    (5.0, None)
    >>> wait_for_storage_s(errno.EROFS, 598.0), wait_for_storage_s(errno.EROFS, 600.0)
    (2.0, None)
    """
    if error_number not in GONE or gone_s >= PATIENCE_S:
        return None
    return min(RETRY_S, PATIENCE_S - gone_s)
