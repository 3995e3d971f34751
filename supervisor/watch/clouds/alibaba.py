"""Alibaba Cloud: the release of a preemptible instance, five minutes ahead."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from supervisor.policy.notices import Notice
from supervisor.watch.clouds.asking import Answer, Place, Unclear
from supervisor.watch.clouds.reading import Reading, here_s, moment_s, noticed, unexpected
from supervisor.watch.clouds.tokens import Tokens

PLACE = Place("100.100.100.200")
TOKEN = "X-aliyun-ecs-metadata-token"  # noqa: S105 - the name of a header
TERMINATION = "/latest/meta-data/instance/spot/termination-time"


def read_termination(answer: Answer, now_s: float) -> Reading:
    """The time of a release; 404, or nothing, without one.

    >>> read_termination(Answer(200, body=b"2015-01-05T18:02:00Z"), 0.0)[0].deadline_s
    1420480920.0
    """
    if answer.status == 404 or (answer.status == 200 and not answer.text):
        return ()
    told_s = moment_s(answer.text)
    if answer.status != 200 or told_s is None:
        return unexpected("termination-time", answer)
    deadline_s = here_s(told_s, answer.headers, now_s)
    return (noticed("alibaba", "spot termination-time", deadline_s, answer.text, urgent=True, key="spot"),)


@dataclass(slots=True)
class Alibaba:
    """Asks an instance's metadata service.

    Attributes:
        place: of the service.
        every_s: from one question to the next [s].
        limit_s: for each request [s].
        life_s: of a token [s].
        clock: monotonic.
        name: for people.
    """

    place: Place = PLACE
    every_s: float = 5.0
    limit_s: float = 2.0
    life_s: float = 21600.0
    clock: Callable[[], float] = time.monotonic
    name: str = "alibaba"
    _tokens: Tokens = field(init=False)
    _told: tuple[Notice, ...] = ()

    def __post_init__(self) -> None:
        self._tokens = Tokens(self.place, TOKEN, self.limit_s, self.life_s, self.clock)

    def poll(self, now_s: float) -> Reading:
        """What stands now; a release that was told is final.

        Args:
            now_s: wall time [unix s].
        """
        answer = self._tokens.get(TERMINATION)
        reading = answer if isinstance(answer, Unclear) else read_termination(answer, now_s)
        if isinstance(reading, Unclear):
            return reading
        self._told = reading or self._told
        return self._told
