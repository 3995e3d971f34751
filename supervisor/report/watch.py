"""The live view: a bar, the rate, what happened last, until the run comes to an end.

It reads what `status` reads and nothing more, so it can be opened and closed
from any machine that sees the run directory, and the run never knows.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from supervisor.journal import JOURNAL, Record, read_from
from supervisor.report.find import check_run
from supervisor.report.fold import ENDED, fold
from supervisor.report.live import Live, look
from supervisor.report.status import block, line, summary
from supervisor.report.words import clock, duration, event

if TYPE_CHECKING:
    from rich.console import RenderableType

EVENTS_SHOWN = 8
QUIET_LINE_S = 30.0  # without a terminal: a line about progress at least this far apart
_OVER = ENDED - {"requeued"}


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a run.

    Attributes:
        told: its status.
        live: its supervisor.
        now: when [unix s].
        news: the journal's records since the look before.
    """

    told: dict[str, Any]
    live: Live
    now: float
    news: list[Record]

    @property
    def last(self) -> bool:
        """Whether the run came to an end, or nobody runs it."""
        return self.told["state"] in _OVER


def follow(
    run_dir: Path, clock_: Callable[[], float], wait: Callable[[float], None], interval_s: float = 1.0
) -> Iterator[Look]:
    """Look at a run again and again, until it comes to an end or nobody runs it.

    Args:
        run_dir: the run's directory.
        clock_: the wall clock [unix s].
        wait: how to let seconds pass.
        interval_s: pause between two looks [s].

    Yields:
        At least one look; the last one sees the end.

    Raises:
        DiskError: the journal cannot be read.
    """
    records: list[Record] = []
    offset = 0
    history = fold(records)
    while True:
        live = look(run_dir)  # first: an owner that leaves writes its last line before it goes
        news, offset = read_from(run_dir / JOURNAL, offset)
        if news:
            records += news
            history = fold(records)
        now = clock_()
        seen = Look(summary(history, run_dir, now, live), live, now, news)
        yield seen
        if seen.last:
            return
        wait(interval_s)


def watch(
    run_dir: Path,
    out: TextIO | None = None,
    *,
    clock_: Callable[[], float] = time.time,
    wait: Callable[[float], None] = time.sleep,
    interval_s: float = 1.0,
) -> str:
    """Show a run until it comes to an end; Ctrl-C closes the view and leaves the run alone.

    Args:
        run_dir: the run's directory.
        out: where to write: a live view on a terminal, plain lines elsewhere; default: stdout.
        clock_: the wall clock [unix s].
        wait: how to let seconds pass.
        interval_s: pause between two looks [s].

    Returns:
        The run's state when the view closed.

    Raises:
        JobError: ``run_dir`` is no directory.
        DiskError: the journal cannot be read.
    """
    if not run_dir.is_dir():
        check_run(run_dir)
    out = out or sys.stdout
    looks = follow(run_dir, clock_, wait, interval_s)
    seen: list[Look] = []
    try:
        for each in _show(looks, out) if out.isatty() else _print(looks, out):
            seen[:] = [each]
    except KeyboardInterrupt:
        print(f"the run goes on; `supervisor stop {run_dir}` would end it", file=out, flush=True)
    if not seen:
        return "pending"
    last = seen[0]
    if last.last:
        print(block(last.told, last.live, last.now), file=out, flush=True)
    return str(last.told["state"])


def event_line(record: Record) -> str | None:
    """One journal record as a line with its time; None for those that tell a reader nothing new."""
    words = event(record)
    return None if words is None else f"{clock(record.time)}  {words}"


def view(told: dict[str, Any], last_events: list[str], width: int) -> RenderableType:
    """The live view as rich draws it."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    step, most = told["step"], told["max_steps"]
    bar = ProgressBar(total=most or 1, completed=step or 0 if most else 0, width=max(10, min(60, width - 4)))
    return Group(
        Text(line(told), style="bold", overflow="ellipsis", no_wrap=True),
        bar,
        Text(_figures(told), overflow="ellipsis", no_wrap=True),
        *(Text(text, style="dim", overflow="ellipsis", no_wrap=True) for text in last_events),
    )


def _show(looks: Iterator[Look], out: TextIO) -> Iterator[Look]:
    """On a terminal: one view that redraws itself."""
    from rich.console import Console
    from rich.live import Live as Screen

    console = Console(file=out)
    events: deque[str] = deque(maxlen=EVENTS_SHOWN)
    with Screen(console=console, auto_refresh=False, transient=True) as screen:
        for each in looks:
            events.extend(filter(None, map(event_line, each.news)))
            screen.update(view(each.told, list(events), console.width), refresh=True)
            yield each


def _print(looks: Iterator[Look], out: TextIO) -> Iterator[Look]:
    """Elsewhere: a line for each event, and one for progress now and then."""
    said_at = float("-inf")
    said_step = None
    for each in looks:
        for text in filter(None, map(event_line, each.news)):
            print(text, file=out)
        step = each.told["step"]
        if each.told["state"] == "running" and step != said_step and each.now - said_at >= QUIET_LINE_S:
            print(f"{clock(each.now)}  {' '.join(line(each.told).split())}", file=out)
            said_at, said_step = each.now, step
        out.flush()
        yield each


def _figures(told: dict[str, Any]) -> str:
    parts = []
    if told["loss"] is not None:
        parts.append(f"loss {told['loss']:.4g}")
    if (last := told["last_checkpoint"]) is not None:
        parts.append(f"checkpoint of step {last['step']}, {duration(last['age_s'])} ago")
    if told["steps_redone"] is not None:
        parts.append(f"{told['steps_redone']} steps redone")
    if told["goodput"] is not None:
        parts.append(f"goodput {100 * told['goodput']:.0f} %")
    return ", ".join(parts)
