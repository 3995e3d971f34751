"""Azure: Scheduled Events, which may be withdrawn, and may be brought forward by those whom they concern.

Events of a whole placement group are told to each of its machines, so they are matched with the own name. The
first question turns the service on, which takes up to two minutes; it is asked when the run starts for that reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from supervisor.policy.notices import Notice
from supervisor.watch.clouds.asking import Answer, Place, Unclear, ask
from supervisor.watch.clouds.reading import MOST, Reading, here_s, moment_s, noticed, parsed, unexpected

PLACE = Place("169.254.169.254")
EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
NAME = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
HEADERS = {"Metadata": "true"}
#: What ends a machine, or its memory. A freeze is over within seconds, and training goes on after it.
ENDING = ("Preempt", "Terminate", "Reboot", "Redeploy")


def read_events(answer: Answer, own: str, now_s: float) -> Reading:
    """The events that concern this machine.

    Args:
        answer: to a question for `EVENTS`.
        own: name of this machine.
        now_s: wall time when it came [unix s].

    >>> read_events(Answer(200, body=b'{"DocumentIncarnation": 1, "Events": []}'), "vm", 0.0)
    ()

    Source:
        "Azure Metadata Service: Scheduled Events for Linux VMs": NotBefore is blank once an event has started.
    """
    events = _events(answer)
    if answer.status != 200 or events is None:
        return unexpected("scheduledevents", answer)
    ours = [event for event in events if own.lower() in _resources(event)]
    return tuple(_notice(event, answer, now_s) for event in ours[:MOST])


def _notice(event: Mapping[str, Any], answer: Answer, now_s: float) -> Notice:
    kind = str(event.get("EventType"))
    deadline_s = here_s(moment_s(event.get("NotBefore")), answer.headers, now_s)
    words = ("EventType", "EventStatus", "NotBefore", "EventSource", "Description")
    detail = ", ".join(f"{word} {event[word]}" for word in words if event.get(word))
    return noticed("azure", kind, deadline_s, detail, urgent=kind in ENDING, key=str(event.get("EventId")))


def read_sole(answer: Answer, own: str) -> frozenset[str]:
    """Events that concern this machine alone: to approve of one is to approve for all whom it concerns.

    Args:
        answer: as for `read_events`.
        own: name of this machine.
    """
    return frozenset(str(e.get("EventId")) for e in _events(answer) or () if _resources(e) == {own.lower()})


def _events(answer: Answer) -> list[dict[str, Any]] | None:
    """Those that an answer lists; None if it lists none."""
    told = parsed(answer)
    events = told.get("Events") if isinstance(told, dict) else None
    return [one for one in events if isinstance(one, dict)] if isinstance(events, list) else None


def _resources(event: Mapping[str, Any]) -> set[str]:
    told = event.get("Resources")
    return {str(name).lower() for name in told} if isinstance(told, list) else set()


@dataclass(slots=True)
class Azure:
    """Asks a machine's metadata service.

    Attributes:
        place: of the service.
        every_s: from one question to the next [s]; Azure's own advice.
        limit_s: for each request [s].
        first_limit_s: for those until one has been answered [s].
        name: for people.
    """

    place: Place = PLACE
    every_s: float = 1.0
    limit_s: float = 5.0
    first_limit_s: float = 150.0
    name: str = "azure"
    _own: str | None = None
    _answered: bool = False
    _sole: frozenset[str] = frozenset()

    def poll(self, now_s: float) -> Reading:
        """What stands now.

        Args:
            now_s: wall time [unix s].
        """
        if self._own is None:
            named = ask(self.place, "GET", NAME, HEADERS, limit_s=self.limit_s)
            if isinstance(named, Unclear):
                return named
            if named.status != 200 or not named.text:
                return unexpected("the machine's name", named)
            self._own = named.text
        limit_s = self.limit_s if self._answered else self.first_limit_s
        answer = ask(self.place, "GET", EVENTS, HEADERS, limit_s=limit_s)
        if isinstance(answer, Unclear):
            return answer
        reading = read_events(answer, self._own, now_s)
        if not isinstance(reading, Unclear):
            self._answered, self._sole = True, read_sole(answer, self._own)
        return reading

    def acknowledge(self, key: str, limit_s: float) -> bool:
        """Let an event begin before its time; whether Azure was asked to, and has agreed.

        Args:
            key: `EventId`. One that concerns other machines, too, is left alone.
            limit_s: for the request [s].
        """
        if key not in self._sole:
            return False
        body = json.dumps({"StartRequests": [{"EventId": key}]}).encode()
        headers = {**HEADERS, "Content-Type": "application/json"}
        answer = ask(self.place, "POST", EVENTS, headers, limit_s=limit_s, body=body)
        return isinstance(answer, Answer) and answer.status == 200
