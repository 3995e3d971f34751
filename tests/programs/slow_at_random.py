"""The tiny trainer, with steps, evaluations and saves whose lengths have heavy tails.

Usage: slow_at_random.py --slow-seed N [OPTIONS OF tiny_trainer.py]

Every pause of more than a second is written to `DIR/slowness-<rank>`. Ranks draw for themselves, so they wait for each
other as well.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import tiny_trainer

#: Median [s], sigma of the logarithm, and the longest that is drawn [s].
STEP, BATCH, SAVE = (0.05, 1.6, 25.0), (0.1, 1.8, 40.0), (3.0, 1.0, 60.0)


class Slow(tiny_trainer.Places):
    """Pauses of random length at the points where others look for faults."""

    def reach(self, point: str) -> None:
        what = point.partition("-")[0]
        drawn = {"step": STEP, "evaluation": BATCH, "save": SAVE}.get(what)
        if drawn is None:
            return
        median_s, sigma, most_s = drawn
        pause_s = min(median_s * RANDOM.lognormvariate(0.0, sigma), most_s)
        if pause_s > 1.0:
            with (self.directory.parent / f"slowness-{self.rank}").open("a") as file:
                file.write(f"{point} {pause_s:.2f}\n")
        time.sleep(pause_s)


if __name__ == "__main__":
    at = sys.argv.index("--slow-seed")
    RANDOM = random.Random(f"{sys.argv[at + 1]}/{os.environ.get('RANK', '0')}")
    del sys.argv[at : at + 2]
    out = Path(sys.argv[sys.argv.index("--out") + 1])
    out.mkdir(parents=True, exist_ok=True)
    (out / f"slowness-{os.environ.get('RANK', '0')}").touch()
    tiny_trainer.Places = Slow  # type: ignore[misc]
    tiny_trainer.main()
