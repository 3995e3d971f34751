"""How much time `every: auto` loses against the best fixed interval, over three decades of failure rates.

Lost is all that did not become saved work: what commits cost, and what was done again. Restarts cost every interval
the same and are left out, which makes the comparison harder to win. A commit takes `write` seconds, during which
training goes on and loses `cost` seconds in all; a failure before its end falls back to the one before.

1. The rate is known, failures are exponential: the expected loss in closed form (Daly 2006, equation 20, is the case
   `write = cost`), and the best fixed interval by a search over it. No chance is in it.
2. Nothing is known: the policy begins with its prior and learns from what happens to it, event by event. The fixed
   intervals live through the same failures, and the best of them is chosen in hindsight.
3. The same with failures that are not exponential: Weibull's with shape 0.7, as clusters have them, and those of a
   trace of spot machines (lines of `milliseconds,add|remove,node`).

Run it:
    python tests/bench/interval.py [--seeds 20] [--failures 100] [--trace p3-trace.csv]
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from supervisor.policy.interval import Exposure, interval

HOUR_S = 3600.0
DECADES_H = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
#: Commits whose interval meets neither of the policy's ends at these rates; what the ends cost is shown apart.
COMMITS = ((1.0, 1.0), (1.0, 10.0))
GRACE_S = 60.0
TICK_S = 60.0
#: The policy is asked again when training has gone on for this share of all that it has seen: it asks at every commit,
#: but then the answer is the same to a hundredth.
_FRESH = 0.01
_RATIO = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True)
class Commit:
    """What one costs training, and how long it takes [s]."""

    cost_s: float
    write_s: float

    def seen(self) -> Exposure:
        return Exposure(write_s=(self.write_s,), slowed_s=(self.cost_s,))

    def after(self, every_s: float, times: int) -> float:
        """Work that so many commits have saved [s]."""
        return times * every_s + max(0, times - 1) * (self.write_s - self.cost_s)


def expected_loss(every_s: float, between_s: float, commit: Commit) -> float:
    """Share of the time that is lost at a fixed interval, in closed form."""
    through = math.exp(-(every_s + commit.write_s) / between_s)
    commits = through / (1.0 - through)  # that an uptime sees the end of
    saved_s = every_s * commits + (commit.write_s - commit.cost_s) * (commits - through)
    return 1.0 - saved_s / between_s


def least(loss: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one minimum has it, by golden section on a logarithmic scale."""
    a, b = math.log(low), math.log(high)
    while b - a > 1e-6:
        c, d = b - _RATIO * (b - a), a + _RATIO * (b - a)
        a, b = (a, d) if loss(math.exp(c)) < loss(math.exp(d)) else (c, b)
    return math.exp((a + b) / 2.0)


def fixed(uptimes_s: Sequence[float], every_s: float, commit: Commit) -> float:
    """Time lost at a fixed interval [s]."""
    cycle_s = every_s + commit.write_s
    return sum(up_s - commit.after(every_s, int(up_s // cycle_s)) for up_s in uptimes_s)


def learning(uptimes_s: Iterable[float], commit: Commit) -> tuple[float, float]:
    """Time lost by the policy, which is told of nothing but what happens to it [s], and its last interval [s]."""
    seen, lost_s, every_s = commit.seen(), 0.0, _every_s(commit.seen())
    for up_s in uptimes_s:
        now_s = saved_s = work_s = asked_s = 0.0
        while now_s + every_s + commit.write_s <= up_s:
            saved_s = work_s + every_s  # its snapshot was taken when it began
            work_s += every_s + commit.write_s - commit.cost_s
            now_s += every_s + commit.write_s
            if now_s - asked_s > _FRESH * (seen.trained_s + now_s):
                asked_s, every_s = now_s, _every_s(replace(seen, trained_s=seen.trained_s + now_s))
        lost_s += up_s - saved_s
        seen = replace(seen, losses=seen.losses + 1, trained_s=seen.trained_s + up_s)
        every_s = _every_s(seen)
    return lost_s, every_s


def learning_expected(uptimes_s: Iterable[float], between_s: float, commit: Commit) -> float:
    """Time that the policy is expected to lose, given what it had learnt at each moment [s].

    Exponential failures do not know when a commit was, so the closed form holds piece by piece; left to chance is
    only what the policy has seen, and not at which moment between two commits each failure comes.
    """
    seen, lost_s = commit.seen(), 0.0
    for up_s in uptimes_s:
        now_s = 0.0
        while now_s < up_s:
            every_s = _every_s(replace(seen, trained_s=seen.trained_s + now_s))
            piece_s = min(up_s - now_s, max(every_s, _FRESH * (seen.trained_s + now_s)))
            lost_s += piece_s * expected_loss(every_s, between_s, commit)
            now_s += piece_s
        seen = replace(seen, losses=seen.losses + 1, trained_s=seen.trained_s + up_s)
    return lost_s


def _every_s(seen: Exposure) -> float:
    found = interval(seen, GRACE_S)
    assert found is not None
    return found.every_s


def best_fixed(uptimes_s: Sequence[float], commit: Commit, about_s: float) -> tuple[float, float]:
    """The least loss of any fixed interval in hindsight [s], and that interval [s]; loss steps, so all are tried."""
    tried = [about_s * 1.03**n for n in range(-45, 46)]
    return min((fixed(uptimes_s, every_s, commit), every_s) for every_s in tried)


def known(commit: Commit) -> None:
    print(f"\n1. the rate is known; a commit costs {commit.cost_s:g} s and takes {commit.write_s:g} s")
    print("   failures every   auto      lost      best fixed   lost      auto loses more by")
    for hours in DECADES_H:
        between_s = hours * HOUR_S
        many = 10**9
        found = interval(replace(commit.seen(), losses=many, trained_s=many * between_s), GRACE_S)
        assert found is not None

        def loss(every_s: float, between_s: float = between_s) -> float:
            return expected_loss(every_s, between_s, commit)

        best_s = least(loss, 1.0, between_s)
        more = loss(found.every_s) / loss(best_s) - 1.0
        print(
            f"   {hours:8.0f} h   {found.every_s:8.1f} s  {loss(found.every_s):8.4%}"
            f"   {best_s:8.1f} s  {loss(best_s):8.4%}   {more:8.3%}"
        )


def learnt(commit: Commit, name: str, draw: Callable[[random.Random, float], float], given: argparse.Namespace) -> None:
    print(
        f"\n2. nothing is known; {name} failures, {given.failures} a run, {given.seeds} runs; "
        f"a commit costs {commit.cost_s:g} s and takes {commit.write_s:g} s"
    )
    print(
        "   failures every   auto at last   best fixed   auto loses more by (standard error)   expected to lose more by"
    )
    for hours in given.hours:
        runs = [_drawn(seed, hours, draw, given.failures) for seed in range(given.seeds)]
        expected = f"   {expected_more(runs, hours * HOUR_S, commit)}" if draw is exponential else ""
        print(f"   {hours:8.0f} h  {compared(commit, runs)}{expected}")


def expected_more(runs: Sequence[Sequence[float]], between_s: float, commit: Commit) -> str:
    """What the policy is expected to lose more than the best fixed interval, which knows the rate."""
    best_s = least(lambda every_s: expected_loss(every_s, between_s, commit), 1.0, between_s)
    best = expected_loss(best_s, between_s, commit)
    lost = [learning_expected(run, between_s, commit) - best * sum(run) for run in runs]
    return _share(lost, best * statistics.fmean(sum(run) for run in runs))


def _drawn(seed: int, hours: float, draw: Callable[[random.Random, float], float], count: int) -> list[float]:
    chance = random.Random(f"{seed} {hours}")
    return [draw(chance, hours * HOUR_S) for _ in range(count)]


def compared(commit: Commit, runs: Sequence[Sequence[float]]) -> str:
    """The policy and the best fixed interval in the same runs; that interval is the same in all of them."""
    between_s = statistics.fmean(up_s for run in runs for up_s in run)
    about_s = max(1.0, math.sqrt(2.0 * commit.cost_s * between_s))
    _, best_s = best_fixed([up_s for run in runs for up_s in run], commit, about_s)
    pairs = [(learning(run, commit), fixed(run, best_s, commit)) for run in runs]
    more = _share(
        [ours_s - other_s for (ours_s, _), other_s in pairs], statistics.fmean(other_s for _, other_s in pairs)
    )
    at_last_s = statistics.fmean(every_s for (_, every_s), _ in pairs)
    return f"   {at_last_s:8.1f} s   {best_s:8.1f} s   {more}"


def _share(more_s: Sequence[float], of_s: float) -> str:
    """A ratio of sums, for runs in which little was lost would weigh as much as the others; and its standard error."""
    error = statistics.stdev(more_s) / math.sqrt(len(more_s)) / of_s if len(more_s) > 1 else math.nan
    return f"{statistics.fmean(more_s) / of_s:8.2%} ({error:.2%})"


def exponential(chance: random.Random, between_s: float) -> float:
    return chance.expovariate(1.0 / between_s)


def weibull(chance: random.Random, between_s: float) -> float:
    """Shape 0.7: many soon after a start, then fewer (Schroeder and Gibson, DSN 2006, for large clusters)."""
    return chance.weibullvariate(between_s / math.gamma(1.0 + 1.0 / 0.7), 0.7)


def lives(trace: Path) -> tuple[list[float], list[float]]:
    """From a trace: how long each machine was there, and the time from one moment of losses to the next [s]."""
    there: dict[str, float] = {}
    found, moments = [], set()
    for line in trace.read_text().split():
        ms, what, node = line.split(",")
        at_s = int(ms) / 1000.0
        if what == "add":
            there[node] = at_s
        elif node in there:
            found.append(at_s - there.pop(node))
            moments.add(at_s)
    ordered = sorted(moments)
    return [life for life in found if life > 0], [b - a for a, b in itertools.pairwise(ordered)]


def traced(trace: Path, given: argparse.Namespace) -> None:
    print(f"\n3. {trace.name}: {given.failures} failures a run drawn from it, {given.seeds} runs")
    print(
        "   a commit costs, takes; mean uptime        auto at last   best fixed   auto loses more by (standard error)"
    )
    for name, uptimes_s in zip(("one machine", "any of all"), lives(trace), strict=True):
        for cost_s, write_s in ((0.1, 1.0), (1.0, 1.0), (1.0, 10.0)):
            runs = [_within_ticks(random.Random(seed), uptimes_s, given.failures) for seed in range(given.seeds)]
            label = f"{cost_s:4g} s, {write_s:3g} s; {name:12} {statistics.fmean(uptimes_s):6.0f} s"
            print(f"   {label}  {compared(Commit(cost_s, write_s), runs)}")


def _within_ticks(chance: random.Random, uptimes_s: Sequence[float], count: int) -> list[float]:
    """So many of them; within the minute that the trace was taken by, they come at any moment.

    Else a fixed interval that divides a minute would lose nothing at all.
    """
    return [max(1.0, up_s + chance.uniform(-TICK_S / 2, TICK_S / 2)) for up_s in chance.choices(uptimes_s, k=count)]


def ends(between_h: Sequence[float]) -> None:
    print("\n   what the policy's ends (30 s, an hour) cost where they hold, the rate being known")
    print("   a commit costs   failures every   auto        best fixed    lost more, of all time")
    for cost_s in (0.02, 1.0, 30.0):
        commit = Commit(cost_s, cost_s)
        for hours in between_h:
            found = interval(replace(commit.seen(), losses=10**9, trained_s=10**9 * hours * HOUR_S), GRACE_S)
            assert found is not None
            best_s = least(lambda s, h=hours, c=commit: expected_loss(s, h * HOUR_S, c), 1.0, hours * HOUR_S)
            more = expected_loss(found.every_s, hours * HOUR_S, commit) - expected_loss(best_s, hours * HOUR_S, commit)
            print(f"   {cost_s:8g} s   {hours:10.0f} h   {found.every_s:9.1f} s   {best_s:9.1f} s   {more:12.4%}")


def main() -> None:
    arguments = argparse.ArgumentParser(description="every: auto against the best fixed interval")
    arguments.add_argument("--seeds", type=int, default=20)
    arguments.add_argument("--failures", type=int, default=100)
    arguments.add_argument("--hours", type=float, nargs="*", default=[1.0, 10.0, 100.0, 1000.0])
    arguments.add_argument("--trace", type=Path)
    given = arguments.parse_args()
    for commit in (Commit(*one) for one in COMMITS):
        known(commit)
    ends((1.0, 100.0, 1000.0))
    for commit in (Commit(*one) for one in COMMITS):
        learnt(commit, "exponential", exponential, given)
    learnt(Commit(1.0, 1.0), "Weibull", weibull, given)
    if given.trace is not None:
        traced(given.trace, given)


if __name__ == "__main__":
    main()
