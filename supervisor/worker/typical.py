"""What something usually takes."""

from __future__ import annotations

import math
from collections import deque


class Typical:
    """The median of the last measurements: what something usually takes, whatever the machine did once.

    An average would not do: on a busy machine single snapshots take many times their usual
    time, and a run that thinned them out for that would lose settled steps for nothing.
    """

    def __init__(self, window: int = 15, least: int = 5) -> None:
        self._recent: deque[float] = deque(maxlen=window)
        self._least = least

    def add(self, measured_s: float) -> float:
        """The median so far [s], NaN while too few have been seen; NaN is no measurement.

        >>> typical = Typical(window=3, least=2)
        >>> typical.add(1.0), typical.add(9.0), typical.add(2.0)
        (nan, 9.0, 2.0)
        """
        if not math.isnan(measured_s):
            self._recent.append(measured_s)
        if len(self._recent) < self._least:
            return float("nan")
        return sorted(self._recent)[len(self._recent) // 2]
