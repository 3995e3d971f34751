"""What the process that tells people is to do, as its starter writes it down (`supervisor.job.notify.settings`)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """What is told of which run, and to whom.

    Attributes:
        name: of the run.
        run_dir: absolute.
        host: of the supervisor.
        urls: Apprise's addresses, each with the name that may be shown.
        alarms: addresses that are asked for while the run lives, each with its name and period [s].
        files: that hold the run's metrics.
        ports: where they are served, as host and port.
    """

    name: str
    run_dir: Path
    host: str
    urls: tuple[tuple[str, str], ...]
    alarms: tuple[tuple[str, str, float], ...]
    files: tuple[Path, ...]
    ports: tuple[tuple[str, int], ...]

    @staticmethod
    def parse(text: str) -> Settings:
        """Read what our own engine wrote."""
        values = json.loads(text)
        return Settings(
            name=values["name"],
            run_dir=Path(values["run_dir"]),
            host=values["host"],
            urls=tuple((label, url) for label, url in values["urls"]),
            alarms=tuple((label, url, float(every_s)) for label, url, every_s in values["alarms"]),
            files=tuple(Path(place) for place in values["metrics"] if isinstance(place, str)),
            ports=tuple((place[0], place[1]) for place in values["metrics"] if not isinstance(place, str)),
        )
