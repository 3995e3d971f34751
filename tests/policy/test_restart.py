"""Every cause with every ledger that matters: small enough to try them all."""

from itertools import product

import pytest

from supervisor.policy.causes import CLASSES, Cause, CauseClass, Verdict
from supervisor.policy.ledger import Ledger
from supervisor.policy.restart import Finish, GiveUp, Restart, backoff_s, decide

LEDGERS = [Ledger(barren=b, best_step=s) for b, s in product(range(6), (-1, 0, 100))]
PERMANENT = [cause for cause in Cause if CLASSES[cause] is CauseClass.PERMANENT]


def test_every_cause_has_a_class() -> None:
    assert set(CLASSES) == set(Cause)
    assert [c.value for c in PERMANENT] == ["disk_full", "bad_checkpoint", "user_error"]


@pytest.mark.parametrize("ledger", LEDGERS)
def test_only_a_finished_attempt_finishes_the_run(ledger: Ledger) -> None:
    assert [c for c in Cause if decide(Verdict(c, ""), ledger, 3) == Finish()] == [Cause.FINISHED]


@pytest.mark.parametrize(("cause", "ledger", "most"), list(product(Cause, LEDGERS, (1, 3, 5))))
def test_nothing_is_tried_again_without_hope(cause: Cause, ledger: Ledger, most: int) -> None:
    decision = decide(Verdict(cause, "evidence"), ledger, most)
    if cause in PERMANENT or ledger.barren >= most:
        assert isinstance(decision, Finish | GiveUp)
    else:
        assert isinstance(decision, Finish | Restart)
    if isinstance(decision, Restart):
        assert decision.delay_s == backoff_s(ledger.barren)


@pytest.mark.parametrize(("cause", "usage", "best"), list(product(PERMANENT, (True, False), (-1, 0, 7))))
def test_the_job_file_is_to_blame_only_if_nothing_was_ever_trained(cause: Cause, usage: bool, best: int) -> None:
    decision = decide(Verdict(cause, "why", usage=usage), Ledger(best_step=best), 3)
    assert decision == GiveUp(f"{cause.value}: why", usage=usage and best < 0)


def test_the_reason_counts_the_attempts_and_quotes_the_last() -> None:
    decision = decide(Verdict(Cause.UNKNOWN, "no rank recorded how it ended"), Ledger(barren=4), 3)
    assert decision == GiveUp(
        "unknown: 4 attempts in a row settled no newer step; the last one: no rank recorded how it ended"
    )


def test_pauses_double_up_to_ten_minutes_and_start_after_a_barren_attempt() -> None:
    pauses = [backoff_s(n) for n in range(12)]
    assert pauses == [0.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0, 600.0, 600.0]
