"""Histories of silences, as data: half an hour, or a day, takes no time at all."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from supervisor.policy.patience import FLOOR_S, UNSEEN_LATE_S, UNSEEN_SOON_S, Doing, Patience
from supervisor.policy.silence import Pulse, Silence

#: The loop looks so often [s].
LOOK_S = 0.5
HALF_AN_HOUR_S = 1800.0

History = Iterable[tuple[Doing, float]]


def watched(history: History, since: Silence | None = None, step_s: float = 0.2) -> tuple[Silence, list[float]]:
    """What is known after a history of (what a rank is at, how long until it moves), and when it was called a stall."""
    silence, now_s, alarms = since or Silence(), 0.0, []
    for number, (doing, lasts_s) in enumerate(history):
        pulse = Pulse(number, doing, step_s if doing is Doing.STEP else None)
        silence = silence.after([pulse], now_s)
        for _ in range(int(lasts_s / LOOK_S)):
            silence = silence.after([pulse], now_s := now_s + LOOK_S)
            if silence.silent_s >= (silence.late_s or 0.0):
                alarms.append(now_s)
        now_s += lasts_s % LOOK_S
    return silence, alarms


def slow_at_random(seed: int, sigma: float) -> Iterator[tuple[Doing, float]]:
    """Half an hour of steps, evaluations and saves, whose lengths all have heavy tails."""
    rng, passed_s = random.Random(seed), 0.0
    yield Doing.START, rng.uniform(1.0, 600.0)
    yield from ((Doing.FIRST, rng.uniform(0.2, 300.0)) for _ in range(3))
    number = 0
    while passed_s < HALF_AN_HOUR_S:
        number += 1
        spell = [(Doing.STEP, min(0.2 * rng.lognormvariate(0.0, sigma), 30.0))]
        if number % 200 == 0:
            spell += [(Doing.EVALUATION, min(0.1 * rng.lognormvariate(0.0, 2.0), 60.0)) for _ in range(20)]
            spell.append((Doing.EVALUATION, rng.uniform(1.0, 20.0)))  # metrics of everything
        if number % 500 == 0:
            spell.append((Doing.SAVE, min(5.0 * rng.lognormvariate(0.0, 1.0), 120.0)))
        passed_s += sum(one for _, one in spell)
        yield from spell


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 32), sigma=st.sampled_from([0.3, 1.0, 1.5, 2.0]))
@example(seed=1, sigma=2.0)
def test_half_an_hour_of_random_slowness_is_never_called_a_stall(seed: int, sigma: float) -> None:
    _, alarms = watched(slow_at_random(seed, sigma))
    assert alarms == []


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 3.0), min_size=1, max_size=12))
def test_a_step_up_to_three_times_as_long_as_the_longest_before_is_no_stall(factors: list[float]) -> None:
    lengths_s = [0.2] * 10
    for factor in factors:
        lengths_s.append(min(max(lengths_s) * factor, 20_000.0))
    silence, alarms = watched([(Doing.STEP, lasts_s) for lasts_s in lengths_s])
    assert alarms == []
    assert silence.late_s is not None
    assert silence.late_s > 2.9 * max(lengths_s[:-1])


def test_steady_steps_are_looked_into_soon_and_what_is_not_proved_waits_three_times_as_long() -> None:
    silence, _ = watched([(Doing.STEP, 0.2)] * 1000)
    assert silence.soon_s is not None
    assert FLOOR_S < silence.soon_s < 12.0
    assert silence.late_s == pytest.approx(3 * silence.soon_s)
    _, alarms = watched([(Doing.STEP, 100.0)], silence)
    assert alarms[0] == pytest.approx(silence.late_s, abs=2 * LOOK_S)


@pytest.mark.parametrize(
    ("doing", "late_s"),
    [
        *((doing, UNSEEN_LATE_S) for doing in (Doing.START, Doing.FIRST, Doing.STEP, Doing.EVALUATION, Doing.SAVE)),
        (Doing.REST, 7200.0),
    ],
)
def test_what_was_never_seen_is_looked_into_early_and_ended_late(doing: Doing, late_s: float) -> None:
    assert Patience().soon_s(doing) == UNSEEN_SOON_S
    assert Patience().late_s(doing) == late_s


@pytest.mark.parametrize("doing", [Doing.EVALUATION, Doing.SAVE])
def test_an_evaluation_is_known_only_when_it_has_been_seen_to_its_end(doing: Doing) -> None:
    """What comes last, such as the metrics of everything, takes longest, and comes only then."""
    silence, _ = watched([(doing, 0.5)] * 30)
    assert silence.patience.late_s(doing) == UNSEEN_LATE_S
    silence, alarms = watched([(doing, 0.5)] * 30 + [(doing, 600.0), (Doing.STEP, 0.5)])
    assert alarms == []
    assert 1800.0 < silence.patience.late_s(doing) < 1900.0
    short, _ = watched([(doing, 0.5)] * 30 + [(Doing.STEP, 0.5)])
    assert 60.0 < short.patience.late_s(doing) <= 300.0


def test_the_next_attempt_may_pass_over_much_data_before_its_first_step() -> None:
    silence, _ = watched([(Doing.START, 5.0), (Doing.FIRST, 1.0), (Doing.STEP, 0.2)])
    assert silence.anew().patience.late_s(Doing.FIRST) == 600.0
    assert silence.anew().patience.late_s(Doing.START) == 600.0


def test_a_slow_step_is_forgotten_but_not_soon() -> None:
    patience = Patience().learnt(Doing.STEP, 100.0)
    for _ in range(1000):
        patience = patience.learnt(Doing.STEP, 0.5)
    assert 90.0 < patience.soon_s(Doing.STEP, 0.5) < 110.0
    for _ in range(40_000):
        patience = patience.learnt(Doing.STEP, 0.5)
    assert patience.soon_s(Doing.STEP, 0.5) < 20.0


def test_what_was_ended_without_proof_is_not_ended_again_for_lasting_as_long() -> None:
    """Else a slow thing that comes once in an epoch would be ended for ever."""
    silence, alarms = watched([*[(Doing.STEP, 0.2)] * 50, (Doing.STEP, 50.0)])
    assert alarms != []
    again = silence.believed().anew()
    _, alarms = watched([*[(Doing.STEP, 0.2)] * 50, (Doing.STEP, 120.0)], again)
    assert alarms == []


def test_what_somebody_has_set_is_the_patience_of_steps_and_the_least_of_all_others() -> None:
    patience = Patience(fixed_s=90.0)
    for _ in range(20):
        patience = patience.learnt(Doing.STEP, 40.0).learnt(Doing.SAVE, 1.0, left=True)
    assert (patience.soon_s(Doing.STEP, 0.2), patience.late_s(Doing.STEP, 0.2)) == (90.0, 90.0)
    assert (patience.soon_s(Doing.SAVE), patience.late_s(Doing.SAVE)) == (90.0, 300.0)
    assert Patience(fixed_s=7200.0).late_s(Doing.EVALUATION) == 7200.0


@given(
    silences=st.lists(st.tuples(st.sampled_from(Doing), st.floats(0.0, 1e4), st.booleans()), max_size=30),
    step_s=st.none() | st.floats(0.001, 1e3),
    fixed_s=st.none() | st.floats(1.0, 1e4),
)
def test_nothing_is_looked_into_before_the_floor_nor_ended_before_it_was_looked_into(
    silences: list[tuple[Doing, float, bool]], step_s: float | None, fixed_s: float | None
) -> None:
    patience = Patience(fixed_s)
    for doing, silent_s, left in silences:
        patience = patience.learnt(doing, silent_s, left=left)
    for doing in Doing:
        soon_s, late_s = patience.soon_s(doing, step_s), patience.late_s(doing, step_s)
        assert soon_s <= late_s
        assert soon_s >= (FLOOR_S if fixed_s is None else min(FLOOR_S, fixed_s))


def test_another_rank_that_moves_is_no_silence_of_the_run() -> None:
    """A rank that waits for the one that saves says nothing for as long."""
    silence = Silence()
    for look in range(1000):
        saves, waits = Pulse(look // 4, Doing.SAVE), Pulse(0, Doing.STEP, 0.2)
        silence = silence.after([saves, waits], look * LOOK_S)
        assert silence.silent_s <= 4 * LOOK_S


def test_the_most_patient_phase_counts_and_ranks_of_which_nothing_is_expected_do_not() -> None:
    step, paused = Pulse(0, Doing.STEP, 0.2), Pulse(0, None)
    both = Silence().after([step, Pulse(0, Doing.EVALUATION)], 0.0)
    assert both.late_s == UNSEEN_LATE_S
    assert Silence().after([step, paused], 0.0).soon_s == Silence().after([step], 0.0).soon_s
    assert Silence().after([paused, paused], 0.0).late_s is None


def test_time_in_which_the_watcher_slept_or_the_disk_hung_does_not_count() -> None:
    pulse = [Pulse(0, Doing.STEP, 0.2)]
    silence = Silence().after(pulse, 0.0).after(pulse, 0.5)
    asleep = silence.after(pulse, 3600.0)  # the machine was suspended
    assert asleep.silent_s == pytest.approx(2.5)
    hung = silence
    for look in range(100):
        hung = hung.after(pulse, 1.0 + look, awake=False)
    assert hung.silent_s == pytest.approx(0.5)
    assert hung.after(pulse, 100.5).silent_s == pytest.approx(1.0)
