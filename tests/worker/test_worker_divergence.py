"""Ordinary training is never taken for divergence, however noisy; divergence is seen when it comes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

import pytest

from supervisor.worker.divergence import IN_A_ROW, LEAST, Detector

STEPS = 4000


def falling(noise: Callable[[random.Random], float]) -> Callable[[random.Random], Iterator[float]]:
    def curve(rng: random.Random) -> Iterator[float]:
        for step in range(STEPS):
            yield (1.2 + 2.0 * math.exp(-step / 300)) * noise(rng)

    return curve


def epochs(rng: random.Random) -> Iterator[float]:
    """Falls at each epoch's edge, and is spread over decades in the last one, where the data is known by heart."""
    for step in range(STEPS):
        epoch = step // 1000
        yield (1.5, 0.6, 0.1, 0.01)[epoch] * math.exp(rng.gauss(0, 0.1 + 0.4 * epoch))


def known_by_heart(rng: random.Random) -> Iterator[float]:
    """Nearly all samples are known; one batch in four holds some that are not."""
    for _ in range(STEPS):
        yield rng.expovariate(1 / 0.01) + (rng.uniform(0.1, 1.0) if rng.random() < 0.25 else 0.001)


def constant(rng: random.Random) -> Iterator[float]:
    for _ in range(STEPS):
        yield math.log(2) + rng.gauss(0, 1e-7)


def around_zero(rng: random.Random) -> Iterator[float]:
    """The loss of a policy gradient has no scale."""
    for _ in range(STEPS):
        yield rng.gauss(0, 0.02) + (rng.gauss(0, 2.0) if rng.random() < 0.1 else 0)


def restarts(rng: random.Random) -> Iterator[float]:
    """A learning rate that starts anew makes bumps."""
    for step in range(STEPS):
        yield (1.0 + 0.8 * math.exp(-(step % 500) / 50)) * math.exp(rng.gauss(0, 0.05))


CURVES = {
    "little noise": falling(lambda rng: 1 + rng.gauss(0, 0.02)),
    "much noise": falling(lambda rng: math.exp(rng.gauss(0, 0.5))),
    "heavy tails": falling(lambda rng: 1 + abs(rng.gauss(0, 1) / (abs(rng.gauss(0, 1)) + 0.05)) * 0.2),
    "single odd batches": falling(lambda rng: 30.0 if rng.random() < 0.01 else 1 + rng.gauss(0, 0.05)),
    "epochs": epochs,
    "known by heart": known_by_heart,
    "constant": constant,
    "around zero": around_zero,
    "restarts of the learning rate": restarts,
}


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("seed", range(3))
def test_ordinary_training_never_raises_an_alarm(name: str, seed: int) -> None:
    rng, detector = random.Random(seed), Detector()
    seen = [detector.see(step, loss, rng.uniform(0.1, 5.0)) for step, loss in enumerate(CURVES[name](rng), 1)]
    assert not any(seen)
    assert detector.first is None


@pytest.mark.parametrize(
    "name", ["little noise", "much noise", "heavy tails", "single odd batches", "restarts of the learning rate"]
)
@pytest.mark.parametrize("seed", range(3))
def test_a_rise_that_stays_is_seen_at_its_fifth_step_and_named_by_its_first(name: str, seed: int) -> None:
    rng, detector = random.Random(seed), Detector()
    for step, loss in enumerate(CURVES[name](rng), 1):
        if step == 2000:
            break
        assert not detector.see(step, loss, 1.0)
    assert [detector.see(step, 300.0, 1.0) for step in range(2000, 2006)] == [False] * 4 + [True] * 2
    assert detector.first == 2000


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", [1, 7])
def test_what_is_not_finite_is_seen_at_once(value: float, step: int) -> None:
    for loss, grad_norm in ((value, 1.0), (1.0, value), (value, None), (None, value)):
        detector = Detector(spikes=False)
        assert not any(detector.see(before, 1.0, 1.0) for before in range(1, step))
        assert detector.see(step, loss, grad_norm)
        assert detector.first == step


def test_too_few_steps_tell_nothing_of_a_rise() -> None:
    detector = Detector()
    for step in range(1, LEAST):
        detector.see(step, 1.0, None)
    assert not any(detector.see(LEAST + more, 100.0, None) for more in range(IN_A_ROW))


def test_a_rise_that_passes_leaves_no_mark_on_what_comes_after() -> None:
    """Where it is ignored, training may find back by itself."""
    detector = Detector()
    losses = [1.0] * 50 + [9.0] * 6 + [1.0] * 2 + [9.0] * 5
    bad = [detector.see(step, loss, 1.0) for step, loss in enumerate(losses, 1)]
    assert [step for step, one in enumerate(bad, 1) if one] == [55, 56, 63]
    assert detector.first == 51


def test_only_who_is_to_look_for_rises_does() -> None:
    detector = Detector(spikes=False)
    assert not any(detector.see(step, 1.0 if step < 60 else 1e6, 1.0) for step in range(1, 100))


def test_what_is_unknown_is_no_divergence() -> None:
    detector = Detector()
    assert not any(detector.see(step, None, None) for step in range(1, 100))
