"""Sweeps: several values for some keys, and a run for each combination of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import yaml

from supervisor.errors import JobError

#: SLURM's own limit is the site's MaxArraySize, 1001 unless that was changed.
MOST = 1000


def combinations(sweeps: Sequence[str]) -> list[tuple[str, ...]]:
    """Every combination of what is swept, each as overrides `a.b=value`; the last key changes fastest.

    Args:
        sweeps: `a.b=V1,V2,…` each; a value is YAML as it stands in a list, so `[q,v],[q,k,v]` are two.

    >>> combinations(["lr=1e-4,2e-4", "args.lora.r=8,16"])[1:3]
    [('lr=1e-4', 'args.lora.r=16'), ('lr=2e-4', 'args.lora.r=8')]

    Raises:
        JobError: one cannot be read, or there are more runs than an array takes.
    """
    axes = [_axis(sweep) for sweep in sweeps]
    keys = [axis[0].partition("=")[0] for axis in axes]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise JobError(f"--sweep {min(twice)} is given twice", "name all its values in one")
    runs = 1
    for axis in axes:
        runs *= len(axis)
    if runs > MOST:
        raise JobError(f"this sweep has {runs} runs, an array takes {MOST}", "sweep over fewer values")
    return list(itertools.product(*axes))


def _axis(sweep: str) -> list[str]:
    key, equals, text = sweep.partition("=")
    if not equals or not key.strip() or not text.strip():
        raise JobError(
            f"--sweep {sweep}: no key and values", "write --sweep a.b=V1,V2, such as --sweep args.lora.r=8,16"
        )
    if not text.isprintable():
        raise JobError(f"--sweep {key.strip()}: a value with control characters", "write it without")
    opened = f"[{text}]"
    try:
        node = yaml.compose(opened, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise JobError(f"--sweep {sweep}: no list of values", "write --sweep a.b=V1,V2") from error
    if not isinstance(node, yaml.SequenceNode) or node.end_mark.index != len(opened) or not node.value:
        raise JobError(f"--sweep {sweep}: no list of values", "write --sweep a.b=V1,V2")
    # As they were written: read and written again, 1e-4 or 010 would be something else.
    return [f"{key.strip()}={opened[item.start_mark.index : item.end_mark.index]}" for item in node.value]
