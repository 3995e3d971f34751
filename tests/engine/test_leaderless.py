"""A leader that is gone: who notices, and who acts."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import pytest
from engine.crew_ends import NoWorkers

from supervisor.checkpoint.retain import Keep
from supervisor.engine.members.leaderless import (
    NOTICE_S,
    STILL_S,
    UNKNOWN_S,
    Alone,
    LeaderWatch,
    commit_alone,
    must_act,
)
from supervisor.engine.members.messages import Wanted
from supervisor.errors import ExitCode
from supervisor.journal import read
from supervisor.lease import LEASE, Lease, LeaseRecord, acquire
from supervisor.owner import Life, this_process
from supervisor.policy.lifecycle import Wish


def lease_in(run_dir: Path) -> Lease:
    return acquire(run_dir, wait=time.sleep)


def watch_of(run_dir: Path, lease: Lease) -> LeaderWatch:
    return LeaderWatch(run_dir, *lease.witness())


def test_a_leader_on_this_machine_lives_as_long_as_its_process(tmp_path: Path) -> None:
    lease = lease_in(tmp_path)
    watch, now_s = watch_of(tmp_path, lease), time.monotonic()
    assert watch.look(now_s) is Life.ALIVE
    dead = replace(lease.owner, pid=1 << 22, start_ticks=1)
    (tmp_path / LEASE).write_bytes(LeaseRecord(epoch=lease.epoch, counter=5, owner=dead).encode())
    assert watch.look(now_s + 0.1) is Life.ALIVE  # it is not asked at every turn
    assert watch.look(now_s + 3.0) is Life.DEAD


@dataclass
class Elsewhere:
    """A lease whose owner is another machine's, looked at over hours that take no time."""

    run_dir: Path
    counter: int = 0
    now_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.owner = replace(this_process(), host="elsewhere", boot_id="another")
        self.watch = LeaderWatch(self.run_dir, 3, self.owner.token)

    def pass_s(self, seconds: float) -> Life:
        """Look until so much time has passed."""
        (self.run_dir / LEASE).write_bytes(LeaseRecord(epoch=3, counter=self.counter, owner=self.owner).encode())
        end_s, known = self.now_s + seconds, Life.UNKNOWN
        while self.now_s < end_s:
            self.now_s += 0.5
            known = self.watch.look(self.now_s)
        return known


def test_a_leader_elsewhere_lives_as_long_as_its_counter_moves(tmp_path: Path) -> None:
    lease = Elsewhere(tmp_path)
    for lease.counter in range(10):
        assert lease.pass_s(STILL_S - 3.0) is Life.ALIVE
    assert lease.pass_s(6.0) is Life.DEAD
    lease.counter += 1
    assert lease.pass_s(3.0) is Life.ALIVE  # it was only slow


def test_a_time_in_which_nothing_could_be_read_tells_nothing_of_the_leader(tmp_path: Path) -> None:
    lease = Elsewhere(tmp_path)
    assert lease.pass_s(10.0) is Life.ALIVE
    lease.now_s += 60.0  # a read that hung: the disk was gone, and the leader's, too
    assert lease.pass_s(STILL_S - 3.0) is Life.ALIVE
    assert lease.pass_s(6.0) is Life.DEAD


def test_a_run_that_was_given_back_or_taken_over_has_no_leader_any_more(tmp_path: Path) -> None:
    lease = lease_in(tmp_path)
    watch, now_s = watch_of(tmp_path, lease), time.monotonic()
    lease.release()
    assert watch.look(now_s + 3.0) is Life.DEAD
    lease_in(tmp_path)
    assert watch.look(now_s + 6.0) is Life.DEAD


def test_a_lease_that_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    watch = LeaderWatch(tmp_path, 1, "token")
    now_s = time.monotonic()
    assert watch.look(now_s) is Life.UNKNOWN
    (tmp_path / LEASE).write_bytes(b"torn")
    assert watch.look(now_s + 3.0) is Life.UNKNOWN


@pytest.mark.parametrize(("leader", "wish"), list(product(Life, Wish)))
def test_nobody_acts_without_a_silence_and_everybody_after_a_long_one(leader: Life, wish: Wish) -> None:
    assert must_act(0.0, leader, wish) == (leader is Life.DEAD and wish is Wish.GO_ON)
    assert must_act(UNKNOWN_S + 1.0, leader, wish) == (leader is not Life.ALIVE or wish is not Wish.GO_ON)
    assert must_act(NOTICE_S + 0.1, leader, wish) == (leader is Life.DEAD or wish is not Wish.GO_ON)


def test_of_three_members_exactly_one_goes_on_without_the_leader(tmp_path: Path) -> None:
    (tmp_path / "control").mkdir()
    epoch, token = lease_in(tmp_path).witness()
    wanted, left = Wanted(run_id="r", epoch=epoch, token=token), []

    def leave(number: int) -> None:
        left.append(
            commit_alone(
                tmp_path,
                wanted,
                NoWorkers(),  # type: ignore[arg-type]
                number,
                None,
                received="the leader is dead",
                tell=lambda _event, _fields: None,
                keep=Keep(last=2),
            )
        )

    members = [threading.Thread(target=leave, args=(number,)) for number in (3, 1, 2)]
    for member in members:
        member.start()
    for member in members:
        member.join(30.0)
    assert [one.code for one in left] == [ExitCode.HANDED_BACK] * 3
    assert sorted(one.secured for one in left) == [False, False, True]
    [journal] = tmp_path.glob("journal-*-n*.jsonl")
    assert journal.name == f"journal-{epoch}-n1.jsonl"
    assert [record.event for record in read(journal)] == ["decision"]


def test_whoever_finds_the_run_given_back_leaves_it_alone(tmp_path: Path) -> None:
    (tmp_path / "control").mkdir()
    lease = lease_in(tmp_path)
    epoch, token = lease.witness()
    lease.release()
    left = commit_alone(
        tmp_path,
        Wanted(run_id="r", epoch=epoch, token=token),
        NoWorkers(),  # type: ignore[arg-type]
        1,
        None,
        received="the leader is dead",
        tell=lambda _event, _fields: None,
        keep=Keep(last=2),
    )
    assert left == Alone(ExitCode.HANDED_BACK, secured=False)
    assert list(tmp_path.glob("journal*")) == []
