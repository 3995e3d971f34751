"""Durations, sizes, causes and events in the words that people use."""

from __future__ import annotations

from datetime import datetime

from supervisor.journal import Record

CAUSES = {
    "finished": "training reached its end",
    "user_stop": "stopped by its user",
    "preempted": "the machine was needed elsewhere",
    "time_limit": "the allocation's time was up",
    "node_lost": "a node was lost",
    "disconnected": "a connection was lost",
    "stalled": "training stood still",
    "gpu_oom": "out of GPU memory",
    "host_oom": "out of host memory",
    "gpu_fault": "a GPU failed",
    "network": "the network failed",
    "storage": "storage failed",
    "disk_full": "the disk was full",
    "diverged": "the loss diverged",
    "bad_checkpoint": "no checkpoint could be resumed from",
    "user_error": "the program or its input is wrong, and would be again",
    "crashed": "a worker crashed",
    "unknown": "nobody knows",
}

DECISIONS = {
    "restart": "started again",
    "adapt": "started again with other settings",
    "roll_back": "went back, and started again from there",
    "give_up": "gave up: a person has to look",
    "finish": "the run is finished",
    "leave": "handed back; the same command goes on with it",
    "stop": "stopped, as asked",
}

STATES = {
    "interrupted": "interrupted: nobody is running it; the same `supervisor run` goes on with it",
    "gave_up": "gave up: a person has to look",
}


def duration(seconds: float) -> str:
    """Write a duration, to two units at most.

    >>> duration(0.4), duration(75), duration(7260), duration(200_000), duration(-3)
    ('0 s', '1 min 15 s', '2 h 1 min', '2 d 7 h', '0 s')
    """
    left = max(0, int(seconds))
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0 s"


def size(count: int) -> str:
    """Write a size.

    >>> size(999), size(480_000_000), size(2_500_000_000)
    ('999 B', '480 MB', '2.5 GB')
    """
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 1000:
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"


def share(value: float) -> str:
    """Write a share of 1.

    >>> share(0.934)
    '93 %'
    """
    return f"{100 * value:.0f} %"


def clock(time: float) -> str:
    """Write a wall time of the reader's own zone."""
    try:
        return datetime.fromtimestamp(time).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return "?"


def one_line(text: str | None, most: int = 300) -> str:
    r"""Text for one line of a terminal: no line breaks, no escape sequences, cut where it is long.

    >>> one_line("a\n\x1b[31mb")
    'a [31mb'
    """
    words = " ".join("".join(c if c.isprintable() else " " if c.isspace() else "" for c in text or "").split())
    return words if len(words) <= most else f"{words[: most - 1]}…"


def event(record: Record) -> str | None:  # noqa: PLR0911, PLR0912 - one case per event
    """One journal record in words; None for those that tell a reader nothing new.

    >>> event(Record(0.0, "attempt_started", 2, fields={"world_size": 4}))
    'attempt 2: 4 processes are starting'
    """
    head = f"attempt {record.attempt}: " if record.attempt is not None else ""
    step, cause = record.count("step"), record.text("cause")
    match record.event:
        case "run_started":
            return f"run {one_line(record.text('name'))} started{_accepted(record.fields.get('changes'))}"
        case "attempt_started":
            return f"{head}{_processes(record.count('world_size'))} starting"
        case "training_started":
            return f"{head}training {origin(step, record.text('source'))}"
        case "checkpoint_committed" if record.text("start_from"):
            detail = one_line(record.text("detail"))
            return f"begins with step {step} of {one_line(record.text('start_from'))}{detail and f' ({detail})'}"
        case "checkpoint_committed":
            written = record.number("write_s")
            took = f" written in {written:.1f} s" if written is not None else ""
            return f"{head}checkpoint of step {step}{took}{_stood_in(record.fields.get('stood_in'))}"
        case "checkpoint_rejected":
            return f"{one_line(record.text('path'))} set aside: {one_line(record.text('reason'))}"
        case "stop_asked":
            return f"asked to stop by {one_line(record.text('by'))}"
        case "notice":
            return _noticed(record)
        case "incident":
            return f"{head}{happened(cause, record.text('detail'))}"
        case "attempt_ended":
            return f"{head}ended at {_at(step)}: {CAUSES.get(cause or '', cause)}"
        case "decision":
            return f"{head}{decided(record.text('decision'), record.number('delay_s'))}"
        case "requeued":
            successor = record.text("resubmitted")
            return f"submitted again as job {one_line(successor)}" if successor else "requeued"
        case "adapted":
            return f"{head}adapted: {one_line(record.text('detail'))}"
        case "run_finished":
            return f"finished at {_at(step)}"
        case "run_gave_up":
            return f"gave up: {one_line(record.text('reason'))}"
        case "run_stopped":
            return f"stopped at {_at(step)}"
        case _:
            return None


def happened(cause: str | None, detail: str | None) -> str:
    """An incident in words; one that ended nothing has no cause, only what was seen.

    >>> happened("stalled", "rank 1 is stopped"), happened(None, "straggler: rank 1")
    ('training stood still: rank 1 is stopped', 'straggler: rank 1')
    """
    said = one_line(detail)
    return said if cause is None else f"{CAUSES.get(cause, one_line(cause))}: {said}"


def origin(step: int | None, source: str | None) -> str:
    """Where training started from.

    >>> origin(40, "snapshot"), origin(0, "fresh")
    ('from step 40 (snapshot)', 'from the beginning')
    """
    if source == "fresh":
        return "from the beginning"
    return f"from {_at(step)}" + (f" ({one_line(source)})" if source else "")


def decided(decision: str | None, delay_s: float | None) -> str:
    """A decision in words.

    >>> decided("restart", 30.0)
    'started again after 30 s'
    """
    words = DECISIONS.get(decision or "", one_line(decision) or "nothing was decided")
    return f"{words} after {duration(delay_s)}" if decision in ("restart", "adapt") and delay_s else words


def _noticed(record: Record) -> str:
    """A notice, its time if it names one, and what is left to see of one that was taken back.

    >>> _noticed(Record(0.0, "notice", 1, fields={"kind": "azure: Preempt", "withdrawn": True}))
    'notice withdrawn: azure: Preempt'
    """
    deadline, kind = record.number("deadline"), one_line(record.text("kind"))
    if record.fields.get("withdrawn") is True:
        return f"notice withdrawn: {kind}"
    return f"notice: {kind}" + (f", at {clock(deadline)}" if deadline is not None else "")


def _accepted(changes: object) -> str:
    """What of a run's mathematics was changed on the way.

    >>> _accepted(["args.r 8 → 16"]), _accepted(None)
    ('; accepted: args.r 8 → 16', '')
    """
    if not isinstance(changes, list) or not changes:
        return ""
    return f"; accepted: {one_line('; '.join(map(str, changes)))}"


def _stood_in(ranks: object) -> str:
    """What a lost node took along.

    >>> _stood_in([2, 3]), _stood_in(None)
    ('; the random state of ranks 2, 3 went with their node, and another rank stands in', '')
    """
    if not isinstance(ranks, list) or not ranks:
        return ""
    named = f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
    whose = "their" if len(ranks) > 1 else "its"
    return f"; the random state of {named} went with {whose} node, and another rank stands in"


def _at(step: int | None) -> str:
    return f"step {step}" if step is not None else "an unknown step"


def _processes(count: int | None) -> str:
    if count is None:
        return "processes are"
    return "1 process is" if count == 1 else f"{count} processes are"
