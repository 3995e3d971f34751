"""What `supervisor run` shows while it runs: a progress bar on a terminal, lines elsewhere.

A terminal that goes away is no reason to stop: whatever cannot be shown is dropped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from supervisor.journal import EVENTS, Record
from supervisor.report.watch import QUIET_LINE_S, event_line

Tell = Callable[[str, Mapping[str, Any]], None]

#: What is in no journal; of a node that does not lead nothing is.
_UNWRITTEN = {
    "accepted": "goes on although the job file changes what is computed: {changes}",
    "unsaved": "{detail}",
    "continued": "it had finished at step {step}, and more are asked for: a learning rate that depends on their number "
    "goes on as if {max_steps} had been meant from the beginning",
    "leader_awaited": "waiting for the leader: {trouble}",
    "joined": "the leader is there",
    "leader_lost": "the leader is out of reach: {reason}",
    "member_started": "attempt {attempt}: {processes} processes are starting on this node",
}


@contextmanager
def display(run_dir: Path, out: TextIO | None = None) -> Iterator[Tell]:
    """Show a run on a stream, standard error unless told otherwise.

    Yields:
        What is to be called with each change: a word and its facts.
    """
    stream = out or sys.stderr
    if stream.isatty():
        with _bar(run_dir, stream) as tell:
            yield tell
    else:
        yield _lines(run_dir, stream)


def _said(word: str, facts: Mapping[str, Any], run_dir: Path) -> str | None:
    if word == "already_finished":
        return f"{run_dir} has finished already; nothing is left to do (`--fresh` starts anew)"
    if word == "already_stopped":
        return f"{run_dir} was stopped by its user in job {facts.get('job')}; a new submission goes on with it"
    if word in _UNWRITTEN:
        return _UNWRITTEN[word].format(**facts)
    if word not in EVENTS:
        return None
    fields = {k: v for k, v in facts.items() if k not in ("event", "attempt")}
    return event_line(Record(time.time(), word, facts.get("attempt"), None, fields))


def _lines(run_dir: Path, stream: TextIO) -> Tell:
    shown_at_s = [time.monotonic()]

    def tell(word: str, facts: Mapping[str, Any]) -> None:
        text = _said(word, facts, run_dir)
        now_s = time.monotonic()
        if word == "progress" and facts.get("step") is not None and now_s - shown_at_s[0] >= QUIET_LINE_S:
            text = figures(facts)
        if text is None:
            return
        shown_at_s[0] = now_s
        try:
            stream.write(f"{text}\n")
            stream.flush()
        except OSError:
            return

    return tell


@contextmanager
def _bar(run_dir: Path, stream: TextIO) -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
    )
    progress = Progress(*columns, console=Console(file=stream), refresh_per_second=2)
    progress.start()
    try:
        task = progress.add_task("starting", total=None, figures="")

        def tell(word: str, facts: Mapping[str, Any]) -> None:
            try:
                text = _said(word, facts, run_dir)
                if text is not None:
                    progress.console.print(text, markup=False, highlight=False)
                if word == "progress":
                    progress.update(
                        task,
                        description=str(facts.get("state") or ""),
                        total=facts.get("max_steps"),
                        completed=facts.get("step") or 0,
                        figures=figures(facts),
                    )
            except OSError:
                return

        yield tell
    finally:
        try:
            progress.stop()
        except OSError:
            pass  # the terminal went away


def figures(facts: Mapping[str, Any]) -> str:
    """The numbers beside the bar; what is not known is left out.

    >>> figures({"step": 12, "max_steps": 100, "loss": 1.23456, "steps_per_s": 4.0})
    'step 12/100 · loss 1.235 · 4.0 steps/s · 22 s left'
    """
    step, last, loss, pace = (facts.get(k) for k in ("step", "max_steps", "loss", "steps_per_s"))
    parts = []
    if step is not None:
        parts.append(f"step {step}/{last}" if last is not None else f"step {step}")
    if loss is not None:
        parts.append(f"loss {loss:.3f}")
    if pace:
        parts.append(f"{pace:.1f} steps/s")
        if step is not None and last is not None:
            parts.append(f"{(last - step) / pace:.0f} s left")
    return " · ".join(parts)
