"""What the program measured of a state: its evaluations, as the trainer's log history tells them.

Rule 1: a figure of the checkpoint's own step is the state's own. One of an earlier step that came after the
checkpoint before is the nearest that is known, and carries its own step, so that nobody takes it for more.
Rule 2: rows are searched piece by piece: a long run's history is megabytes, of which a few rows are evaluations.

What it does not see: rows with a mapping in them, which no Trainer writes.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor.checkpoint.contents import TRAINER_STATE
from supervisor.checkpoint.files import OPEN_DIRECTORY, open_file, read_pieces

PREFIX = b'"eval_'
_ROW = re.compile(rb"\{[^{}]*\}")
#: A piece without the end of a row: what is not told by then is no row of a log.
_LONGEST_ROW_BYTES = 1 << 20
#: How fast an evaluation was is no measure of the model.
_SPEEDS = ("_runtime", "_per_second", "_preparation_time")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One row of evaluations.

    Attributes:
        step: after which it was made.
        metrics: its finite numbers by name.
    """

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric of a checkpoint.

    Attributes:
        value: of the metric.
        step: after which it was measured: the checkpoint's own, or the nearest before.
    """

    value: float
    step: int


def evaluation(row: bytes, metric: str | None = None) -> Evaluation | None:
    """Read a row of the log history; None if it tells no evaluation.

    Args:
        row: a JSON object.
        metric: a name that makes a row an evaluation even without the usual `eval_` before it.

    >>> evaluation(b'{"eval_loss": 0.5, "eval_runtime": 3.1, "epoch": 1.0, "step": 20}')
    Evaluation(step=20, metrics={'eval_loss': 0.5})
    >>> evaluation(b'{"loss": 0.5, "step": 20}') is None
    True
    """
    named = metric is not None and json.dumps(metric).encode() in row
    if PREFIX not in row and not named:
        return None
    try:
        told = json.loads(row)
    except (ValueError, RecursionError):
        return None
    step = told.get("step") if isinstance(told, dict) else None
    if not isinstance(step, int) or isinstance(step, bool):
        return None
    wanted = {name: value for name, value in told.items() if name.startswith("eval_") or name == metric}
    metrics = {
        name: float(value)
        for name, value in wanted.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
        if not name.endswith(_SPEEDS)
    }
    return Evaluation(step, metrics) if metrics else None


def evaluations(checkpoint: Path, metric: str | None = None) -> list[Evaluation]:
    """The evaluations in a checkpoint's log history, in its order.

    Raises:
        OSError: it could not be read.
    """
    directory_fd = os.open(checkpoint, OPEN_DIRECTORY | os.O_NOFOLLOW)
    try:
        fd = open_file(TRAINER_STATE, directory_fd)
        try:
            rows = _rows(read_pieces(fd, 0, os.fstat(fd).st_size))
            return [found for row in rows if (found := evaluation(row, metric)) is not None]
        finally:
            os.close(fd)
    finally:
        os.close(directory_fd)


def measured(told: Iterable[Evaluation], metric: str, *, step: int, after: int) -> Measured | None:
    """What is known of a metric of the state after ``step`` steps.

    Args:
        told: evaluations, oldest first.
        metric: its name.
        step: of the checkpoint.
        after: step of the checkpoint before; what was measured up to there says something of that one.

    >>> rows = [Evaluation(10, {"eval_loss": 0.9}), Evaluation(20, {"eval_loss": 0.7})]
    >>> measured(rows, "eval_loss", step=20, after=10), measured(rows, "eval_loss", step=25, after=10)
    (Measured(value=0.7, step=20), Measured(value=0.7, step=20))
    >>> measured(rows, "eval_loss", step=25, after=20) is None
    True
    """
    known = [one for one in told if metric in one.metrics and after < one.step <= step]
    newest = max(reversed(known), key=lambda one: one.step, default=None)  # of two of a step the later
    return Measured(newest.metrics[metric], newest.step) if newest is not None else None


def _rows(pieces: Iterable[memoryview]) -> Iterator[bytes]:
    """Every innermost JSON object, in order."""
    left = b""
    for piece in pieces:
        text = left + bytes(piece)
        end = 0
        for match in _ROW.finditer(text):
            end = match.end()
            yield match[0]
        left = text[end:][-_LONGEST_ROW_BYTES:]
