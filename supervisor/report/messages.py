"""From journal records to what a tired person reads: what happened, where, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from supervisor.journal import Record
from supervisor.report.digest import ENDS, Kind, News, gathered, named
from supervisor.report.fold import RunHistory
from supervisor.report.words import decided, event, one_line

_GONE = (
    "interrupted: the supervisor is gone without a word: killed, or its machine is going down; "
    "the same `supervisor run` goes on with the run"
)
_NOT_QUEUED = "interrupted: handed back, and nobody has put it into a queue; the same `supervisor run` goes on with it"
#: How grave news are, in Apprise's words.
_GRAVE = {
    Kind.STARTED: "info",
    Kind.INCIDENT: "warning",
    Kind.GAVE_UP: "failure",
    Kind.FINISHED: "success",
    Kind.STOPPED: "info",
    Kind.REQUEUED: "info",
    Kind.INTERRUPTED: "warning",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run is, and how far.

    Attributes:
        name: of the run.
        host: of its supervisor.
        run_dir: absolute.
        step: newest settled one.
        max_steps: at which training ends.
    """

    name: str
    host: str
    run_dir: Path
    step: int | None
    max_steps: int | None


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent; `kind` is one of Apprise's."""

    title: str
    body: str
    kind: str


def news_of(record: Record, before: RunHistory) -> News | None:  # noqa: PLR0911 - one case per event
    """What a record is to people; None if nothing.

    Args:
        record: of the journal.
        before: what was known before it.
    """
    match record.event:
        case "run_started":
            again = before.stays > 0 and record.fields.get("fresh") is not True
            return News(record.time, Kind.STARTED, "goes on" if again else "started")
        case "incident":
            decision = one_line(record.text("decision")) or None
            return News(record.time, Kind.INCIDENT, event(record) or "", record.text("cause"), decision)
        case "decision" if record.text("decision") == "give_up":
            return News(record.time, Kind.GAVE_UP, _gave_up(record))
        case "run_gave_up" if before.state != "gave_up":
            return News(record.time, Kind.GAVE_UP, _gave_up(record))
        case "run_finished":
            return News(record.time, Kind.FINISHED, event(record) or "finished")
        case "run_stopped":
            return News(record.time, Kind.STOPPED, f"{event(record)}, as asked by {one_line(record.text('by')) or '?'}")
        case "requeued":
            return News(record.time, Kind.REQUEUED, f"{event(record)}; it goes on by itself when its turn comes")
    return None


def interruption(history: RunHistory, now: float) -> News | None:
    """What to say when the supervisor is gone; None where the journal has told it."""
    if history.state == "interrupted":
        reason = one_line(history.last.reason) if history.last is not None else ""
        return News(now, Kind.INTERRUPTED, f"{_NOT_QUEUED} ({reason})" if reason else _NOT_QUEUED)
    if history.state in ("finished", "gave_up", "stopped", "requeued"):
        return None
    return News(now, Kind.INTERRUPTED, _GONE)


def message(news: Sequence[News], place: Place) -> Message:
    """One message for all of ``news``, which is not empty: an end before an incident, an incident before a start."""
    chief = _chief(news)
    incidents = [one for one in news if one.kind is Kind.INCIDENT]
    lines = [f"{chief.sentence}{f' ({chief.decision})' if chief.decision else ''}."]
    if len(incidents) > 1 or (incidents and chief is not incidents[-1]):
        lines.append(f"{gathered(incidents)}.")
    if incidents and chief is not incidents[-1]:
        lines.append(f"The last: {incidents[-1].sentence}.")
    if others := [_head(one) for one in news if one is not chief and one.kind is not Kind.INCIDENT]:
        lines.append(f"Before: {', '.join(others)}.")
    lines.append(f"{_step(place)} on {one_line(place.host)}, in {place.run_dir}")
    lines.append(f"next: {_next(chief.kind, place.run_dir)}")
    return Message(f"{one_line(place.name)}: {_title(chief, incidents)}", "\n".join(lines), _GRAVE[chief.kind])


def _chief(news: Sequence[News]) -> News:
    """What matters most of it; an end that the run has gone on from does not."""
    turns = [one for one in news if one.kind is not Kind.INCIDENT]
    if turns and turns[-1].kind in ENDS:
        return turns[-1]
    return next((one for one in reversed(news) if one.kind is Kind.INCIDENT), news[-1])


def _head(news: News) -> str:
    """What happened, without what follows from it."""
    return news.sentence.partition(";")[0].partition(": ")[0]


def _title(chief: News, incidents: Sequence[News]) -> str:
    if chief.kind is not Kind.INCIDENT:
        return _head(chief)
    return gathered(incidents).partition(":")[0] if len(incidents) > 1 else named(chief.cause)


def _gave_up(record: Record) -> str:
    return f"{decided('give_up', None)}: {one_line(record.text('reason'))}"


def _step(place: Place) -> str:
    if place.step is None:
        return "no step yet"
    return f"step {place.step}/{place.max_steps}" if place.max_steps is not None else f"step {place.step}"


def _next(kind: Kind, run_dir: Path) -> str:
    where = shlex.quote(str(run_dir))
    match kind:
        case Kind.GAVE_UP:
            return f"supervisor why {where}; when it is mended: supervisor run --forgive {where}/job.yaml"
        case Kind.STOPPED | Kind.INTERRUPTED:
            return f"supervisor run {where}/job.yaml"
        case Kind.INCIDENT:
            return f"supervisor why {where}"
        case _:
            return f"supervisor status {where}"
