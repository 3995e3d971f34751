"""One owner at a time: the file `lease` in the run directory.

Rule 1: the epoch grows by one at each acquisition and never goes back, not even
over a release.
Rule 2: who owns is decided by reading the file back, and asked again right
before a commit; an owner whose epoch is gone commits nothing.

An owner on this machine is alive or dead, and the kernel says which. An owner
elsewhere is alive while its counter moves: counters are compared, never clocks.
An owner whose job a scheduler has taken away is followed at once, wherever it
was: by a later stay of that job, or by whoever was told that the job is over.

What this does *not* protect against: an owner elsewhere that was stopped for
longer than it was watched and wakes up between its last look and its rename;
one that still lives when its job is said to be over, in that same moment.
And a file system that neither locks nor creates exclusively.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from supervisor.errors import DiskError, OwnedError
from supervisor.lock import PATIENCE_S, locked
from supervisor.owner import Life, Owner, follows, life, this_process, whole

LEASE = "lease"
VERSION = 1

RENEW_EVERY_S = 5.0
WATCH_S = 30.0  # six renewals: an owner that misses that many in a row has gone
POLL_S = 1.0
RENEW_PATIENCE_S = 0.5  # the owner's loop waits for no stuck contender; it renews again later


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """What the file says.

    Attributes:
        epoch: how often the run has been acquired.
        counter: how often this epoch's owner has renewed.
        owner: who owns; None after a release.
    """

    epoch: int
    counter: int
    owner: Owner | None

    def encode(self) -> bytes:
        """The record as the file holds it."""
        owner = None if self.owner is None else self.owner.encode()
        return json.dumps({"v": VERSION, "epoch": self.epoch, "counter": self.counter, "owner": owner}).encode() + b"\n"

    @staticmethod
    def parse(data: bytes) -> LeaseRecord | None:
        """Read back what `encode` gave; None for anything else.

        >>> LeaseRecord.parse(LeaseRecord(epoch=3, counter=0, owner=None).encode()).epoch
        3
        >>> LeaseRecord.parse(b"torn") is None
        True
        """
        try:
            values = json.loads(data)
        except (ValueError, RecursionError):
            return None
        if not isinstance(values, dict):
            return None
        epoch, counter = whole(values.get("epoch")), whole(values.get("counter"))
        owner, parsed = values.get("owner"), Owner.parse(values.get("owner"))
        if epoch is None or counter is None or (owner is not None and parsed is None):
            return None
        return LeaseRecord(epoch=epoch, counter=counter, owner=parsed)


@dataclass(slots=True)
class Lease:
    """The run is ours, until `still_held` says otherwise.

    Attributes:
        epoch: of this acquisition; goes into every commit's record.
        owner: this process, as it stands in the file.
        previous: the owner before, if it did not release: what it started may still run.
    """

    run_dir: Path
    epoch: int
    owner: Owner
    previous: Owner | None
    _counter: int = 0
    _place: tuple[int, int] | None = None

    def renew(self) -> None:
        """Show that this owner lives; due every `RENEW_EVERY_S`.

        Raises:
            OwnedError: somebody else owns the run now.
            DiskError: the file system refused, or somebody keeps the lock; nothing is known, so try again.
        """
        with _exclusive(self.run_dir, self.owner, RENEW_PATIENCE_S):
            self.still_held()
            _write(self.run_dir, self._record(self.owner, self._counter + 1), self.owner.token, durable=False)
        self._counter += 1

    def still_held(self) -> None:
        """Make sure that the run is still ours; to be asked right before a commit's rename.

        A lease that is gone together with its directory says nothing: its file system may have
        been unmounted, and what is seen instead is the empty place where it was.

        Raises:
            OwnedError: somebody else owns the run now.
            DiskError: the lease cannot be read; nothing is known, so nothing may be committed.
        """
        try:
            still_held_by(self.run_dir, *self.witness())
        except OwnedError:
            if not (self.run_dir / LEASE).exists() and _place(self.run_dir) != self._place:
                raise DiskError(
                    f"{self.run_dir} is not the directory that it was", "is its file system mounted?"
                ) from None
            raise

    def witness(self) -> tuple[int, str]:
        """Epoch and token, by which another process of this run can ask `still_held_by`."""
        return self.epoch, self.owner.token

    def release(self) -> None:
        """Give the run back; nothing happens if it is not ours any more.

        Raises:
            DiskError: the file system refused; the next owner will find this process dead.
        """
        with _exclusive(self.run_dir, self.owner):
            try:
                self.still_held()
            except OwnedError:
                return
            _write(self.run_dir, self._record(None, self._counter), self.owner.token, durable=True)

    def _record(self, owner: Owner | None, counter: int) -> LeaseRecord:
        return LeaseRecord(epoch=self.epoch, counter=counter, owner=owner)


def still_held_by(run_dir: Path, epoch: int, token: str) -> None:
    """Make sure that a run still belongs to the owner with this epoch and token.

    Raises:
        OwnedError: somebody else owns the run now.
        DiskError: the lease cannot be read; nothing is known, so nothing may be committed.
    """
    record = read_lease(run_dir)
    if record is None or record.owner is None or (record.epoch, record.owner.token) != (epoch, token):
        raise _taken_over(run_dir, epoch, record)


def acquire(
    run_dir: Path,
    *,
    wait: Callable[[float], None],
    watch_s: float = WATCH_S,
    poll_s: float = POLL_S,
    floor_epoch: int = 0,
    owner: Owner | None = None,
    over: Collection[str] = (),
) -> Lease:
    """Become the owner of a run.

    A free run, or one whose owner is dead on this machine or whose job was taken away, is
    taken at once. Another owner elsewhere is watched; it is alive as soon as its counter moves.

    Args:
        run_dir: the run's directory, which exists.
        wait: how to let seconds pass, such as `time.sleep`.
        watch_s: how long an owner elsewhere may keep still before it counts as gone [s].
        poll_s: how often to look at it [s].
        floor_epoch: the highest epoch that the journal knows, so that a lease that was lost does not bring it back.
        owner: this process; default: `this_process()`.
        over: jobs that the scheduler says are over.

    Returns:
        The lease, with the owner before it; where that lives on, although its job was taken
        away, it is the caller's to end.

    Raises:
        OwnedError: a living owner has it; the message names host and pid.
        DiskError: the file system refused.
    """
    here = owner or this_process()
    stale: bytes | None = None  # a record that was watched and did not move
    while True:
        with _exclusive(run_dir, here):
            data = _read_bytes(run_dir)
            record = LeaseRecord.parse(data) if data is not None else None
            if data is None or data == stale or (record is not None and _is_free(record, here, run_dir, over)):
                return _take(run_dir, record, here, floor_epoch)
        _watch(run_dir, data, wait, watch_s, poll_s)
        stale = data


def read_lease(run_dir: Path) -> LeaseRecord | None:
    """Read who owns a run; None where there is no lease, or what is there is none.

    Raises:
        DiskError: it is there and cannot be read.
    """
    data = _read_bytes(run_dir)
    return LeaseRecord.parse(data) if data is not None else None


def life_of(record: LeaseRecord, here: Owner, over: Collection[str]) -> Life:
    """Whether somebody else lives who owns a run: not one who has let go, or whose job is over, nor ``here`` itself."""
    if record.owner is None or follows(here, record.owner) or record.owner.job in over:
        return Life.DEAD
    if record.owner.token == here.token:
        return Life.DEAD  # what was acquired for us before, by a process that is gone
    return life(record.owner, here)


def _is_free(record: LeaseRecord, here: Owner, run_dir: Path, over: Collection[str]) -> bool:
    """Whether the run can be taken now; False means that its owner has to be watched.

    Raises:
        OwnedError: its owner lives on this machine.
    """
    standing = life_of(record, here, over)
    if standing is Life.ALIVE and record.owner is not None:
        raise _owned(record.owner, run_dir)
    return standing is Life.DEAD


def _take(run_dir: Path, record: LeaseRecord | None, here: Owner, floor_epoch: int) -> Lease:
    epoch = max(record.epoch if record else 0, floor_epoch) + 1
    _write(run_dir, LeaseRecord(epoch=epoch, counter=0, owner=here), here.token, durable=True)
    lease = Lease(run_dir, epoch, here, previous=record.owner if record else None, _place=_place(run_dir))
    lease.still_held()  # the file decides, not what we wrote
    for left in run_dir.glob(f"{LEASE}.{'[0-9a-f]' * 32}"):
        with suppress(OSError):
            left.unlink()  # of an owner that was killed while it wrote
    return lease


def _watch(run_dir: Path, seen: bytes, wait: Callable[[float], None], watch_s: float, poll_s: float) -> None:
    """Look at an owner elsewhere for ``watch_s`` seconds.

    Raises:
        OwnedError: its counter moved, so it lives.
    """
    for _ in range(max(1, round(watch_s / poll_s))):
        wait(poll_s)
        data = _read_bytes(run_dir)
        record = LeaseRecord.parse(data) if data is not None else None
        if data is None or record is None or record.owner is None:
            return  # released, or lost: look again under the lock
        if data != seen:
            raise _owned(record.owner, run_dir)


def _place(directory: Path) -> tuple[int, int] | None:
    """Which directory this is, whatever its name; None if there is none."""
    try:
        seen = directory.stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino


def _exclusive(run_dir: Path, here: Owner, patience_s: float = PATIENCE_S) -> AbstractContextManager[None]:
    return locked(run_dir / f"{LEASE}.lock", here, patience_s=patience_s)


def _read_bytes(run_dir: Path) -> bytes | None:
    """The file's bytes, read through an open of their own: on NFS only that asks the server."""
    path = run_dir / LEASE
    try:
        with path.open("rb") as file:
            return file.read(1 << 16)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}", "who owns the run cannot be told; mend the file system") from error


def _write(run_dir: Path, record: LeaseRecord, token: str, *, durable: bool) -> None:
    path = run_dir / LEASE
    partial = run_dir / f"{LEASE}.{token}"
    try:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(record.encode())
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}", "the run directory must be writable") from error


def _owned(owner: Owner, run_dir: Path) -> OwnedError:
    return OwnedError(
        f"the run in {run_dir} is owned by process {owner.pid} on {owner.host}, which is alive",
        f"`supervisor status {run_dir}` shows it, `supervisor stop {run_dir}` ends it",
    )


def _taken_over(run_dir: Path, epoch: int, record: LeaseRecord | None) -> OwnedError:
    if record is None:
        now = "the lease is gone"
    elif record.owner is None:
        now = f"epoch {record.epoch} has been released"
    else:
        now = f"process {record.owner.pid} on {record.owner.host} has it under epoch {record.epoch}"
    return OwnedError(
        f"the run in {run_dir} was ours under epoch {epoch}; now {now}", "this supervisor leaves it alone"
    )
