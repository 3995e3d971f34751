"""Opening a run directory: is it ours to go on with, and under which terms.

Everything that can refuse a run does so here, before a process is started.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.errors import DiskError, GaveUpError, JobError
from supervisor.job import Job, describe_changes, mathematics, read_resolved, resolved_yaml
from supervisor.journal import JOURNAL, Journal, Record, read
from supervisor.policy.ledger import Ledger, fold
from supervisor.whole import write_whole

#: Less than this and not even a journal has room.
FLOOR_BYTES = 4 << 20
#: What takes a change; a worker that finds one asks for it by this name.
ACCEPT = "--accept-changes"


@dataclass(frozen=True, slots=True)
class Terms:
    """How the user wants a run to be gone on with.

    Attributes:
        fresh: from step 0, whatever there is.
        forgive: after it gave up, with new budgets.
        accept_changes: although the job file changes the mathematics.
    """

    fresh: bool = False
    forgive: bool = False
    accept_changes: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """A run directory that may be gone on with.

    Attributes:
        run_id: of the run.
        ledger: what its journal tells, this start included.
        changes: in which keys its mathematics change from here on, as its user accepts.
    """

    run_id: str
    ledger: Ledger
    changes: tuple[str, ...] = ()


def make_directory(run_dir: Path) -> None:
    """Make the run directory, unless what is there is a run's.

    Raises:
        DiskError: it cannot be made or written.
        JobError: it holds something else.
    """
    check_directory(run_dir)
    with _as_run_directory(run_dir):
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    room = os.statvfs(run_dir)
    if not (run_dir / JOURNAL).exists() and room.f_bavail * room.f_frsize < FLOOR_BYTES:
        raise DiskError(
            f"{run_dir} has {room.f_bavail * room.f_frsize} bytes left, too little for two checkpoints",
            "make room, or choose another `run_dir`",
        )


def check_directory(run_dir: Path) -> None:
    """See that what is there is a run's, before anything else is looked at; nothing is made.

    Raises:
        DiskError: it cannot be read or written.
        JobError: it holds something else.
    """
    with _as_run_directory(run_dir):
        try:
            entries = os.listdir(run_dir)  # noqa: PTH208 - only the names
        except FileNotFoundError:
            return
    if not os.access(run_dir, os.W_OK | os.X_OK):
        raise DiskError(f"{run_dir} is not writable", "change its permissions, or choose another with `run_dir`")
    # What a start leaves that came no further, `submit` before it, and `prefetch`.
    ours = ("lease", "logs", "supervisor.log", "control", "pins.json", "cache")
    if JOURNAL not in entries and not all(entry.startswith(ours) for entry in entries):
        raise JobError(
            f"{run_dir} is not empty and holds no run ({', '.join(sorted(entries)[:3])} …)",
            "choose another `run_dir`, or empty it",
        )


@contextmanager
def _as_run_directory(run_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{run_dir} cannot be used as run directory: {error.strerror}", "choose another with `run_dir`"
        ) from error


def history(run_dir: Path) -> Ledger:
    """What the journal tells; an empty ledger if there is none."""
    return fold(as_mapping(record) for record in read(run_dir / JOURNAL))


def as_mapping(record: Record) -> dict[str, Any]:
    """A journal record as the ledger takes it."""
    return {**record.fields, "event": record.event, "attempt": record.attempt, "time": record.time}


def check_terms(job: Job, ledger: Ledger, terms: Terms) -> None:
    """Refuse what would silently change or repeat a run.

    Raises:
        JobError: the job file changes the mathematics of a run under way.
        GaveUpError: the run gave up earlier and nobody has forgiven it.
    """
    if terms.fresh:
        return
    if ledger.run_id is None:
        _check_for_strays(job.run_dir)
        return
    if ledger.mathematics != mathematics(job) and not terms.accept_changes:
        changes = "; ".join(describe_changes(read_resolved(job.run_dir / "job.yaml"), job))
        raise JobError(
            f"the job file changes the mathematics of the run in {job.run_dir}: {changes}",
            f"take the change back, choose another `run_dir`, or start with {ACCEPT}",
        )
    if ledger.gave_up is not None and not forgives(terms, ledger):
        asked = ACCEPT in ledger.gave_up
        raise GaveUpError(
            f"this run gave up: {ledger.gave_up}",
            f"mend the cause, then start it again with `supervisor run JOB {ACCEPT if asked else '--forgive'}`",
        )


def accepted(job: Job, ledger: Ledger, terms: Terms) -> list[str]:
    """The keys in which a run's mathematics change, as its user accepts, each with its old and new value."""
    under_way = ledger.run_id is not None and not terms.fresh
    if not (terms.accept_changes and under_way) or ledger.mathematics == mathematics(job):
        return []
    try:
        return describe_changes(read_resolved(job.run_dir / "job.yaml"), job)
    except JobError:
        return ["nobody knows what, its job.yaml is lost or damaged"]


def forgives(terms: Terms, ledger: Ledger) -> bool:
    """Whether a run that gave up may go on: it is forgiven, or what it gave up for is accepted."""
    return terms.forgive or (terms.accept_changes and ACCEPT in (ledger.gave_up or ""))


def _check_for_strays(run_dir: Path) -> None:
    """Checkpoints without a journal that knows them: step 0 would be silent here.

    Raises:
        GaveUpError: there are some.
    """
    strays = sorted(path.parent.name for path in run_dir.glob("checkpoints/checkpoint-*/manifest.json"))
    if strays:
        raise GaveUpError(
            f"{run_dir} holds {', '.join(strays[-3:])}, but its journal is lost",
            "put journal.jsonl back, or start at step 0 with --fresh",
        )


def is_done(job: Job, ledger: Ledger, terms: Terms) -> bool:
    """Whether the run has finished and the job asks for no further step."""
    if not ledger.finished or terms.fresh or (terms.accept_changes and ledger.mathematics != mathematics(job)):
        return False
    return max_steps(job) is None or ledger.trained_step is None or (max_steps(job) or 0) <= ledger.trained_step


def max_steps(job: Job) -> int | None:
    """How many steps the job asks for, where its own section or the program's option says so."""
    args = job.args if isinstance(job.args, dict) else {}
    training = args.get("training")
    steps = training.get("max_steps") if isinstance(training, dict) else args.get("max_steps")
    return steps if isinstance(steps, int) and steps > 0 else None


def open_run(job: Job, journal: Journal, ledger: Ledger, terms: Terms) -> Opened:
    """Write down that the run goes on, and set aside what a fresh start leaves behind.

    Args:
        job: as the user wants it now.
        journal: of the run, open for appending; the lease is held.
        ledger: what it told before.
        terms: how the user wants it.
    """
    run_id = ledger.run_id if ledger.run_id and not terms.fresh else secrets.token_hex(8)
    if terms.fresh:
        _abandon(job.run_dir, ledger.lineage)
    for name in ("checkpoints", "logs", "control"):
        (job.run_dir / name).mkdir(mode=0o700, exist_ok=True)
    changes = accepted(job, ledger, terms)
    changed: dict[str, Any] = {"changes": changes} if changes else {}
    record = journal.append(
        "run_started",
        run_id=run_id,
        name=job.name,
        mathematics=mathematics(job),
        **{flag: True for flag in ("fresh", "accept_changes") if getattr(terms, flag)},
        **({"forgive": True} if forgives(terms, ledger) else {}),
        **({"continued": True} if ledger.finished else {}),
        **changed,
    )
    write_whole(job.run_dir / "job.yaml", resolved_yaml(job))
    return Opened(run_id, fold([as_mapping(record)], ledger), tuple(changes))


def _abandon(run_dir: Path, lineage: int) -> None:
    """Move what belongs to the run before out of the way; nothing is deleted."""
    names = ("checkpoints", "torn", "final", "pins.json", "trainer", "logs")
    there = [name for name in names if (run_dir / name).exists()]
    if not there:
        return
    place = run_dir / "abandoned" / f"lineage-{lineage}"
    number = 1
    while place.exists():
        number += 1
        place = run_dir / "abandoned" / f"lineage-{lineage}.{number}"
    place.mkdir(mode=0o700, parents=True)
    for name in there:
        (run_dir / name).rename(place / name)


def admit(run_dir: Path, region_bytes: int, *, first: bool) -> None:
    """See that the disk has room for two checkpoints, when their size becomes known.

    Args:
        run_dir: where checkpoints go.
        region_bytes: memory asked for; a region holds at least three snapshots.
        first: whether the run has none yet; afterwards retention makes its own room.

    Raises:
        DiskError: it has not.
    """
    size = region_bytes // 3
    try:
        free = shutil.disk_usage(run_dir).free
    except OSError:
        return  # nothing is known, and training needs no disk; a commit that meets the same says so
    if first and free < 2 * size:
        raise DiskError(
            f"{run_dir} has {free >> 20} MiB left, two checkpoints need {2 * size >> 20} MiB",
            "make room, or choose another `run_dir`",
        )
