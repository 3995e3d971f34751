"""Google Cloud: preemption and host maintenance, by a question that waits for a change.

Preemption comes with no time of its own: the machine is shut down at once, or 120 s later where it was made with
`--preemption-notice-duration=120s`; a shutdown leaves up to 30 s, and comes to us as SIGTERM as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from supervisor.policy.notices import Notice
from supervisor.watch.clouds.asking import Answer, Place, Unclear, ask
from supervisor.watch.clouds.reading import Reading, noticed, unexpected

#: The address behind `metadata.google.internal`, which needs no name service.
PLACE = Place("169.254.169.254")
FLAVOR = "Metadata-Flavor"
PREEMPTED = "/computeMetadata/v1/instance/preempted"
MAINTENANCE = "/computeMetadata/v1/instance/maintenance-event"
#: How far ahead of it maintenance is told, and with a GPU [s].
AHEAD_S, AHEAD_WITH_GPU_S = 60.0, 3600.0


def read_preempted(answer: Answer, now_s: float) -> Reading:
    """Whether the machine is being preempted.

    >>> google = {"metadata-flavor": "Google"}
    >>> read_preempted(Answer(200, google, b"FALSE"), 0.0), len(read_preempted(Answer(200, google, b"TRUE"), 0.0))
    ((), 1)
    """
    del now_s  # no time is named
    if not _is_google(answer) or answer.text not in ("TRUE", "FALSE"):
        return unexpected("preempted", answer)
    if answer.text == "FALSE":
        return ()
    return (noticed("gcp", "preempted", None, f"instance/preempted {answer.text}", urgent=True, key="preempted"),)


def read_maintenance(answer: Answer, now_s: float, ahead_s: float = AHEAD_S) -> Reading:
    """What is to happen to the machine for its host's maintenance; a live migration ends nothing.

    Args:
        answer: to a question for `MAINTENANCE`.
        now_s: wall time when it changed [unix s].
        ahead_s: how far ahead it is told [s].

    Source:
        "Query metadata server for maintenance event notices", Compute Engine documentation.
    """
    if not _is_google(answer) or not answer.text.replace("_", "").isalpha():
        return unexpected("maintenance-event", answer)
    if answer.text == "NONE":
        return ()
    ends = answer.text == "TERMINATE_ON_HOST_MAINTENANCE"
    deadline_s = now_s + ahead_s if ends else None
    detail = f"instance/maintenance-event {answer.text}"
    return (noticed("gcp", answer.text, deadline_s, detail, urgent=ends, key="maintenance"),)


def has_gpu() -> bool:
    """Whether the machine has a GPU of NVIDIA's."""
    return Path("/proc/driver/nvidia").exists()


def _is_google(answer: Answer) -> bool:
    return answer.status == 200 and answer.headers.get(FLAVOR.lower()) == "Google"


@dataclass(slots=True)
class Gcp:
    """Asks an instance's metadata server.

    Attributes:
        place: of the server.
        wait_s: how long a question waits for a change [s]; maintenance is asked for in between.
        limit_s: for each request, besides that [s].
        every_s: from one question to the next [s].
        gpu: asks whether the machine has one.
        name: for people.
        clock: monotonic.
    """

    place: Place = PLACE
    wait_s: float = 10.0
    limit_s: float = 3.0
    every_s: float = 0.1
    gpu: Callable[[], bool] = has_gpu
    clock: Callable[[], float] = time.monotonic
    name: str = "gcp"
    _etag: str | None = None
    _preempted: tuple[Notice, ...] = ()
    _maintenance: tuple[Notice, ...] = ()

    def poll(self, now_s: float) -> Reading:
        """What stands now; a preemption that was told is final.

        Args:
            now_s: wall time [unix s].
        """
        self._look_at_maintenance(now_s)
        answer = self._ask(PREEMPTED, self._etag)
        if isinstance(answer, Unclear):
            self._etag = None
            return answer
        reading = read_preempted(answer, now_s)
        if isinstance(reading, Unclear):
            self._etag = None
            return reading
        self._etag = answer.headers.get("etag")
        self._preempted = reading or self._preempted
        return (*self._preempted, *self._maintenance)

    def _look_at_maintenance(self, now_s: float) -> None:
        answer = self._ask(MAINTENANCE, None)
        if isinstance(answer, Unclear):
            return  # an answer that cannot be read changes nothing; the other question tells of the trouble
        reading = read_maintenance(answer, now_s, AHEAD_WITH_GPU_S if self.gpu() else AHEAD_S)
        if isinstance(reading, Unclear):
            return
        told = [notice.kind for notice in self._maintenance]
        if [notice.kind for notice in reading] != told:  # else the deadline stays what it was
            self._maintenance = reading

    def _ask(self, path: str, etag: str | None) -> Answer | Unclear:
        """Ask at once, or for a change since an answer that had this mark."""
        query = "" if etag is None else f"?wait_for_change=true&timeout_sec={self.wait_s:.0f}&last_etag={etag}"
        limit_s = self.limit_s + (0.0 if etag is None else self.wait_s)
        return ask(self.place, "GET", path + query, {FLAVOR: "Google"}, limit_s=limit_s)
