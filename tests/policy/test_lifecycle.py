"""Every situation there is, about a quarter of a million; and every run, played through, comes to an end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product

import pytest

from supervisor.policy.causes import Cause, Verdict
from supervisor.policy.ledger import Ledger, fold
from supervisor.policy.lifecycle import Gang, Move, Situation, Wish, next_move
from supervisor.policy.restart import Finish, GiveUp, Limits, Restart, decide

FLAGS = (
    *("paused", "all_paused", "drain_over", "done_too_long", "trained", "trained_committed"),
    *("committing", "commit_failed", "periodic_due", "safety_due", "launch_due", "over"),
)
STEPS = ((-1, -1), (5, 5), (5, 3))  # newest settled, newest committed
COMMITS = {Move.COMMIT_PERIODIC, Move.COMMIT_SAFETY, Move.COMMIT_EMERGENCY, Move.COMMIT_FINAL}


def situations() -> Iterator[Situation]:
    for gang, wish, (settled, committed) in product(Gang, Wish, STEPS):
        for flags in product((False, True), repeat=len(FLAGS)):
            told = dict(zip(FLAGS, flags, strict=True))
            yield Situation(gang=gang, wish=wish, settled=settled, committed=committed, **told)


@pytest.fixture(scope="module")
def chosen() -> list[tuple[Situation, Move]]:
    return [(now, next_move(now)) for now in situations()]


Chosen = list[tuple[Situation, Move]]


def test_nothing_is_launched_while_anything_of_a_gang_is_left(chosen: Chosen) -> None:
    for now, move in chosen:
        if move is Move.LAUNCH:
            assert now.gang is Gang.NONE
            assert now.launch_due
            assert now.wish is Wish.GO_ON
            assert not now.over


def test_a_broken_gang_is_killed_at_once_and_so_is_a_lingering_one(chosen: Chosen) -> None:
    for now, move in chosen:
        if now.gang is Gang.BROKEN or (now.gang is Gang.DONE and now.done_too_long):
            # Whoever is to leave commits first, since what cannot be killed must not use up the grace.
            commits_first = now.gang is Gang.BROKEN and now.wish is not Wish.GO_ON and move in COMMITS
            assert move is Move.KILL or commits_first


def test_a_second_interrupt_kills_and_commits_nothing(chosen: Chosen) -> None:
    for now, move in chosen:
        if now.wish is Wish.KILL:
            assert move is (Move.LEAVE if now.gang in (Gang.NONE, Gang.GONE) else Move.KILL)


def test_only_a_drained_a_broken_or_an_unwanted_gang_is_killed(chosen: Chosen) -> None:
    for now, move in chosen:
        if move is Move.KILL and now.wish is not Wish.KILL and now.gang is Gang.ALIVE:
            assert now.wish in (Wish.HAND_BACK, Wish.STOP)
            assert now.paused
            assert not now.committing
            assert now.all_paused or now.drain_over or now.trained


def test_the_supervisor_leaves_only_with_nothing_alive_and_nothing_under_way(chosen: Chosen) -> None:
    for now, move in chosen:
        if move is Move.LEAVE:
            assert now.gang is Gang.NONE or (now.gang is Gang.GONE and now.wish is Wish.KILL)
            assert now.over or now.wish is not Wish.GO_ON
            assert not now.committing or now.wish is Wish.KILL


def test_what_only_memory_holds_is_on_disk_before_the_supervisor_leaves(chosen: Chosen) -> None:
    for now, move in chosen:
        if move is Move.LEAVE and not now.commit_failed and now.wish is not Wish.KILL:
            assert now.trained_committed if now.trained else now.settled <= now.committed


def test_what_only_memory_holds_is_on_disk_before_a_drain_ends_the_workers(chosen: Chosen) -> None:
    for now, move in chosen:
        draining = now.gang is Gang.ALIVE and now.wish in (Wish.HAND_BACK, Wish.STOP)
        if draining and move is Move.KILL and not now.commit_failed:
            assert now.trained_committed if now.trained else now.settled <= now.committed


def test_one_commit_at_a_time_and_none_that_is_not_wanted(chosen: Chosen) -> None:
    for now, move in chosen:
        if move in COMMITS:
            assert not now.committing
            assert now.gang is not Gang.BROKEN or now.wish is not Wish.GO_ON
        if move is Move.COMMIT_PERIODIC:
            assert (now.gang, now.wish, now.periodic_due, now.trained) == (Gang.ALIVE, Wish.GO_ON, True, False)
        if move is Move.COMMIT_SAFETY:
            assert (now.gang, now.wish, now.safety_due, now.trained) == (Gang.ALIVE, Wish.GO_ON, True, False)
        if move in (Move.COMMIT_EMERGENCY, Move.COMMIT_SAFETY):
            assert now.settled > now.committed
            assert not now.trained
        if move is Move.COMMIT_FINAL:
            assert now.trained
            assert not now.trained_committed


def test_a_commit_that_had_to_succeed_and_failed_is_not_tried_without_end(chosen: Chosen) -> None:
    for now, move in chosen:
        if now.commit_failed:
            assert move not in (Move.COMMIT_EMERGENCY, Move.COMMIT_FINAL)


def test_a_notice_with_time_left_commits_before_anything_else_and_ends_nothing(chosen: Chosen) -> None:
    for now, move in chosen:
        if not now.safety_due or now.wish is not Wish.GO_ON:
            continue
        if now.gang is Gang.ALIVE and not now.trained and not now.committing and now.settled > now.committed:
            assert move is Move.COMMIT_SAFETY
        elif move not in COMMITS and not (move is Move.WAIT and now.committing):
            assert move is next_move(replace(now, safety_due=False))


def test_workers_are_asked_to_pause_once(chosen: Chosen) -> None:
    for now, move in chosen:
        if move is Move.PAUSE:
            assert (now.gang, now.paused) == (Gang.ALIVE, False)
            assert now.wish in (Wish.HAND_BACK, Wish.STOP)


def test_an_attempt_is_closed_when_its_last_process_is_gone(chosen: Chosen) -> None:
    for now, move in chosen:
        if move is Move.CLOSE_ATTEMPT:
            assert now.gang is Gang.GONE
        if now.gang is Gang.GONE and now.wish is not Wish.KILL:
            assert move in (Move.CLOSE_ATTEMPT, Move.COMMIT_FINAL, Move.COMMIT_EMERGENCY, Move.WAIT)


def test_waiting_is_always_for_something(chosen: Chosen) -> None:
    """For training, for a pause, for processes that leave, for a commit, or for the next launch."""
    for now, move in chosen:
        if move is Move.WAIT:
            assert now.gang in (Gang.ALIVE, Gang.DONE) or now.committing or not now.launch_due


ALIVE, NONE, GONE, DONE = Gang.ALIVE, Gang.NONE, Gang.GONE, Gang.DONE
HAND_BACK, STOP = Wish.HAND_BACK, Wish.STOP


@pytest.mark.parametrize(
    ("now", "move"),
    [
        # a run, from its start to its end
        (Situation(gang=NONE, launch_due=False), Move.WAIT),
        (Situation(gang=NONE, wish=Wish.HAND_BACK, mirroring=True), Move.WAIT),
        (Situation(gang=NONE, wish=Wish.HAND_BACK, settled=9, committed=3, mirroring=True), Move.COMMIT_EMERGENCY),
        (Situation(gang=NONE, wish=Wish.KILL, mirroring=True), Move.LEAVE),
        (Situation(gang=NONE), Move.LAUNCH),
        (Situation(gang=ALIVE), Move.WAIT),
        (Situation(gang=ALIVE, settled=9, committed=3), Move.WAIT),
        (Situation(gang=ALIVE, settled=9, committed=3, periodic_due=True), Move.COMMIT_PERIODIC),
        (Situation(gang=ALIVE, settled=9, committed=3, periodic_due=True, committing=True), Move.WAIT),
        (Situation(gang=ALIVE, settled=9, trained=True), Move.COMMIT_FINAL),
        (Situation(gang=ALIVE, settled=9, trained=True, trained_committed=True), Move.WAIT),
        (Situation(gang=DONE, trained=True, trained_committed=True), Move.WAIT),
        (Situation(gang=DONE, trained=True, trained_committed=True, done_too_long=True), Move.KILL),
        (Situation(gang=GONE, trained=True, trained_committed=True), Move.CLOSE_ATTEMPT),
        # a notice with time left
        (Situation(gang=ALIVE, settled=9, committed=3, safety_due=True), Move.COMMIT_SAFETY),
        (Situation(gang=ALIVE, settled=9, committed=3, safety_due=True, periodic_due=True), Move.COMMIT_SAFETY),
        (Situation(gang=ALIVE, settled=9, committed=3, safety_due=True, committing=True), Move.WAIT),
        (Situation(gang=ALIVE, settled=9, committed=9, safety_due=True), Move.WAIT),
        (Situation(gang=ALIVE, settled=9, trained=True, safety_due=True), Move.COMMIT_FINAL),
        (Situation(gang=ALIVE, wish=HAND_BACK, settled=9, committed=3, safety_due=True), Move.PAUSE),
        (Situation(gang=Gang.BROKEN, settled=9, committed=3, safety_due=True), Move.KILL),
        (Situation(gang=GONE, settled=9, committed=3, safety_due=True), Move.COMMIT_EMERGENCY),
        (Situation(gang=NONE, settled=9, committed=3, safety_due=True, launch_due=False), Move.COMMIT_EMERGENCY),
        (Situation(gang=NONE, settled=9, committed=9, safety_due=True), Move.LAUNCH),
        # a death
        (Situation(gang=Gang.BROKEN, settled=9, committed=3), Move.KILL),
        (Situation(gang=GONE, settled=9, committed=3), Move.CLOSE_ATTEMPT),
        (Situation(gang=GONE, settled=9, trained=True), Move.COMMIT_FINAL),
        # a drain
        (Situation(gang=ALIVE, wish=HAND_BACK, settled=9, committed=3), Move.PAUSE),
        (Situation(gang=ALIVE, wish=HAND_BACK, settled=9, committed=3, paused=True), Move.COMMIT_EMERGENCY),
        (Situation(gang=ALIVE, wish=HAND_BACK, settled=9, committed=3, paused=True, committing=True), Move.WAIT),
        (Situation(gang=ALIVE, wish=HAND_BACK, settled=9, committed=9, paused=True), Move.WAIT),
        (Situation(gang=ALIVE, wish=HAND_BACK, settled=10, committed=9, paused=True), Move.COMMIT_EMERGENCY),
        (Situation(gang=ALIVE, wish=HAND_BACK, settled=9, committed=9, paused=True, all_paused=True), Move.KILL),
        (Situation(gang=ALIVE, wish=STOP, settled=9, committed=9, paused=True, drain_over=True), Move.KILL),
        (Situation(gang=GONE, wish=STOP, settled=9, committed=3), Move.COMMIT_EMERGENCY),
        (Situation(gang=GONE, wish=STOP, settled=9, committed=3, commit_failed=True), Move.CLOSE_ATTEMPT),
        (Situation(gang=NONE, wish=STOP, settled=9, committed=9), Move.LEAVE),
        (Situation(gang=NONE, wish=HAND_BACK, settled=9, committed=3), Move.COMMIT_EMERGENCY),
        # giving up
        (Situation(gang=NONE, over=True, settled=9, committed=3), Move.COMMIT_EMERGENCY),
        (Situation(gang=NONE, over=True, settled=9, committed=9), Move.LEAVE),
    ],
)
def test_this_situation_is_answered_by_this_move(now: Situation, move: Move) -> None:
    assert next_move(now) is move


LAST = 5


@dataclass
class World:
    """A run reduced to numbers: one tick is a step, a tenth of a second, or whatever passes while one waits."""

    lives: tuple[int | None, ...]  # steps that each attempt makes before it dies; None and the ones after: to the end
    wish: Wish
    wish_at: int
    commit_ticks: int
    commit_works: bool
    obeys: bool  # whether ranks pause when they are asked
    notice_at: int = -1  # word that leaves time
    now: Situation = field(default_factory=lambda: Situation(gang=Gang.NONE))
    ledger: Ledger = field(default_factory=Ledger)
    time: int = 0
    step: int = 0
    life: int = 0
    launch_at: int = 0
    paused_at: int = 0
    commit: tuple[Move, int, int] | None = None  # which, of which step, until when
    begun_at: int = -1  # the last commit
    ended: str | None = None

    def tick(self) -> None:
        self.time += 1
        if self.time == self.wish_at:
            self.now = replace(self.now, wish=self.wish)
        if self.time == self.notice_at:
            self.now = replace(self.now, safety_due=True)
        if self.commit is not None and self.time >= self.commit[2]:
            self.arrive(*self.commit[:2])
        if self.now.gang is Gang.ALIVE:
            self.work()
        elif self.now.gang is Gang.DONE:
            self.now = replace(self.now, gang=Gang.GONE)
        self.now = replace(
            self.now,
            launch_due=self.time >= self.launch_at,
            drain_over=self.now.paused and self.time >= self.paused_at + 4,
            periodic_due=self.now.settled >= self.now.committed + 2,
        )

    def work(self) -> None:
        dies_after = self.lives[self.life] if self.life < len(self.lives) else None
        if dies_after is not None and self.life_steps >= dies_after:
            self.now = replace(self.now, gang=Gang.BROKEN)
        elif self.now.trained:
            self.now = replace(self.now, gang=Gang.DONE)
        elif self.now.paused and self.obeys:
            self.now = replace(self.now, all_paused=True)
        elif self.step < LAST:
            self.step += 1
            self.life_steps += 1
            self.now = replace(self.now, settled=self.step, trained=self.step == LAST)

    life_steps: int = 0

    def arrive(self, move: Move, step: int) -> None:
        self.commit = None
        self.now = replace(self.now, committing=False)
        if not self.commit_works:
            self.now = replace(self.now, commit_failed=move not in (Move.COMMIT_PERIODIC, Move.COMMIT_SAFETY))
            return
        safety_due = self.now.safety_due and self.begun_at < self.notice_at
        self.now = replace(self.now, committed=max(self.now.committed, step), safety_due=safety_due)
        if move is Move.COMMIT_FINAL:
            self.now = replace(self.now, trained_committed=True)

    def make(self, move: Move) -> None:
        match move:
            case Move.WAIT:
                self.tick()
            case Move.LAUNCH:
                self.step = max(self.now.settled, 0)
                self.life_steps = 0
                self.now = replace(self.now, gang=Gang.ALIVE, paused=False, all_paused=False)
                self.ledger = fold([{"event": "attempt_started", "attempt": self.life + 1}], self.ledger)
            case Move.PAUSE:
                self.paused_at = self.time
                self.now = replace(self.now, paused=True)
            case Move.KILL:
                self.now = replace(self.now, gang=Gang.GONE)
            case Move.CLOSE_ATTEMPT:
                self.close()
            case Move.LEAVE:
                self.ended = "gave up" if self.now.over else self.now.wish.value
            case _:
                self.commit, self.begun_at = (move, self.now.settled, self.time + self.commit_ticks), self.time
                self.now = replace(self.now, committing=True)

    def close(self) -> None:
        returned = self.now.trained and (self.life >= len(self.lives) or self.lives[self.life] is None)
        cause = Cause.FINISHED if returned else Cause.CRASHED if self.now.wish is Wish.GO_ON else Cause.PREEMPTED
        record = {"event": "attempt_ended", "attempt": self.life + 1, "cause": cause.value, "step": self.now.settled}
        self.ledger = fold([record], self.ledger)
        self.life += 1
        self.now = replace(self.now, gang=Gang.NONE, paused=False, all_paused=False)
        if self.now.wish is not Wish.GO_ON and cause is not Cause.FINISHED:
            return
        match decide(Verdict(cause, "played"), self.ledger, Limits()):
            case Finish():
                if self.now.commit_failed:
                    self.now = replace(self.now, over=True)
                else:
                    self.ended = "finished"
            case Restart(delay_s):
                self.launch_at = self.time + min(3, int(delay_s))
            case GiveUp():
                self.now = replace(self.now, over=True)


LIVES = [(), (0,), (2,), (LAST,), (2, 0, 1), (0, 0, 0), (1, 1, 1, 1, 1, 1), (3, 0, 0, 0), (0,) * 9]
WISHES = [(Wish.GO_ON, -1), *product((Wish.HAND_BACK, Wish.STOP, Wish.KILL), (1, 2, 4, 6, 7, 8, 9, 12))]


def worlds() -> Iterator[World]:
    for lives, (wish, at), ticks, works, obeys in product(LIVES, WISHES, (1, 3), (True, False), (True, False)):
        for notice_at in (-1, 1, 3, 6):
            yield World(lives, wish, at, ticks, works, obeys, notice_at)


def test_every_run_comes_to_an_end_with_its_newest_step_on_disk() -> None:
    ends = set()
    for world in worlds():
        for _ in range(400):
            world.make(next_move(world.now))
            if world.ended is not None:
                break
        assert world.ended is not None, world
        ends.add(world.ended)
        now = world.now
        if world.commit_works and world.ended != Wish.KILL.value:
            assert now.trained_committed if now.trained else now.committed == now.settled, world
        if world.ended == "finished":
            assert now.trained_committed
            assert now.settled == LAST
        if world.ended == "gave up":
            assert world.ledger.barren >= 3 or now.commit_failed
    assert ends == {"finished", "gave up", *(w.value for w in (Wish.HAND_BACK, Wish.STOP, Wish.KILL))}
