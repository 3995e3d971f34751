"""When ranks are asked, and what is made of their silence: beats are told, and so is the time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from harness import until

from supervisor.board.pages import Beat, Phase
from supervisor.engine.disk import Disk
from supervisor.engine.ranks.vigil import LIMIT_S, Vigil
from supervisor.policy.causes import Cause, Verdict
from supervisor.policy.stalls import Account

LOOK_S = 0.5
STOPPED = Account(rank=1, pid=11, state="T", files=("rank-1.stacks.txt",))
WAITS = Account(rank=0, pid=10, state="S", frames=("torch/distributed/distributed_c10d.py:all_reduce",))
LOCKED = Account(rank=1, pid=11, state="S", frames=("train.py:augment",), gpu_percent=0)
COMPILES = Account(rank=1, pid=11, state="S", frames=("torch/_inductor/codecache.py:compile_file",))


@dataclass
class TwoRanks:
    """A team whose beats and accounts are told.

    Attributes:
        questions: number of each, and whether what lies below Python was asked for.
        answers: to every question; None for none that comes.
    """

    beats: list[Beat]
    answers: list[Account] | None = None
    questions: list[tuple[int, bool]] = field(default_factory=list)
    hosts: dict[int, str] = field(default_factory=dict)

    def inquire(self, number: int, *, native: bool) -> None:
        self.questions.append((number, native))

    def accounts(self, number: int) -> tuple[list[Account], bool]:
        assert number == self.questions[-1][0]
        return (self.answers, True) if self.answers is not None else ([], False)


@dataclass
class Watched:
    """A vigil, and the time."""

    vigil: Vigil
    team: TwoRanks
    written: list[dict[str, Any]]
    now_s: float = 0.0

    def step(self, count: int, pace_s: float = LOOK_S, **changes: Any) -> None:
        """So many steps of both ranks."""
        for _ in range(count):
            self.now_s += pace_s
            self.team.beats = [
                replace(beat, step=beat.step + 1, time_s=self.now_s, step_s=pace_s, phase=Phase.TRAINING, **changes)
                for beat in self.team.beats
            ]
            assert self.vigil.look(self.now_s, trains=True) is None

    def enter(self, phase: Phase) -> None:
        self.team.beats = [replace(beat, phase=phase, time_s=self.now_s) for beat in self.team.beats]

    def silent(self, most_s: float, *, trains: bool = True) -> tuple[Verdict | None, float]:
        """Nothing moves: the verdict, and after how long."""
        began_s = self.now_s
        while self.now_s - began_s < most_s:
            self.now_s += LOOK_S
            verdict = self.vigil.look(self.now_s, trains=trains)
            if verdict is not None:
                return verdict, self.now_s - began_s
        return None, most_s


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    yield made
    made.close(10.0)


@pytest.fixture
def watched(tmp_path: Path, disk: Disk) -> Watched:
    return watched_with(tmp_path, disk)


def watched_with(logs: Path, disk: Disk, fixed_s: float | None = None) -> Watched:
    written: list[dict[str, Any]] = []
    team = TwoRanks([Beat(pid=10 + rank, phase=Phase.TRAINING, step=0, resumed=0, max_steps=100) for rank in range(2)])
    vigil = Vigil(team, disk, lambda event, **told: written.append({"event": event, **told}), logs, fixed_s)  # type: ignore[arg-type]
    vigil.begin(1)
    return Watched(vigil, team, written)


def test_a_stopped_rank_is_found_at_the_first_look_into_it(watched: Watched) -> None:
    watched.step(30)
    watched.team.answers = [WAITS, STOPPED]
    verdict, after_s = watched.silent(100.0)
    assert verdict is not None
    assert verdict.cause is Cause.STALLED
    assert verdict.evidence == (
        "nothing moved for 12 s: rank 1 is stopped (SIGSTOP, state T) at step 30 while rank 0 waits in all_reduce; "
        f"stacks in {watched.vigil.logs.name}/attempt-1: rank-1.stacks.txt"
    )
    assert 10.0 < after_s < 14.0
    assert watched.team.questions == [(1001, False)]


def test_a_rank_that_is_not_proved_to_stand_still_is_asked_again_and_then_ended(watched: Watched) -> None:
    watched.step(30)
    watched.team.answers = [WAITS, LOCKED]
    verdict, after_s = watched.silent(100.0)
    assert verdict is not None
    assert "rank 1 is in train.py:augment() at step 30 while rank 0 waits in all_reduce; GPUs 0 % busy" in (
        verdict.evidence
    )
    assert 34.0 < after_s < 40.0
    assert watched.team.questions == [(1001, False), (1002, True)]


def test_who_does_not_answer_is_not_waited_for(watched: Watched) -> None:
    watched.step(30)
    verdict, after_s = watched.silent(100.0)
    assert verdict is not None
    assert "ranks 0 and 1 are silent, and gave no account at step 30" in verdict.evidence
    assert 34.0 < after_s < 38.0 + LIMIT_S


def test_whoever_compiles_is_given_the_time(watched: Watched) -> None:
    watched.step(30)
    watched.team.answers = [WAITS, COMPILES]
    verdict, after_s = watched.silent(4000.0)
    assert verdict is not None
    assert 1800.0 <= after_s < 1810.0


def test_a_rank_that_moves_while_it_is_asked_is_asked_anew_the_next_time(watched: Watched) -> None:
    watched.step(30)
    assert watched.silent(12.5) == (None, 12.5)
    assert watched.vigil.asking
    watched.step(1)
    assert not watched.vigil.asking
    watched.team.answers = [WAITS, STOPPED]
    verdict, after_s = watched.silent(100.0)
    assert verdict is not None
    assert after_s > 20.0  # a silence of 12 s has just been seen to end by itself
    assert [number for number, _ in watched.team.questions] == [1001, 1002]


@pytest.mark.parametrize(
    ("phase", "most_s"), [(Phase.EVALUATING, 1790.0), (Phase.SAVING, 1790.0), (Phase.PAUSED, 1e5), (Phase.TRAINED, 7e3)]
)
def test_the_first_evaluation_save_and_rest_are_given_long_and_a_drain_is_left_to_itself(
    watched: Watched, phase: Phase, most_s: float
) -> None:
    watched.step(30)
    watched.team.answers = [WAITS, LOCKED]
    watched.enter(phase)
    assert watched.silent(most_s) == (None, most_s)


def test_a_program_that_is_not_known_to_tell_anything_is_never_ended(watched: Watched) -> None:
    watched.enter(Phase.LOADING)
    watched.team.answers = [WAITS, STOPPED]
    assert watched.silent(1e5, trains=False) == (None, 1e5)
    assert watched.team.questions == []
    verdict, after_s = watched.silent(1e5, trains=True)
    assert verdict is not None
    assert after_s < 60.0


def test_with_a_patience_that_was_set_such_a_program_is_ended_if_its_log_stands_still(
    tmp_path: Path, disk: Disk
) -> None:
    watched = watched_with(tmp_path, disk, fixed_s=5.0)
    (tmp_path / "attempt-1").mkdir()
    log = tmp_path / "attempt-1" / "rank-0.log"
    watched.enter(Phase.LOADING)
    watched.team.answers = [WAITS, LOCKED]
    for line in range(100):
        with log.open("a") as file:
            file.write(f"{line}\n")
        assert watched.silent(100.0, trains=False) == (None, 100.0)
        done = disk.do(lambda: None)
        until(lambda done=done: done.over, "look at the log")  # things are done in order
    verdict, after_s = watched.silent(1e5, trains=False)
    assert verdict is not None
    assert after_s > 1600.0


def test_a_patience_that_was_set_is_kept_to_whatever_is_found(tmp_path: Path, disk: Disk) -> None:
    watched = watched_with(tmp_path, disk, fixed_s=40.0)
    watched.step(30)
    watched.team.answers = [WAITS, STOPPED]
    verdict, after_s = watched.silent(100.0)
    assert verdict is not None
    assert 40.0 <= after_s <= 41.0
    watched = watched_with(tmp_path, disk, fixed_s=40.0)
    watched.step(30)
    watched.team.answers = [WAITS, COMPILES]
    _, after_s = watched.silent(100.0)
    assert 40.0 <= after_s <= 41.0


def test_another_attempt_is_asked_under_other_numbers_and_knows_what_was_learnt(watched: Watched) -> None:
    watched.step(30)
    watched.team.answers = [WAITS, LOCKED]
    _, first_s = watched.silent(100.0)
    watched.vigil.begin(2)
    watched.team.beats = [replace(beat, resumed=beat.step) for beat in watched.team.beats]
    watched.step(30)
    verdict, again_s = watched.silent(1000.0)
    assert verdict is not None
    assert again_s > 3 * first_s  # what was ended without proof is not ended so soon again
    assert [number for number, _ in watched.team.questions] == [1001, 1002, 2001, 2002]


def test_on_several_nodes_the_one_that_is_behind_is_remembered(watched: Watched) -> None:
    watched.team.hosts = {0: "n1", 1: "n2"}
    watched.step(30)
    watched.team.answers = [WAITS, STOPPED]
    verdict, _ = watched.silent(100.0)
    assert verdict is not None
    assert "rank 1 on n2 is stopped" in verdict.evidence
    assert watched.vigil.hosts == ("n2",)
    watched.vigil.begin(2)
    assert watched.vigil.hosts == ()


def test_a_straggler_is_written_down_once_with_its_node(watched: Watched) -> None:
    watched.team.hosts = {0: "n1", 1: "n2", 2: "n2"}
    watched.team.beats.append(replace(watched.team.beats[0], pid=12))
    for _ in range(120):
        watched.team.beats = [replace(beat, own_s=0.4 if beat.pid == 11 else 0.1) for beat in watched.team.beats]
        watched.step(1)
    assert watched.written == [
        {
            "event": "incident",
            "cause": None,
            "detail": "straggler on n2: rank 1 takes 0.4 s of each step for itself, 4.0 times its peers' 0.1 s",
            "decision": "training goes on",
            "rank": 1,
            "node": "n2",
        }
    ]
