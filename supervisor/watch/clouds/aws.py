"""AWS: spot interruptions, rebalance recommendations and scheduled maintenance, by IMDSv2.

What this does not protect against: a container on an instance whose hop limit is 1, which no answer reaches.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from supervisor.policy.notices import Notice
from supervisor.watch.clouds.asking import Answer, Place, Unclear
from supervisor.watch.clouds.reading import MOST, Reading, here_s, moment_s, noticed, parsed, unexpected
from supervisor.watch.clouds.tokens import Tokens

PLACE = Place("169.254.169.254")
TOKEN = "X-aws-ec2-metadata-token"  # noqa: S105 - the name of a header
ACTION = "/latest/meta-data/spot/instance-action"
REBALANCE = "/latest/meta-data/events/recommendations/rebalance"
MAINTENANCE = "/latest/meta-data/events/maintenance/scheduled"


def read_action(answer: Answer, now_s: float) -> Reading:
    """A spot interruption.

    Args:
        answer: to a question for `ACTION`.
        now_s: wall time when it came [unix s].

    >>> read_action(Answer(404), 0.0)
    ()

    Source:
        "Spot Instance interruption notices", EC2 user guide: 404 without one; two minutes ahead, but
        hibernation begins at once.
    """
    if answer.status == 404:
        return ()
    told = parsed(answer)
    if answer.status != 200 or not isinstance(told, dict) or not isinstance(told.get("action"), str):
        return unexpected("instance-action", answer)
    action = told["action"]
    deadline_s = here_s(moment_s(told.get("time")), answer.headers, now_s)
    if action == "hibernate":
        deadline_s = None
    return (noticed("aws", f"spot instance-action {action}", deadline_s, answer.text, urgent=True, key="spot"),)


def read_rebalance(answer: Answer, now_s: float) -> Reading:
    """A recommendation to move, ahead of an interruption that may never come.

    >>> read_rebalance(Answer(200, body=b'{"noticeTime": "2020-10-27T08:22:00Z"}'), 0.0)[0].urgent
    False
    """
    del now_s  # it names no time at which anything happens
    if answer.status == 404:
        return ()
    told = parsed(answer)
    if answer.status != 200 or not isinstance(told, dict) or "noticeTime" not in told:
        return unexpected("rebalance", answer)
    return (noticed("aws", "rebalance recommendation", None, answer.text, urgent=False, key="rebalance"),)


def read_maintenance(answer: Answer, now_s: float) -> Reading:
    """Scheduled maintenance, days ahead; what is completed or cancelled is listed as well, and is none.

    >>> read_maintenance(Answer(200, body=b"[]"), 0.0)
    ()
    """
    if answer.status == 404:
        return ()
    told = parsed(answer)
    if answer.status != 200 or not isinstance(told, list):
        return unexpected("maintenance", answer)
    found = []
    for event in told[:MOST]:
        if isinstance(event, dict) and event.get("State") == "active":
            deadline_s = here_s(moment_s(event.get("NotBefore")), answer.headers, now_s)
            kind = f"maintenance {event.get('Code', 'of an unknown kind')}"
            detail = ", ".join(f"{k} {event[k]}" for k in ("EventId", "NotBefore", "Description") if k in event)
            key = f"maintenance {event.get('EventId')}"
            found.append(noticed("aws", kind, deadline_s, detail, urgent=False, key=key))
    return tuple(found)


@dataclass(slots=True)
class Aws:
    """Asks an instance's metadata service.

    Attributes:
        place: of the service.
        every_s: from one question to the next [s]; AWS's own advice.
        limit_s: for each request [s].
        maintenance_every_s: maintenance is days ahead, and need not be asked for so often [s].
        life_s: of a token [s].
        clock: monotonic.
        name: for people.
    """

    place: Place = PLACE
    every_s: float = 5.0
    limit_s: float = 2.0
    maintenance_every_s: float = 300.0
    life_s: float = 21600.0
    clock: Callable[[], float] = time.monotonic
    name: str = "aws"
    _tokens: Tokens = field(init=False)
    _action: tuple[Notice, ...] = ()
    _rebalance: tuple[Notice, ...] = ()
    _maintenance: tuple[Notice, ...] = ()
    _next_s: float | None = None

    def __post_init__(self) -> None:
        self._tokens = Tokens(self.place, TOKEN, self.limit_s, self.life_s, self.clock)

    def poll(self, now_s: float) -> Reading:
        """What stands now; an interruption that was told is final, AWS takes none back.

        Args:
            now_s: wall time [unix s].
        """
        action = self._ask(ACTION, read_action, now_s)
        if isinstance(action, Unclear):
            return action
        self._action = action or self._action
        # Of what is only advice, an answer that cannot be read changes nothing.
        rebalance = self._ask(REBALANCE, read_rebalance, now_s)
        if not isinstance(rebalance, Unclear):
            self._rebalance = rebalance
        if self._next_s is None or self.clock() >= self._next_s:
            self._next_s = self.clock() + self.maintenance_every_s
            maintenance = self._ask(MAINTENANCE, read_maintenance, now_s)
            if not isinstance(maintenance, Unclear):
                self._maintenance = maintenance
        return (*self._action, *self._rebalance, *self._maintenance)

    def _ask(self, path: str, read: Callable[[Answer, float], Reading], now_s: float) -> Reading:
        answer = self._tokens.get(path)
        return answer if isinstance(answer, Unclear) else read(answer, now_s)
