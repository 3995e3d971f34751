"""`start_from`: the checkpoint that a run begins with, taken in as its own first one.

It is committed into the run directory before anything is started, so all that follows is as after any restart,
and what it came from may go away. It is read only while the run has no checkpoint of its own, which is once.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from supervisor.checkpoint.commit import Committed, commit
from supervisor.checkpoint.contents import ADAPTER, STATE, TRAINER_STATE
from supervisor.checkpoint.files import OPEN_DIRECTORY, open_file, remove_tree
from supervisor.checkpoint.flaws import FlawError
from supervisor.checkpoint.foreign import check_directory, check_file, files_of
from supervisor.checkpoint.manifest import Manifest
from supervisor.checkpoint.parts import Part, part_from_bytes, part_from_range
from supervisor.checkpoint.refusals import StorageError, naming
from supervisor.checkpoint.staging import staging
from supervisor.checkpoint.stock import Stock, is_stock, read_stock
from supervisor.checkpoint.sweep import sweep_partials
from supervisor.checkpoint.verify import Foreign, verify
from supervisor.engine.converting import ask
from supervisor.engine.opening import Opened, Terms, as_mapping, open_run
from supervisor.engine.state.given import Given, find_given, read_object
from supervisor.engine.state.own import remember
from supervisor.errors import DiskError, JobError
from supervisor.job import Job, is_ours
from supervisor.journal import JOURNAL, Journal
from supervisor.lease import Lease
from supervisor.policy.batch import Batch, accumulation_for
from supervisor.policy.ledger import Ledger, fold

#: As `reason` in the journal.
REASON = "start_from"
_KEY = "start_from: "
#: The lease is renewed so often while a process converts [s].
_RENEW_S = 2.0


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a run is to begin with, verified.

    Attributes:
        path: its directory.
        step: optimizer steps done there.
        given: one of ours; None for a stock Trainer's.
        stock: a stock Trainer's; None for one of ours.
    """

    path: Path
    step: int
    given: Given | None
    stock: Stock | None


def due(job: Job, ledger: Ledger, terms: Terms) -> bool:
    """Whether a run still has to begin with what its job names: it has nothing of its own."""
    return job.start_from is not None and (terms.fresh or (not ledger.committed and ledger.best_step <= 0))


def find_beginning(job: Job, world_size: int) -> Beginning | None:
    """Find and verify what `start_from` names, without loading any of it.

    Args:
        job: which names it.
        world_size: ranks that are to be launched.

    Returns:
        It; None for what only the program itself can read (with `hooks: off`).

    Raises:
        JobError: a run cannot begin with it, and why.
        StorageError: it could not be read.
    """
    assert job.start_from is not None
    path = Path.cwd() / os.path.expanduser(job.start_from)  # noqa: PTH111 - does not raise without a home
    if not (path / JOURNAL).is_file() and isinstance(verify(path.resolve(), None), Foreign):
        return _foreign(path.resolve(), by_itself=job.hooks == "off" and not is_ours(job.program))
    try:
        given = find_given(path)
    except JobError as error:
        raise JobError(f"{_KEY}{error.problem}", error.remedy) from error
    assert given.manifest is not None
    if given.manifest.health.diverged and job.recovery.on_nan != "ignore":
        raise JobError(f"{_KEY}{given.path} was taken after training had diverged", "begin with an earlier one")
    _check_size(given, given.manifest, world_size)
    return Beginning(given.path, given.manifest.step, given, None)


def _foreign(path: Path, *, by_itself: bool) -> Beginning | None:
    """A directory that we did not write.

    Raises:
        JobError: it is no stock Trainer's, or not all of one.
    """
    if by_itself:
        with naming(f"reading {path}"):
            try:
                (check_directory if path.is_dir() else check_file)(path)
            except FlawError as flaw:
                raise JobError(f"{_KEY}{path}: {flaw.reason}", "begin with another checkpoint") from flaw
        return None
    with naming(f"reading {path}"):
        try:
            names = files_of(path)
            if is_stock(names):
                state = read_object(path / TRAINER_STATE) if TRAINER_STATE in names else None
                stock = read_stock(path, state)
                return Beginning(path, stock.step, None, stock)
        except FlawError as flaw:
            raise JobError(f"{_KEY}{path}: {flaw.reason}", "begin with another checkpoint, or without one") from flaw
    if names.keys() & {ADAPTER, "adapter_model.bin"}:
        raise JobError(
            f"{_KEY}{path} holds an adapter and nothing to go on from (no step, optimizer, schedule or random state)",
            "to train on top of it merge it into its base (`supervisor export … --merged DIR`, or peft's "
            "merge_and_unload), and give that as the model",
        )
    raise JobError(
        f"{_KEY}{path} is neither a checkpoint of ours nor a stock Trainer's",
        "what only the program itself can read is handed to it as $SUPERVISOR_RESUME_FROM with `hooks: off`",
    )


def _check_size(given: Given, manifest: Manifest, world_size: int) -> None:
    if manifest.world_size == world_size:
        return
    batch = Batch.read(given.state.get("data"))
    if batch is None or accumulation_for(batch, world_size) is None:
        parts = "" if batch is None else f", and its steps of {batch.own_micro_batches} micro-batches do not divide"
        raise JobError(
            f"{_KEY}{given.path} was made with {manifest.world_size} processes, {world_size} are to be launched{parts}",
            f"launch {manifest.world_size} (`launch.nodes` times `launch.processes_per_node`)",
        )


def begin_run(
    job: Job,
    journal: Journal,
    ledger: Ledger,
    terms: Terms,
    *,
    world_size: int,
    lease: Lease,
    wait: Callable[[float], None],
    tell: Callable[[str, Mapping[str, Any]], None],
) -> Opened:
    """Open a run, with what it is to begin with in place.

    Args:
        job: as the user wants it now.
        journal: of the run, open for appending.
        ledger: what it told before.
        terms: how the user wants it.
        world_size: ranks that are to be launched.
        lease: which is held.
        wait: lets so many seconds pass, and raises if that is not wanted any more.
        tell: shown what was taken in; for people.

    Raises:
        JobError: it cannot begin with what the job names; nothing has been written down then.
        DiskError: a file system refused.
    """
    begins = find_beginning(job, world_size) if due(job, ledger, terms) else None
    anew = ledger.run_id is None or terms.fresh
    if begins is None:
        opened = open_run(job, journal, ledger, terms)
        remember(job, anew=anew)
        return opened
    with ExitStack() as stack:
        # Open before the run is: a fresh start may move what it begins with out of the way.
        brought = stack.enter_context(_brought(begins, job, world_size, _Waiting(lease, wait)))
        opened = open_run(job, journal, ledger, terms)
        remember(job, anew=anew)
        committed = _take_in(brought, begins, job, opened, lease)
    record = journal.append(
        "checkpoint_committed",
        step=begins.step,
        lineage=opened.ledger.lineage,
        path=str(committed.path.relative_to(job.run_dir)),
        bytes=committed.bytes,
        stall_s=None,
        write_s=committed.write_s,
        reason=REASON,
        start_from=str(begins.path),
        detail="; ".join([*_said(begins), *brought.remarks]),
    )
    tell(record.event, as_mapping(record))
    return replace(opened, ledger=fold([as_mapping(record)], opened.ledger))


def _said(begins: Beginning) -> list[str]:
    return ["a stock Trainer's, its .pt files read with weights_only=True"] if begins.stock is not None else []


@dataclass(slots=True)
class _Waiting:
    """Waits for a process, and shows meanwhile that this owner lives."""

    lease: Lease
    wait: Callable[[float], None]
    _renewed_s: float = 0.0

    def __call__(self, seconds: float) -> None:
        if time.monotonic() - self._renewed_s > _RENEW_S:
            self._renewed_s = time.monotonic()
            with suppress(DiskError):  # nothing is known then; the commit asks once more
                self.lease.renew()
        self.wait(seconds)


@dataclass(frozen=True, slots=True)
class _Brought:
    """Its files, open.

    Attributes:
        parts: all but the state.
        state: what `state.json` holds.
        world_size: ranks that it is for.
        remarks: what is not as it was.
    """

    parts: list[Part]
    state: dict[str, Any]
    world_size: int
    remarks: list[str]


@contextmanager
def _brought(begins: Beginning, job: Job, world_size: int, wait: Callable[[float], None]) -> Iterator[_Brought]:
    """The files of a checkpoint of ours, open as long as the context lasts."""
    with ExitStack() as stack:
        if begins.given is not None:
            manifest = begins.given.manifest
            assert manifest is not None
            parts = _opened(begins.path, [n for n in manifest.files if n != STATE], stack)
            yield _Brought(parts, dict(begins.given.state), manifest.world_size, [])
            return
        assert begins.stock is not None
        control = job.run_dir / "control"
        with naming(f"taking in {begins.path}"):
            control.mkdir(mode=0o700, exist_ok=True)
            sweep_partials(control)
            staged = stack.enter_context(staging(control, REASON))
            request = {
                "form": "import",
                "checkpoint": str(begins.path),
                "target": str(staged.path),
                "step": begins.step,
                "world_size": world_size,
                "weights": begins.stock.weights,
                "optimizer": begins.stock.optimizer,
                "ranks": begins.stock.ranks,
                "trained": begins.stock.max_steps is not None and begins.step >= begins.stock.max_steps,
            }
            try:
                remarks = ask("importing", request, wait)
            except JobError as error:
                raise JobError(f"{_KEY}{error.problem}", error.remedy) from error
            names = [path.name for path in staged.path.iterdir() if path.name != STATE]
            parts = _opened(staged.path, names, stack)
            state = read_object(staged.path / STATE)
        yield _Brought(parts, state, world_size, remarks)


def _opened(directory: Path, names: list[str], stack: ExitStack) -> list[Part]:
    with naming(f"reading {directory}"):
        place = os.open(directory, OPEN_DIRECTORY)
        stack.callback(os.close, place)
        parts = []
        for name in sorted(names):
            fd = open_file(name, place)
            stack.callback(os.close, fd)
            parts.append(part_from_range(name, fd, 0, os.fstat(fd).st_size))
    return parts


def _take_in(brought: _Brought, begins: Beginning, job: Job, opened: Opened, lease: Lease) -> Committed:
    """Commit it as this run's.

    Raises:
        StorageError: the file system refused, or what was verified has changed meanwhile.
    """
    state = {**brought.state, "run_id": opened.run_id, "lineage": opened.ledger.lineage, REASON: str(begins.path)}
    committed = commit(
        job.run_dir / "checkpoints",
        run_id=opened.run_id,
        lineage=opened.ledger.lineage,
        step=begins.step,
        world_size=brought.world_size,
        parts=[*brought.parts, part_from_bytes(STATE, json.dumps(state, indent=1).encode() + b"\n")],
        confirm=lease.still_held,
        clock=time.monotonic,
        health=begins.given.manifest.health if begins.given is not None and begins.given.manifest is not None else None,
    )
    before = begins.given.manifest if begins.given is not None else None
    files = committed.manifest.files
    changed = [] if before is None else [n for n, entry in before.files.items() if n != STATE and files[n] != entry]
    if changed:
        remove_tree(committed.path)
        raise StorageError(f"{begins.path / changed[0]} changed while it was read", "start again")
    return committed
