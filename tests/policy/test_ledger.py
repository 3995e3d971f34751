"""Budgets are folded from the journal and from nothing else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.policy.causes import CLASSES, Cause, CauseClass
from supervisor.policy.ledger import Ledger, fold

Record = dict[str, Any]
EXPECTED = [cause for cause in Cause if CLASSES[cause] is CauseClass.EXPECTED]


def ended(cause: Cause | str, step: int | None) -> Record:
    return {"event": "attempt_ended", "cause": getattr(cause, "value", cause), "step": step}


def started(attempt: int, world_size: int = 2) -> Record:
    return {"event": "attempt_started", "attempt": attempt, "world_size": world_size}


def committed(step: int, reason: str = "periodic") -> Record:
    path = f"checkpoints/checkpoint-{step}"
    return {"event": "checkpoint_committed", "lineage": 0, "step": step, "path": path, "reason": reason}


def test_an_empty_journal_is_a_run_that_never_was() -> None:
    assert fold([]) == Ledger()
    assert fold([{"event": "progress"}, {}, {"event": "from the future"}]) == Ledger()


@pytest.mark.parametrize("cause", list(Cause))
def test_an_attempt_without_a_newer_step_is_barren_unless_its_end_was_expected(cause: Cause) -> None:
    barren = 0 if cause in EXPECTED else 1
    assert fold([ended(cause, None)]).barren == barren
    assert fold([ended("crashed", 10), ended(cause, 10)]).barren == barren
    assert fold([ended("crashed", 10), ended(cause, 3)]).barren == barren
    assert fold([ended("crashed", None), ended("crashed", None), ended(cause, 0)]).barren == 0


def test_expected_ends_leave_the_count_as_it_is() -> None:
    history = [ended("crashed", None), ended("preempted", None), ended("crashed", None)]
    assert [fold(history[:n]).barren for n in range(4)] == [0, 1, 1, 2]


def test_progress_is_a_step_newer_than_any_before_and_not_than_the_last_one() -> None:
    history = [ended("crashed", 50), ended("crashed", 20), ended("crashed", 50), ended("crashed", 51)]
    assert [fold(history[:n]).barren for n in range(1, 5)] == [0, 1, 2, 0]
    assert fold(history).best_step == 51


def test_a_cause_that_this_version_does_not_know_counts() -> None:
    assert fold([ended("struck by lightning", None)]).barren == 1


def test_an_attempt_stays_open_until_its_end_is_written_down() -> None:
    history = [started(1), ended("crashed", 1), started(2, world_size=4)]
    ledger = fold(history)
    assert (ledger.attempts, ledger.open_attempt, ledger.world_size) == (2, 2, 4)
    assert fold([*history, ended("crashed", 2)]).open_attempt is None


def test_checkpoints_are_remembered_whatever_becomes_of_them() -> None:
    ledger = fold([committed(10), committed(20), committed(25, "final")])
    assert [step for _, step, _ in ledger.committed] == [10, 20, 25]
    assert ledger.committed[0] == (0, 10, "checkpoints/checkpoint-10")
    assert ledger.trained_step == 25
    assert fold([committed(9, "best")]).trained_step == 9
    assert fold([{**committed(9, "best"), "trained": False}]).trained_step is None, "it was measured best so far"


RUN: Record = {"event": "run_started", "run_id": "a", "mathematics": "m"}
GAVE_UP = [RUN, started(1), ended("crashed", None), ended("crashed", None), {"event": "run_gave_up", "reason": "why"}]


def test_a_run_that_gave_up_stays_so_until_it_is_forgiven() -> None:
    assert fold(GAVE_UP).gave_up == "why"
    assert fold([*GAVE_UP, RUN]).gave_up == "why"
    forgiven = fold([*GAVE_UP, {**RUN, "forgive": True}])
    assert (forgiven.gave_up, forgiven.barren, forgiven.attempts) == (None, 0, 1)


def test_a_fresh_start_forgets_all_but_the_numbers_that_must_not_come_again() -> None:
    allocated = {"event": "allocation_started", "epoch": 7}
    ledger = fold([allocated, *GAVE_UP, committed(10), {**RUN, "run_id": "b", "fresh": True}])
    assert ledger == Ledger(run_id="b", mathematics="m", attempts=1, lineage=1, epoch=7)


def test_a_finished_run_is_finished_until_it_is_continued() -> None:
    done = [RUN, committed(25, "final"), ended("finished", 25), {"event": "run_finished"}]
    assert fold(done).finished
    assert fold([*done, RUN]).finished
    longer = fold([*done, {**RUN, "continued": True}])
    assert (longer.finished, longer.trained_step, longer.best_step) == (False, 25, 25)


def test_the_highest_epoch_counts_and_an_unreadable_one_does_not() -> None:
    epochs = [{"event": "allocation_started", "epoch": e} for e in (3, 1, None, "5")]
    assert fold(epochs).epoch == 3


records = st.one_of(
    st.builds(ended, st.sampled_from(Cause), st.one_of(st.none(), st.integers(0, 50))),
    st.builds(started, st.integers(1, 9)),
    st.builds(committed, st.integers(0, 50)),
    st.just(RUN),
    st.just({"event": "run_finished"}),
    st.just({"event": "run_gave_up", "reason": "r"}),
    st.just({"event": "allocation_started", "epoch": 2}),
)


@given(st.lists(records), st.integers(0, 20))
def test_folding_in_two_parts_is_folding_at_once(history: list[Record], at: int) -> None:
    assert fold(history[at:], fold(history[:at])) == fold(history)


@given(st.lists(records))
def test_budgets_are_spent_one_by_one_and_steps_never_unlearnt(history: list[Record]) -> None:
    ledger = Ledger()
    for record in history:
        after = fold([record], ledger)
        assert after.barren in (0, ledger.barren, ledger.barren + 1)
        assert after.best_step >= ledger.best_step
        assert after.attempts >= ledger.attempts
        assert after.committed[: len(ledger.committed)] == ledger.committed
        ledger = after
