"""What a program without hooks and without a Session writes by itself, so that it is handed the newest good one.

Where it writes is what its arguments call its output, and the run's own `checkpoints/`. What was there before the
run began is passed over until it is written anew: a new run never goes on from an old one unasked.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from supervisor.checkpoint.programs import Judged, Named, find, judge, judge_one
from supervisor.errors import DiskError
from supervisor.job import Job, is_ours
from supervisor.journal import JOURNAL, read
from supervisor.whole import write_whole

#: Arguments by which programs are told where to write, with `_` for `-`.
OUTPUTS = frozenset(
    [
        "output_dir",
        "output",
        "out_dir",
        "out",
        "save_dir",
        "save_path",
        "checkpoint_dir",
        "checkpoints_dir",
        "checkpoint_path",
        "ckpt_dir",
        "project_dir",
    ]
)
_RECORD = Path("control") / "own.json"
#: Contents are read through for so long [s]; what comes after that is judged by its form only.
PATIENCE_S = 60.0


def places_of(job: Job, cwd: Path) -> list[Path]:
    """Directories in which a program may leave checkpoints; none for one of ours.

    >>> job = Job(program="t.py", args=["--output-dir=a", "--save_dir", "b", "--lr", "1"], run_dir=Path("/r"))
    >>> [str(place) for place in places_of(job, Path("/w"))]
    ['/w/a', '/w/a/checkpoints', '/w/b', '/w/b/checkpoints', '/r/checkpoints']
    """
    if is_ours(job.program):
        return []
    named = [Path(os.path.normpath(cwd / os.path.expanduser(text))) for text in _outputs(job.args)]  # noqa: PTH111
    places = [place for one in named for place in (one, one / "checkpoints")]
    return list(dict.fromkeys([*places, job.run_dir / "checkpoints"]))


def _outputs(args: dict[str, Any] | list[Any]) -> Iterator[str]:
    if isinstance(args, dict):
        pairs = [(str(key), value) for key, value in args.items()]
    else:
        words = [str(word) for word in args]
        pairs = [(key, value) for key, eq, value in (w.partition("=") for w in words) if eq]
        pairs += pairwise(words)
    for key, value in pairs:
        if isinstance(value, str) and value and key.lstrip("-").replace("-", "_") in OUTPUTS:
            yield value


def remember(job: Job, *, anew: bool) -> None:
    """Write down where a run's program writes, and if the run begins anew, what is there already."""
    places = places_of(job, Path.cwd())
    before = {} if anew else Own(job.run_dir).told().before
    if anew:
        try:
            before = {str(one.path): one.stamp_ns for one in find(places)}
        except OSError:
            places = []  # what cannot be told from what was there before is not gone on from
    begins = str(Path.cwd() / os.path.expanduser(job.start_from)) if job.start_from else None  # noqa: PTH111
    own = {"places": [str(place) for place in places], "before": before}
    if job.hooks == "off" and begins is not None:
        own["start_from"] = os.path.normpath(begins)
    write_whole(job.run_dir / _RECORD, json.dumps(own))


@dataclass(frozen=True, slots=True)
class Told:
    """What was written down.

    Attributes:
        places: where its program writes.
        before: what was there before the run began.
        start_from: what only the program itself can read, and is to begin with; None for nothing.
    """

    places: tuple[Path, ...] = ()
    before: dict[str, int] = field(default_factory=dict)
    start_from: Path | None = None


@dataclass(slots=True)
class Own:
    """Finds them.

    Attributes:
        run_dir: of the run.
        judged: those that were looked at last; if one is good, it is the last.
    """

    run_dir: Path
    judged: list[Judged] = field(default_factory=list)

    def told(self) -> Told:
        """What `remember` wrote; nothing if it cannot be read."""
        try:
            held = json.loads((self.run_dir / _RECORD).read_text(encoding="utf-8"))
            before = {str(path): int(stamp) for path, stamp in held["before"].items()}
            begins = held.get("start_from")
            return Told(tuple(map(Path, held["places"])), before, None if begins is None else Path(begins))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return Told()

    @property
    def newest(self) -> Named | None:
        """The newest good one."""
        return self.judged[-1].named if self.judged and self.judged[-1].reason is None else None

    @property
    def torn(self) -> list[Judged]:
        """Those newer than it."""
        return [one for one in self.judged if one.reason is not None]

    def look(self) -> None:
        """Find and judge them, unless the run's program has shown that it needs none of that; this may take long."""
        until_s = time.monotonic() + PATIENCE_S
        known = {one.named: one for one in self.judged if one.known}
        self.judged = judge(self._find(), lambda: time.monotonic() > until_s, known)

    def glance(self) -> int:
        """Number of the newest by name, good or not; 0 for none."""
        return max((one.number for one in self._find()[:1]), default=0)

    def path(self) -> Path | None:
        """What a program is to go on from, or else to begin with."""
        return self.newest.path if self.newest is not None else self.told().start_from

    def _find(self) -> list[Named]:
        told = self.told()
        if not told.places or self._hooked():
            return []
        try:
            return find(told.places, told.before)
        except OSError:
            return []  # what cannot be listed has nothing to offer now

    def listed(self) -> list[Judged]:
        """All of them, for people; those that were there before the run, too."""
        try:
            found = find(self.told().places)
        except OSError:
            return []
        return [judge_one(one, found) for one in found]

    def _hooked(self) -> bool:
        """Whether training was seen to begin, by hooks or a Session, since the run began anew."""
        hooked = False
        try:
            records = read(self.run_dir / JOURNAL)
        except DiskError:
            return True  # nothing is known, so nothing is handed over
        for record in records:
            if record.event == "run_started" and record.fields.get("fresh"):
                hooked = False
            hooked = hooked or record.event == "training_started"
        return hooked
