"""Every cause with every ledger that matters: small enough to try them all."""

from itertools import product

import pytest

from supervisor.policy.adapt import Adaptation
from supervisor.policy.causes import CLASSES, Cause, CauseClass, Verdict
from supervisor.policy.ledger import Ledger, fold
from supervisor.policy.restart import (
    Adapt,
    Facts,
    Finish,
    GiveUp,
    LeaveNode,
    Limits,
    Restart,
    backoff_s,
    decide,
    hopeless,
)

LEDGERS = [Ledger(barren=b, best_step=s) for b, s in product(range(6), (-1, 0, 100))]
PERMANENT = [cause for cause in Cause if CLASSES[cause] is CauseClass.PERMANENT]


def test_every_cause_has_a_class() -> None:
    assert set(CLASSES) == set(Cause)
    assert [c.value for c in PERMANENT] == ["disk_full", "bad_checkpoint", "user_error"]


@pytest.mark.parametrize("ledger", LEDGERS)
def test_only_a_finished_attempt_finishes_the_run(ledger: Ledger) -> None:
    assert [c for c in Cause if decide(Verdict(c, ""), ledger, Limits()) == Finish()] == [Cause.FINISHED]


@pytest.mark.parametrize(("cause", "ledger", "most"), list(product(Cause, LEDGERS, (1, 3, 5))))
def test_nothing_is_tried_again_without_hope(cause: Cause, ledger: Ledger, most: int) -> None:
    decision = decide(Verdict(cause, "evidence"), ledger, Limits(max_barren=most))
    # Of a program that says nothing of itself nothing can be changed: what ran out of memory twice will again.
    most = min(most, 2) if cause in (Cause.GPU_OOM, Cause.HOST_OOM) else most
    if cause in PERMANENT or ledger.barren >= most:
        assert isinstance(decision, Finish | GiveUp)
    elif cause is Cause.GPU_FAULT:
        assert isinstance(decision, GiveUp)
    else:
        assert isinstance(decision, Finish | Restart)
    if isinstance(decision, Restart):
        assert backoff_s(ledger.barren) <= decision.delay_s <= 600.0


@pytest.mark.parametrize(("cause", "usage", "best"), list(product(PERMANENT, (True, False), (-1, 0, 7))))
def test_the_job_file_is_to_blame_only_if_nothing_was_ever_trained(cause: Cause, usage: bool, best: int) -> None:
    decision = decide(Verdict(cause, "why", usage=usage), Ledger(best_step=best), Limits())
    assert decision == GiveUp(f"{cause.value}: why", usage=usage and best < 0)


def test_the_reason_counts_the_attempts_and_quotes_the_last() -> None:
    decision = decide(Verdict(Cause.UNKNOWN, "no rank recorded how it ended"), Ledger(barren=4), Limits())
    assert decision == GiveUp(
        "unknown: 4 attempts in a row settled no newer step; the last one: no rank recorded how it ended"
    )


def test_pauses_double_up_to_ten_minutes_and_start_after_a_barren_attempt() -> None:
    pauses = [backoff_s(n) for n in range(12)]
    assert pauses == [0.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0, 600.0, 600.0]


def test_pauses_are_spread_so_that_runs_that_failed_together_do_not_come_back_together() -> None:
    crash = Verdict(Cause.NETWORK, "no route to host")
    pauses = {decide(crash, Ledger(barren=2), Limits(), Facts(chance=chance / 10)) for chance in range(11)}
    delays = sorted(one.delay_s for one in pauses if isinstance(one, Restart))
    assert (len(delays), delays[0], delays[-1]) == (11, 45.0, 75.0)


@pytest.mark.parametrize(("cause", "hopeless"), [(Cause.CRASHED, True), (Cause.UNKNOWN, True), (Cause.NETWORK, False)])
def test_the_same_root_at_the_same_step_twice_is_no_chance(cause: Cause, hopeless: bool) -> None:
    end = {"event": "attempt_ended", "cause": cause.value, "root": "ZeroDivisionError", "step": 6}
    once, twice = fold([end]), fold([end, end])
    verdict = Verdict(cause, "rank 0 raised ZeroDivisionError")
    assert isinstance(decide(verdict, once, Limits(max_barren=9)), Restart)
    decision = decide(verdict, twice, Limits(max_barren=9))
    assert isinstance(decision, GiveUp) == hopeless
    assert not hopeless or "the same 2 times at step 6" in str(decision)


def test_another_root_or_another_step_is_another_chance() -> None:
    ends = [("a", 6), ("b", 6), ("a", 6), ("a", 7), (None, 7), (None, 7)]
    records = [{"event": "attempt_ended", "cause": "crashed", "root": root, "step": step} for root, step in ends]
    for count in range(1, len(records) + 1):
        assert fold(records[:count]).same_root < 2


def test_a_broken_gpu_is_left_where_another_node_is_to_be_had() -> None:
    fault = Verdict(Cause.GPU_FAULT, "GPU 0 has fallen off the bus")
    assert decide(fault, Ledger(barren=1), Limits(requeues=True)) == LeaveNode("GPU 0 has fallen off the bus")
    assert isinstance(decide(fault, Ledger(barren=1), Limits()), GiveUp)
    assert isinstance(decide(fault, Ledger(barren=3), Limits(requeues=True)), GiveUp)


def test_a_run_that_is_taken_away_before_each_first_step_comes_to_an_end() -> None:
    taken = [{"event": "attempt_ended", "cause": cause, "step": None} for cause in ("preempted", "time_limit")] * 5
    assert hopeless(fold(taken[:9])) is None
    assert "10 times in a row" in (hopeless(fold(taken)) or "")
    gained = [*taken[:9], {"event": "attempt_ended", "cause": "preempted", "step": 1}, *taken[:9]]
    assert hopeless(fold(gained)) is None
    stops = [{"event": "attempt_ended", "cause": "user_stop", "step": None}] * 20
    assert hopeless(fold(stops)) is None
    assert hopeless(fold([{"event": "run_started", "forgive": True}], fold(taken))) is None


def test_a_hub_that_is_away_at_the_start_is_done_without_and_then_waited_for() -> None:
    away = Verdict(Cause.NETWORK, "couldn't connect to 'https://huggingface.co'", root="hub_unreachable")
    missing = Verdict(Cause.USER_ERROR, "not in the cache", root="hub_offline")
    end = {"event": "attempt_ended", "cause": "network", "root": "hub_unreachable", "step": None}
    first = decide(away, fold([end]), Limits())
    assert isinstance(first, Adapt)
    assert first.to == Adaptation(offline=True)

    offline = fold([end, {"event": "adapted", "changes": first.to.told()}])
    second = decide(missing, offline, Limits())
    assert isinstance(second, Adapt)
    assert (second.to.offline, second.delay_s) == (False, 5.0)

    online = fold([{"event": "adapted", "changes": second.to.told()}, end], offline)
    assert isinstance(decide(away, online, Limits()), Restart)
    assert isinstance(decide(away, fold([end, end], online), Limits()), GiveUp)


def test_who_said_offline_himself_is_believed() -> None:
    missing = Verdict(Cause.USER_ERROR, "not in the cache", root="hub_offline")
    assert isinstance(decide(missing, Ledger(), Limits()), GiveUp)


def test_a_killer_from_outside_is_no_fault_of_the_program() -> None:
    killed = {"event": "attempt_ended", "cause": "crashed", "root": "killed", "step": 6}
    assert isinstance(decide(Verdict(Cause.CRASHED, "", root="killed"), fold([killed] * 3), Limits()), Restart)
