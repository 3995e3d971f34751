"""Memory runs out in the middle: is the rest of the training what a small micro-batch would have given from the start?

Measured: a tiny LoRA on the CPU, rows of 4 to 16 tokens, no dropout (which micro-batches of another size would
draw in another order), AdamW. One run takes 4 samples of each rank at a time until half of its steps are done;
then what does not fit raises torch's OutOfMemoryError, on the last rank alone, and it goes on with 1, after 2
did not fit either. The other run takes 1 from the start, 4 times a step. Compared: the samples of every step, the
losses, the adapter. Also compared: a run that takes 4 all the time, as if memory had been enough. The control is
a run with 1 sample and no accumulation to make up for it, to show how far apart runs are whose steps are other ones.

Not shown: GPUs, whose sums are less exact; models that are trained in bfloat16.

Run it (exit 1 unless every step has the same samples and the losses are less than 1e-4 apart):
    python -m tests.bench.out_of_memory --steps 60
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from tests.harness import Run, redone
from tests.small_runs import changes, difference, finished, losses, run_of, steps

MOST = 1e-4


def main() -> None:
    arguments = argparse.ArgumentParser(description="an adapted run against one that was small from the start")
    arguments.add_argument("--steps", type=int, default=60)
    given = arguments.parse_args()
    base = Path(tempfile.mkdtemp(prefix="bench-oom-"))
    good = True
    for program, ranks in (("transformers", 1), ("transformers", 2), ("trl", 1)):
        name = f"{program}-{ranks}"
        gpu = {"fits": 1, "ranks": [ranks - 1], "from_sample": 4 * (given.steps // 2)}
        args = {"max_steps": given.steps, "rows": 128, "trl": program == "trl"}
        adapted = finished(run_of(base / f"{name}-adapted", gpu, ranks, **args))
        small = finished(run_of(base / f"{name}-small", {}, ranks, **args, batch=1, accumulate=4))
        large = finished(run_of(base / f"{name}-large", {}, ranks, **args))
        control = finished(run_of(base / f"{name}-control", {}, ranks, **args, batch=1))
        same = steps(adapted, 4 * ranks) == steps(small, 4 * ranks)
        apart = largest(adapted, small)
        told = {
            "program": program,
            "ranks": ranks,
            "steps": given.steps,
            "adapted": [one["micro_batch"] for one in changes(adapted)],
            "steps_redone": sum(redone(adapted)),
            "same_samples_in_every_step": same,
            "loss_apart": apart,
            "adapter_apart": difference(adapted, small),
            "loss_apart_from_large": largest(adapted, large),
            "control_loss_apart": largest(control, small),
        }
        print(json.dumps(told), flush=True)
        good &= same and apart < MOST and len(losses(adapted)) == given.steps
    shutil.rmtree(base)
    raise SystemExit(0 if good else 1)


def largest(one: Run, other: Run) -> float:
    """Relative difference of two loss curves."""
    return max(abs(a - b) / b for a, b in zip(losses(one), losses(other), strict=True))


if __name__ == "__main__":
    main()
