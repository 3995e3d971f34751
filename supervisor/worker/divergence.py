"""Whether training has gone wrong, from the loss and the gradient norm of each step.

A number that is not finite is divergence at once: the next parameters are not finite either. A
high loss is not: a run is only thought to have diverged if its loss stays far above everything
it has been for a while. What it has been is not remembered over a restart, so nothing is called
a spike before enough steps have been seen.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

#: How many steps tell what is usual, and how many of them have to have been seen.
WINDOW, LEAST = 50, 20
#: How many robust standard deviations above the median are far away.
FAR = 12.0
#: A loss that has not doubled is none to throw steps away for.
TIMES = 2.0
#: So many steps in a row: a few odd batches are no divergence. Of 60 made-up curves of 4000 steps whose losses
#: spread over decades, 11 raised a false alarm with three; of 125 none did with five.
IN_A_ROW = 5
#: A median absolute deviation times this is the standard deviation of normal noise.
_SCALE = 1.4826


class Detector:
    """Remembers the last steps, and tells when they have gone wrong.

    Attributes:
        first: the first step that ever went wrong, None while none has.
        bad: whether the newest state is one that has.
    """

    def __init__(self, *, spikes: bool = True) -> None:
        """Begin with an empty memory.

        Args:
            spikes: whether a loss that rises counts, too; of many ranks one is enough, since each that
                looks adds its own false alarms.
        """
        self.first: int | None = None
        self.bad = False
        self._spikes = spikes
        self._usual: deque[float] = deque(maxlen=WINDOW)
        self._high: list[float] = []

    def see(self, step: int, loss: float | None, grad_norm: float | None) -> bool:
        """One more step; whether it has gone wrong.

        Args:
            step: its number.
            loss: mean over its micro-batches, None while unknown.
            grad_norm: before clipping, None while unknown.

        >>> detector = Detector()
        >>> [detector.see(1, 2.0, 0.5), detector.see(2, 2.1, float("inf")), detector.see(3, 2.0, 0.5)]
        [False, True, False]
        >>> detector.first
        2
        """
        if any(value is not None and not math.isfinite(value) for value in (loss, grad_norm)):
            self._wrong(step)
        else:
            self.bad = loss is not None and self._spikes and self._rises(step, loss)
        return self.bad

    def _wrong(self, first: int) -> None:
        self.bad = True
        if self.first is None:
            self.first = first

    def _rises(self, step: int, loss: float) -> bool:
        if self._far(loss):
            self._high.append(loss)
            if len(self._high) >= IN_A_ROW:
                self._wrong(step - IN_A_ROW + 1 if len(self._high) == IN_A_ROW else step)
            return len(self._high) >= IN_A_ROW
        if len(self._high) < IN_A_ROW:
            self._usual.extend(self._high)  # single odd batches are usual here
        self._high.clear()
        self._usual.append(loss)
        return False

    def _far(self, loss: float) -> bool:
        if len(self._usual) < LEAST or min(self._usual) <= 0:
            return False  # a loss that may be negative has no scale
        middle = median(self._usual)
        spread = _SCALE * median(abs(one - middle) for one in self._usual)
        return loss > max(TIMES * middle, middle + FAR * spread, *self._usual)
