"""One owner at a time, with real processes; what cannot be killed here is watched with a clock of our own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor.errors import DiskError, OwnedError
from supervisor.lease import LEASE, Lease, LeaseRecord, acquire, read_lease, still_held_by
from supervisor.lock import locked
from supervisor.owner import Life, Owner, life, start_ticks, this_process

PROGRAM = """
import sys, time
from pathlib import Path
from supervisor.errors import OwnedError
from supervisor.lease import acquire
print("ready", flush=True)
sys.stdin.readline()
try:
    lease = acquire(Path(sys.argv[1]), wait=time.sleep)
    print("owns", lease.epoch, lease.previous and lease.previous.pid, flush=True)
except OwnedError as error:
    print("refused", error, flush=True)
sys.stdin.readline()
"""


def no_wait(seconds: float) -> None:
    raise AssertionError("nothing here has to be waited for")


def elsewhere(pid: int = 7) -> Owner:
    return Owner(host="far", boot_id="other-boot", pid_ns="pid:[1]", pid=pid, start_ticks=5, token=f"t{pid}")


def write(run_dir: Path, record: LeaseRecord) -> None:
    (run_dir / LEASE).write_bytes(record.encode())


class Contender:
    """A process that acquires when told to, and then keeps living."""

    def __init__(self, run_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(run_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[type[Contender]]:
    started: list[Contender] = []

    def contender(run_dir: Path = tmp_path) -> Contender:
        started.append(Contender(run_dir))
        return started[-1]

    yield contender  # type: ignore[misc]
    for each in started:
        each.kill()


def test_a_free_run_is_taken_at_once_and_the_epoch_outlives_a_release(tmp_path: Path) -> None:
    epochs = []
    (tmp_path / f"{LEASE}.{'0' * 32}").write_text("half a record, of a killed owner")
    for _ in range(3):
        lease = acquire(tmp_path, wait=no_wait)
        epochs.append(lease.epoch)
        assert lease.previous is None
        lease.still_held()
        lease.release()
        assert read_lease(tmp_path) == LeaseRecord(epoch=lease.epoch, counter=0, owner=None)
    assert epochs == [1, 2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == [LEASE, f"{LEASE}.lock"]
    assert (tmp_path / LEASE).stat().st_mode & 0o777 == 0o600


def test_of_racing_processes_exactly_one_wins(tmp_path: Path, start: type[Contender]) -> None:
    for round_ in range(4):
        run_dir = tmp_path / str(round_)
        run_dir.mkdir()
        contenders = [start(run_dir) for _ in range(3)]
        for each in contenders:
            each.go()
        answers = sorted(each.line().split()[0] for each in contenders)
        assert answers == ["owns", "refused", "refused"]


def test_a_living_owner_is_named_with_the_remedy(tmp_path: Path, start: type[Contender]) -> None:
    owner = start()
    owner.go()
    assert owner.line() == "owns 1 None"
    with pytest.raises(OwnedError) as caught:
        acquire(tmp_path, wait=no_wait)
    for part in (f"process {owner.process.pid}", os.uname().nodename, "supervisor status", "supervisor stop"):
        assert part in str(caught.value)


def test_a_killed_owner_is_followed_at_once_and_shown_to_the_next(tmp_path: Path, start: type[Contender]) -> None:
    owner, heir = start(), start()
    owner.go()
    assert owner.line() == "owns 1 None"
    owner.kill()
    heir.go()
    assert heir.line() == f"owns 2 {owner.process.pid}"


def test_an_unreaped_owner_is_dead(tmp_path: Path, start: type[Contender]) -> None:
    owner = start()
    owner.go()
    owner.line()
    os.kill(owner.process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, owner.process.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert acquire(tmp_path, wait=no_wait).epoch == 2


def test_a_reused_pid_is_not_the_owner(tmp_path: Path) -> None:
    me = this_process()
    assert me.start_ticks is not None
    write(tmp_path, LeaseRecord(epoch=4, counter=9, owner=replace(me, start_ticks=me.start_ticks - 1, token="old")))
    assert acquire(tmp_path, wait=no_wait).epoch == 5


def test_an_owner_elsewhere_is_alive_while_its_counter_moves(tmp_path: Path) -> None:
    record = LeaseRecord(epoch=4, counter=9, owner=elsewhere())
    write(tmp_path, record)
    waited: list[float] = []

    def renews(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 5:
            write(tmp_path, replace(record, counter=10))

    with pytest.raises(OwnedError, match="process 7 on far"):
        acquire(tmp_path, wait=renews, watch_s=30, poll_s=2)
    assert waited == [2] * 5


def test_an_owner_elsewhere_that_keeps_still_has_gone(tmp_path: Path) -> None:
    write(tmp_path, LeaseRecord(epoch=4, counter=9, owner=elsewhere()))
    waited: list[float] = []
    lease = acquire(tmp_path, wait=waited.append, watch_s=30, poll_s=2)
    assert (lease.epoch, lease.previous) == (5, elsewhere())
    assert sum(waited) == 30


def test_an_owner_elsewhere_that_releases_is_not_waited_for(tmp_path: Path) -> None:
    record = LeaseRecord(epoch=4, counter=9, owner=elsewhere())
    write(tmp_path, record)
    waited: list[float] = []

    def releases(seconds: float) -> None:
        waited.append(seconds)
        write(tmp_path, replace(record, owner=None))

    assert acquire(tmp_path, wait=releases).epoch == 5
    assert len(waited) == 1


def test_an_heir_elsewhere_that_is_faster_wins(tmp_path: Path) -> None:
    write(tmp_path, LeaseRecord(epoch=4, counter=9, owner=elsewhere()))
    with pytest.raises(OwnedError, match="process 8 on far"):
        acquire(tmp_path, wait=lambda _: write(tmp_path, LeaseRecord(epoch=5, counter=0, owner=elsewhere(8))))


def test_a_damaged_lease_is_watched_and_the_journals_epoch_holds(tmp_path: Path) -> None:
    (tmp_path / LEASE).write_bytes(b"\0" * 100)
    waited: list[float] = []
    assert acquire(tmp_path, wait=waited.append, floor_epoch=41).epoch == 42
    assert waited


def test_the_epoch_fence_refuses_an_old_owners_commit(tmp_path: Path) -> None:
    old = acquire(tmp_path, wait=no_wait, owner=elsewhere())
    new = acquire(tmp_path, wait=lambda _: None)
    for refused in (old.still_held, old.renew):
        with pytest.raises(OwnedError, match=f"process {os.getpid()} on .* has it under epoch 2"):
            refused()
    old.release()
    new.still_held()
    new.renew()
    record = read_lease(tmp_path)
    assert record is not None
    assert (record.epoch, record.counter, record.owner) == (2, 1, new.owner)


def test_a_lease_that_is_gone_or_released_is_not_held(tmp_path: Path) -> None:
    lease = acquire(tmp_path, wait=no_wait)
    lease.release()
    with pytest.raises(OwnedError, match="has been released"):
        lease.still_held()
    (tmp_path / LEASE).unlink()
    with pytest.raises(OwnedError, match="the lease is gone"):
        lease.still_held()


def test_a_directory_that_was_unmounted_says_nothing_about_its_owner(tmp_path: Path) -> None:
    run_dir, hidden = tmp_path / "run", tmp_path / "hidden"
    run_dir.mkdir()
    lease = acquire(run_dir, wait=no_wait)
    run_dir.rename(hidden)
    for empty in (False, True):
        if empty:
            run_dir.mkdir()
        for unknown in (lease.renew, lease.still_held, lease.release):
            with pytest.raises(DiskError):
                unknown()
    shutil.rmtree(run_dir)
    hidden.rename(run_dir)
    lease.renew()
    lease.still_held()


def in_job(owner: Owner, job: str | None, restart: int | None) -> Owner:
    return replace(owner, job=job, restart=restart)


def test_a_later_stay_of_the_same_job_takes_over_at_once_wherever_the_earlier_was(tmp_path: Path) -> None:
    write(tmp_path, LeaseRecord(epoch=4, counter=9, owner=in_job(elsewhere(), "17", 0)))
    lease = acquire(tmp_path, wait=no_wait, owner=this_process(job="17", restart=2))
    assert (lease.epoch, lease.previous) == (5, in_job(elsewhere(), "17", 0))
    read = read_lease(tmp_path)
    assert read is not None
    assert read.owner == lease.owner
    assert (lease.owner.job, lease.owner.restart) == ("17", 2)


def test_so_it_does_where_the_earlier_one_still_lives_on_this_machine(tmp_path: Path, start: type[Contender]) -> None:
    owner = start()
    owner.go()
    assert owner.line().startswith("owns 1")
    record = read_lease(tmp_path)
    assert record is not None
    assert record.owner is not None
    write(tmp_path, replace(record, owner=in_job(record.owner, "17", 1)))
    with pytest.raises(OwnedError):
        acquire(tmp_path, wait=no_wait, owner=this_process(job="17", restart=1))
    lease = acquire(tmp_path, wait=no_wait, owner=this_process(job="17", restart=2))
    assert lease.previous is not None
    assert lease.previous.pid == owner.process.pid


def test_the_earlier_stay_finds_out_at_its_next_renewal_and_before_a_commit(tmp_path: Path) -> None:
    first = acquire(tmp_path, wait=no_wait, owner=in_job(elsewhere(), "17", 0))
    acquire(tmp_path, wait=no_wait, owner=this_process(job="17", restart=1))
    for refused in (first.renew, first.still_held):
        with pytest.raises(OwnedError, match="under epoch 2"):
            refused()


@pytest.mark.parametrize(
    ("before", "here"),
    [
        (("17", 1), ("17", 1)),  # a second task of the same stay
        (("17", 2), ("17", 1)),  # the earlier one, woken late
        (("17", 0), ("18", 1)),
        ((None, None), ("17", 1)),
        (("17", 0), (None, None)),
        (("17", None), ("17", 1)),
    ],
)
def test_any_other_owner_elsewhere_is_watched_as_ever(
    tmp_path: Path, before: tuple[str | None, int | None], here: tuple[str | None, int | None]
) -> None:
    write(tmp_path, LeaseRecord(epoch=4, counter=9, owner=in_job(elsewhere(), *before)))
    waited: list[float] = []
    acquire(tmp_path, wait=waited.append, owner=in_job(this_process(), *here), over=["16"], watch_s=30, poll_s=2)
    assert sum(waited) == 30


def test_a_job_that_the_scheduler_says_is_over_is_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path, LeaseRecord(epoch=4, counter=9, owner=in_job(elsewhere(), "17", 3)))
    lease = acquire(tmp_path, wait=no_wait, owner=this_process(job="18", restart=0), over=["16", "17"])
    assert lease.epoch == 5


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["7", "8"]),  # job
            st.integers(0, 3),  # restart
            st.sets(st.sampled_from(["7", "8"]), max_size=1),  # said to be over
            st.sampled_from(["nothing", "release", "renew"]),
        ),
        max_size=12,
    )
)
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_whatever_follows_whatever_one_lease_holds_and_epochs_grow(tmp_path: Path, stays) -> None:  # type: ignore[no-untyped-def]
    run_dir = Path(tempfile.mkdtemp(dir=tmp_path))
    leases: list[Lease] = []
    free = True
    for number, (job, restart, over, then) in enumerate(stays):
        here = in_job(replace(elsewhere(100 + number), boot_id=f"boot {number}"), job, restart)
        last = leases[-1].owner if leases else None
        same = last is not None and last.job == job and (last.restart or 0) < restart
        allowed = free or same or (last is not None and last.job in over)
        try:
            leases.append(acquire(run_dir, wait=lambda _: leases[-1].renew(), owner=here, over=over, poll_s=30))
        except OwnedError:
            assert not allowed
            continue
        assert allowed
        free = False
        for old in leases[:-1]:
            with pytest.raises(OwnedError):
                old.still_held()
        leases[-1].still_held()
        still_held_by(run_dir, *leases[-1].witness())
        if then == "renew":
            leases[-1].renew()
        elif then == "release":
            leases[-1].release()
            free = True
    assert [lease.epoch for lease in leases] == list(range(1, len(leases) + 1))


def test_another_process_of_the_run_can_ask_for_its_leader(tmp_path: Path) -> None:
    lease = acquire(tmp_path, wait=no_wait, owner=elsewhere())
    epoch, token = lease.witness()
    still_held_by(tmp_path, epoch, token)
    for stranger in ((epoch, "another"), (epoch + 1, token)):
        with pytest.raises(OwnedError, match="process 7 on far has it under epoch 1"):
            still_held_by(tmp_path, *stranger)
    (tmp_path / LEASE).unlink()
    (tmp_path / LEASE).mkdir()
    with pytest.raises(DiskError):
        still_held_by(tmp_path, epoch, token)


def test_a_record_of_an_older_release_is_still_read(tmp_path: Path) -> None:
    values = json.loads(LeaseRecord(epoch=4, counter=9, owner=elsewhere()).encode())
    del values["owner"]["job"], values["owner"]["restart"]
    record = LeaseRecord.parse(json.dumps(values).encode())
    assert record == LeaseRecord(epoch=4, counter=9, owner=elsewhere())


def test_what_cannot_be_read_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / LEASE).mkdir()
    with pytest.raises(DiskError):
        acquire(tmp_path, wait=no_wait)
    with pytest.raises(DiskError):
        acquire(tmp_path / "nowhere", wait=no_wait)


def test_life_is_only_known_on_the_same_kernel_and_in_the_same_namespace() -> None:
    me = this_process()
    assert life(me, me) is Life.ALIVE
    assert life(replace(me, pid=2**22 + 1), me) is Life.DEAD
    for other in (
        replace(me, boot_id="x"),
        replace(me, pid_ns="x"),
        replace(me, boot_id=None),
        replace(me, start_ticks=None),
    ):
        assert life(other, me) is Life.UNKNOWN


def test_a_name_full_of_parentheses_hides_no_start_time(tmp_path: Path) -> None:
    program = tmp_path / "a) 1 (b"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "100"])
    try:
        assert start_ticks(process.pid) is not None
        assert abs((start_ticks(process.pid) or 0) - (start_ticks(os.getpid()) or 0)) < 10**9
    finally:
        process.kill()
        process.wait()


@given(
    st.binary(max_size=60)
    | st.dictionaries(
        st.sampled_from(["v", "epoch", "counter", "owner"]),
        st.none()
        | st.integers()
        | st.text(max_size=3)
        | st.dictionaries(st.sampled_from(["host", "pid", "token"]), st.integers() | st.text(max_size=3)),
    ).map(lambda v: json.dumps(v).encode())
)
@settings(deadline=None)
def test_no_content_makes_reading_a_lease_fail(data: bytes) -> None:
    record = LeaseRecord.parse(data)
    assert record is None or LeaseRecord.parse(record.encode()) == record


def without_flock(fd: int, operation: int) -> None:
    raise OSError(95, "Operation not supported")


def test_without_flock_the_one_who_creates_the_file_is_alone(tmp_path: Path) -> None:
    path, me = tmp_path / "lock", this_process()
    waited: list[float] = []
    with locked(path, me, flock=without_flock):
        assert (tmp_path / "lock.exclusive").exists()
    assert not (tmp_path / "lock.exclusive").exists()
    for left, patience in ((replace(me, pid=2**22 + 1), 0), (elsewhere(), 1), (None, 1)):
        (tmp_path / "lock.exclusive").write_text("torn" if left is None else json.dumps(left.encode()))
        waited.clear()
        with locked(path, me, flock=without_flock, wait=waited.append, patience_s=2.0):
            assert Owner.parse(json.loads((tmp_path / "lock.exclusive").read_text())) == me
        assert sum(waited) == pytest.approx(2.0 * patience, abs=0.1)


def test_a_lock_that_somebody_keeps_is_given_up(tmp_path: Path) -> None:
    path, me = tmp_path / "lock", this_process()
    waited: list[float] = []
    with locked(path, me), pytest.raises(DiskError, match="kept locked"):
        locked(path, me, wait=waited.append, patience_s=1.0).__enter__()
    assert sum(waited) == pytest.approx(1.0)


def test_a_living_holder_without_flock_is_waited_for(tmp_path: Path) -> None:
    path, me = tmp_path / "lock", this_process()
    exclusive = tmp_path / "lock.exclusive"
    exclusive.write_text(json.dumps(me.encode()))
    heir = replace(me, token="heir")
    with locked(path, heir, flock=without_flock, wait=lambda _: exclusive.unlink(missing_ok=True)):
        assert Owner.parse(json.loads(exclusive.read_text())) == heir


def test_a_process_is_named_for_good_by_pid_and_start() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    ticks, own = start_ticks(child.pid), start_ticks(os.getpid())
    assert ticks is not None
    assert own is not None
    assert ticks >= own > 0
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has collected it
    assert start_ticks(child.pid) is None
    child.wait()
    assert start_ticks(child.pid) is None
