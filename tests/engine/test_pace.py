"""What commits cost training, measured at the ends of steps around them."""

from __future__ import annotations

import pytest

from supervisor.board.pages import Beat, Phase
from supervisor.engine.state.pace import Pace, period_of
from supervisor.job import Auto
from supervisor.policy.interval import Exposure
from supervisor.policy.schedule import AUTO_EVERY, Seconds, Steps

COMMIT = {"step": 7, "write_s": 1.0, "reason": "periodic"}


def at(step: int, time_s: float, phase: Phase = Phase.TRAINING, step_s: float = 2.0) -> list[Beat]:
    return [Beat(phase=phase, step=step, time_s=time_s, step_s=step_s, resumed=0)]


def measured(*moments: list[Beat], begins: list[Beat], ends: list[Beat]) -> float | None:
    pace = Pace(Auto(), 30.0, Exposure)
    pace.begins(begins)
    pace.ends(ends)
    for moment in moments:
        pace.look(moment)
    return pace.told(COMMIT).get("slowed_s")


def test_the_time_from_step_to_step_is_compared_with_what_steps_usually_take() -> None:
    assert measured(at(8, 104.5), begins=at(5, 98.0), ends=at(7, 102.1)) == pytest.approx(0.5)
    assert measured(at(7, 102.1), begins=at(5, 98.0), ends=at(7, 102.1)) is None, "the last step is not over yet"
    assert measured(at(9, 105.9), begins=at(5, 98.0), ends=at(7, 102.1)) == pytest.approx(-0.1)


@pytest.mark.parametrize(
    "between",
    [at(7, 102.2, Phase.EVALUATING), at(7, 103.0, Phase.PAUSED), at(3, 1.0), at(8, 105.0, step_s=float("nan"))],
)
def test_what_training_did_besides_says_nothing_of_a_commit(between: list[Beat]) -> None:
    assert measured(between, at(8, 104.5), begins=at(5, 98.0), ends=at(7, 102.1)) is None


def test_a_commit_of_an_attempt_that_ended_meanwhile_has_no_price() -> None:
    assert measured(at(8, 104.5), begins=at(5, 98.0), ends=[]) is None
    assert measured(at(8, 104.5), begins=at(5, 98.0, Phase.EVALUATING), ends=at(7, 102.1)) is None


def test_what_the_job_says_holds_and_auto_follows_what_is_measured() -> None:
    seen = Exposure(write_s=(1.0,), trained_s=36_000.0)
    assert period_of(Steps(7), seen, 30.0) == Steps(7)
    assert period_of(Seconds(9.0), seen, 30.0) == Seconds(9.0)
    assert period_of(Auto(), Exposure(), 30.0) == AUTO_EVERY
    assert period_of(Auto(), seen, 30.0) == Seconds(138.0)
    assert Pace(Seconds(9.0), 30.0, lambda: seen).told(COMMIT) == {}


def test_where_each_node_has_pieces_of_its_own_the_loss_of_any_of_them_counts() -> None:
    seen, machines = Exposure(write_s=(1.0,), trained_s=36_000.0), [1]
    pace = Pace(Auto(), 30.0, lambda: seen, lambda: machines[-1])
    alone = pace.period
    machines.append(16)
    assert pace.period == period_of(Auto(), seen, 30.0, 16) == Seconds(98.0)
    assert alone == Seconds(138.0)
    assert pace.told(COMMIT)["every_s"] == 98.0


def test_the_record_of_a_commit_tells_the_interval_when_it_is_new() -> None:
    seen = Exposure(write_s=(1.0,), trained_s=36_000.0)
    assert Pace(Auto(), 30.0, lambda: seen).told(COMMIT) == {"every_s": 138.0, "cost_s": 0.05, "between_s": 193_137}
    seen = Exposure(write_s=(1.0,), trained_s=36_000.0, told_s=120.0)
    assert Pace(Auto(), 30.0, lambda: seen).told(COMMIT) == {}


def test_the_period_follows_the_journal() -> None:
    seen = [Exposure()]
    pace = Pace(Auto(), 30.0, lambda: seen[-1])
    assert pace.period == AUTO_EVERY
    seen.append(Exposure(write_s=(1.0,), trained_s=36_000.0))
    assert pace.period == Seconds(138.0)
