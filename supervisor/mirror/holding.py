"""One owner at a time: the lease of a mirror, as `supervisor.lease` has it for a run directory.

The same two rules: the epoch grows by one at each acquisition, and who owns is decided by what stands in the store.
There it is kept by conditional writes. A directory (`file://`) has the file lease itself. A store that knows
no conditions is written and read again after a moment, which is all that can be done there.

What this does *not* protect against: an owner that slept for longer than it was watched, and wakes up between
its last look and its write.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from supervisor import lease as files
from supervisor.errors import DiskError, OwnedError
from supervisor.lease import POLL_S, WATCH_S, LeaseRecord, life_of
from supervisor.mirror.layout import LEASE
from supervisor.mirror.refusals import ConditionError, NoConditionsError, StoreError, StoreOwnedError
from supervisor.mirror.store import Store
from supervisor.owner import Life, Owner

#: Where nothing can be written conditionally, two who write at once see it after this [s].
SETTLE_S = 2.0

Wait = Callable[[float], None]


class Held(Protocol):
    """The mirror is ours, until it says otherwise."""

    @property
    def epoch(self) -> int:
        """Of this acquisition."""

    def renew(self) -> None:
        """Show that this owner lives; errors are those of `still_held`."""

    def still_held(self) -> None:
        """Make sure that it is still ours.

        Raises:
            OwnedError: it is somebody else's now.
            StoreError, DiskError: nothing is known.
        """

    def release(self) -> None:
        """Give it back; nothing happens if it is not ours any more."""


def hold(
    store: Store,
    owner: Owner,
    *,
    wait: Wait,
    over: Collection[str] = (),
    watch_s: float = WATCH_S,
    poll_s: float = POLL_S,
) -> Held:
    """Become the owner of a mirror.

    Args:
        store: the mirror.
        owner: the supervisor for which this is done.
        wait: how to let seconds pass.
        over: jobs that the scheduler says are over.
        watch_s: how long an owner elsewhere may keep still before it counts as gone [s].
        poll_s: how often to look at it [s].

    Raises:
        OwnedError: a living owner has it.
        StoreError, StoreRefusedError, DiskError: the store cannot be used.
    """
    if not store.url.startswith("file://"):
        return _hold(store, owner, wait, over, watch_s=watch_s, poll_s=poll_s)
    place = Path(unquote(urlsplit(store.url).path))
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"{place} cannot be made: {error.strerror}", "correct `checkpoint.mirror`") from error
    return files.acquire(place, wait=wait, owner=owner, over=over, watch_s=watch_s, poll_s=poll_s)


@dataclass(slots=True)
class StoreLease:
    """The mirror in an object store is ours.

    Attributes:
        store: the mirror.
        epoch: of this acquisition.
        owner: for whom.
        wait: how to let seconds pass.
    """

    store: Store
    epoch: int
    owner: Owner
    wait: Wait
    _counter: int = 0
    _tag: str | None = None

    def renew(self) -> None:
        """See `Held`."""
        record = LeaseRecord(epoch=self.epoch, counter=self._counter + 1, owner=self.owner)
        try:
            self._tag = _write(self.store, record, self._tag, self.wait)
        except ConditionError:
            self.still_held()  # else it was this renewal, whose answer was lost
            raise StoreError(f"{self.store.url}: its lease was not renewed", "it is tried again") from None
        self._counter += 1

    def still_held(self) -> None:
        """See `Held`."""
        got = self.store.get(LEASE)
        record = LeaseRecord.parse(got.data) if got is not None else None
        if record is None or record.owner is None or (record.epoch, record.owner.token) != self._witness:
            raise _taken(self.store, record)
        self._tag = got.tag if got is not None else None

    def release(self) -> None:
        """See `Held`."""
        record = LeaseRecord(epoch=self.epoch, counter=self._counter, owner=None)
        try:
            self.still_held()
            _write(self.store, record, self._tag, self.wait)
        except (ConditionError, OwnedError):
            return

    @property
    def _witness(self) -> tuple[int, str]:
        return self.epoch, self.owner.token


def _hold(
    store: Store, owner: Owner, wait: Wait, over: Collection[str], *, watch_s: float, poll_s: float
) -> StoreLease:
    stale: bytes | None = None  # a record that was watched and did not move
    while True:
        got = store.get(LEASE)
        record = LeaseRecord.parse(got.data) if got is not None else None
        standing = Life.UNKNOWN if record is None else life_of(record, owner, over)
        if standing is Life.ALIVE:
            raise _taken(store, record)
        if got is None or got.data == stale or standing is Life.DEAD:
            epoch = (record.epoch if record is not None else 0) + 1
            try:
                return _take(store, epoch, owner, got.tag if got is not None else None, wait)
            except ConditionError:
                stale = None
                continue  # somebody was faster: see who
        _watch(store, got.data, wait, watch_s, poll_s)
        stale = got.data


def _take(store: Store, epoch: int, owner: Owner, tag: str | None, wait: Wait) -> StoreLease:
    tag = _write(store, LeaseRecord(epoch=epoch, counter=0, owner=owner), tag, wait)
    lease = StoreLease(store, epoch, owner, wait, _tag=tag)
    lease.still_held()  # the store decides, not what we wrote
    return lease


def _write(store: Store, record: LeaseRecord, tag: str | None, wait: Wait) -> str | None:
    """Put a record in the place of the one with this tag, or of none.

    Raises:
        ConditionError: there is another one.
    """
    data = record.encode()
    try:
        return store.create(LEASE, data) if tag is None else store.replace(LEASE, data, tag)
    except NoConditionsError:
        return _write_and_look(store, data, tag, wait if record.counter == 0 else _at_once)


def _write_and_look(store: Store, data: bytes, tag: str | None, wait: Wait) -> str | None:
    before = store.get(LEASE)
    if (before.tag if before is not None else None) != tag:
        raise ConditionError(LEASE)
    store.put(LEASE, data)
    wait(SETTLE_S)
    got = store.get(LEASE)
    if got is None or got.data != data:
        raise ConditionError(LEASE)
    return got.tag


def _at_once(_seconds: float) -> None:
    """Whoever holds a lease need not wait to see whether somebody else takes it."""


def _watch(store: Store, seen: bytes, wait: Wait, watch_s: float, poll_s: float) -> None:
    """Look at an owner elsewhere for ``watch_s`` seconds.

    Raises:
        StoreOwnedError: its counter moved, so it lives.
    """
    for _ in range(max(1, round(watch_s / poll_s))):
        wait(poll_s)
        got = store.get(LEASE)
        record = LeaseRecord.parse(got.data) if got is not None else None
        if got is None or record is None or record.owner is None:
            return  # released, or garbled: look again
        if got.data != seen:
            raise _taken(store, record)


def _taken(store: Store, record: LeaseRecord | None) -> StoreOwnedError:
    who = "nobody" if record is None or record.owner is None else f"process {record.owner.pid} on {record.owner.host}"
    return StoreOwnedError(
        f"the run mirrored at {store.url} is owned by {who}", "let it end there, or choose another `checkpoint.mirror`"
    )
