"""Every batch that somebody may choose: its samples stay, each answer is smaller, and the answers end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.policy.adapt import Adaptation, Settings
from supervisor.policy.causes import Cause, Verdict
from supervisor.policy.ledger import Ledger, fold
from supervisor.policy.restart import NEIGHBOUR, Adapt, Decision, Facts, GiveUp, Limits, Restart, decide
from supervisor.policy.shrink import Changed, NothingLeft, after_gpu_oom, after_host_oom, smaller

OOM = Verdict(Cause.GPU_OOM, "rank 1 raised torch.OutOfMemoryError: CUDA out of memory")
HOST = Verdict(Cause.HOST_OOM, "oom_kill 1")
ALL = list(product(range(1, 65), range(1, 65)))


def falling(micro_batch: int, accumulation: int) -> Iterator[tuple[int, int]]:
    """The batches of an unlucky run, from its own on."""
    at: tuple[int, int] | None = (micro_batch, accumulation)
    while at is not None:
        yield at
        at = smaller(*at)


def test_the_samples_of_a_step_stay_the_batch_falls_and_ends_at_one() -> None:
    for micro_batch, accumulation in ALL:
        batches = list(falling(micro_batch, accumulation))
        assert {size * times for size, times in batches} == {micro_batch * accumulation}
        assert all(after < before for (before, _), (after, _) in pairwise(batches))
        assert batches[-1][0] == 1


def test_an_even_batch_is_halved_and_an_odd_one_loses_as_little_as_it_can() -> None:
    for micro_batch, accumulation in ALL:
        found = smaller(micro_batch, accumulation)
        if micro_batch % 2 == 0:
            assert found == (micro_batch // 2, accumulation * 2)
        elif found is not None:
            between = range(found[0] + 1, micro_batch)
            assert [size for size in between if (micro_batch * accumulation) % size == 0] == []


@dataclass
class Program:
    """A program that is started again and again, and runs out of memory each time."""

    own: Settings
    obeys: bool = True

    def settings(self, told: Adaptation) -> Settings:
        if not self.obeys:
            return self.own
        own, made = self.own, self.own
        if own.micro_batch is not None and told.micro_batch is not None:
            samples = own.micro_batch * (own.accumulation or 1)
            made = replace(made, micro_batch=told.micro_batch, accumulation=samples // told.micro_batch)
        if own.loader_workers is not None and told.loader_workers is not None:
            made = replace(made, loader_workers=told.loader_workers)
        return replace(made, checkpointing=own.checkpointing or bool(told.checkpointing))

    def decisions(self, verdict: Verdict, limits: Limits, *, step: int | None = None) -> list[Decision]:
        """What is decided, attempt after attempt, until nothing is tried any more."""
        ledger, made = Ledger(), []
        for number in range(100):
            records = [
                {"event": "attempt_started", "attempt": number},
                {"event": "attempt_ended", "cause": verdict.cause.value, "step": step},
            ]
            ledger = fold(records, ledger)
            made.append(decide(verdict, ledger, limits, Facts(settings=self.settings(ledger.adaptation))))
            match made[-1]:
                case GiveUp():
                    return made
                case Adapt(to, _):
                    ledger = fold([{"event": "adapted", "changes": to.told()}], ledger)
        raise AssertionError(f"still going on: {made[-3:]}")


def test_a_run_that_never_fits_goes_through_all_that_can_be_changed_and_stops_with_the_numbers() -> None:
    made = Program(Settings(micro_batch=8, accumulation=2, checkpointing=False)).decisions(OOM, Limits())
    told = [one.to.told() for one in made if isinstance(one, Adapt)]
    assert told == [
        {"micro_batch": 4},
        {"micro_batch": 2},
        {"micro_batch": 1},
        {"micro_batch": 1, "checkpointing": True},
    ]
    assert len(made) == 5
    assert isinstance(made[-1], GiveUp)
    for words in (OOM.evidence, "micro-batch 1, accumulation 16, with gradient checkpointing", "quantization: 4bit"):
        assert words in made[-1].reason


def test_a_machine_that_never_has_enough_loses_its_loaders_and_stops_with_what_to_ask_for() -> None:
    program = Program(Settings(micro_batch=8, accumulation=2, loader_workers=5, checkpointing=True))
    made = program.decisions(HOST, Limits())
    assert [one.to.told() for one in made[:-1] if isinstance(one, Adapt)] == [
        {"loader_workers": 2, "pin_memory": False},
        {"loader_workers": 1, "pin_memory": False},
        {"loader_workers": 0, "pin_memory": False},
    ]
    ledger = Ledger(adaptation=Adaptation(loader_workers=0, pin_memory=False), barren=1)
    facts = Facts(settings=replace(program.own, loader_workers=0), needs_bytes=33 << 30)
    decision = decide(HOST, ledger, Limits(), facts)
    assert isinstance(decision, GiveUp)
    assert "slurm: {mem: 50G}" in decision.reason
    assert "oom_kill 1" in decision.reason


settings = st.builds(
    Settings,
    micro_batch=st.none() | st.integers(1, 64),
    accumulation=st.none() | st.integers(1, 64),
    loader_workers=st.none() | st.integers(0, 16),
    checkpointing=st.none() | st.booleans(),
)


@given(settings, st.booleans(), st.sampled_from([OOM, HOST]), st.sampled_from([None, 0, 7]), st.integers(1, 4))
def test_every_path_ends_whatever_a_program_says_and_does(
    own: Settings, obeys: bool, verdict: Verdict, step: int | None, most: int
) -> None:
    made = Program(own, obeys).decisions(verdict, Limits(max_barren=most), step=step)
    told = [one.to for one in made if isinstance(one, Adapt)]
    assert len(set(told)) == len(told)
    assert isinstance(made[-1], GiveUp)


@given(settings, settings)
def test_a_change_never_asks_for_more_than_was_in_force(own: Settings, before: Settings) -> None:
    present = Adaptation(micro_batch=before.micro_batch, loader_workers=before.loader_workers)
    for found in (after_gpu_oom(own, present), after_host_oom(own, present)):
        if isinstance(found, NothingLeft):
            continue
        for name in ("micro_batch", "loader_workers"):
            new, old, was = (getattr(one, name) for one in (found.to, present, own))
            assert new == old or (was is not None and new < was and (old is None or new < old))


def test_while_steps_are_gained_nothing_is_given_up_where_nothing_can_be_changed() -> None:
    spent = Ledger(adaptation=Adaptation(micro_batch=1, checkpointing=True), best_step=90)
    facts = Facts(settings=Settings(micro_batch=1, accumulation=8, checkpointing=True))
    assert decide(OOM, spent, Limits(), facts) == Restart(0.0)
    assert isinstance(decide(OOM, replace(spent, barren=1), Limits(), facts), GiveUp)


def test_a_program_that_says_nothing_of_itself_gets_one_more_try_and_is_told_how_to_say_it() -> None:
    made = Program(Settings()).decisions(OOM, Limits())
    assert [type(one) for one in made] == [Restart, GiveUp]
    assert "fitting_batch" in str(made[-1])
    assert "auto_find_batch_size" in str(made[-1])


@pytest.mark.parametrize("verdict", [OOM, HOST])
def test_on_oom_stop_stops_at_once_with_the_numbers_and_what_would_have_been_tried(verdict: Verdict) -> None:
    own = Settings(micro_batch=8, accumulation=2, loader_workers=4)
    decision = decide(verdict, Ledger(best_step=30), Limits(shrink=False), Facts(settings=own))
    assert isinstance(decision, GiveUp)
    assert verdict.evidence in decision.reason
    assert ("micro-batch 4 instead of 8" if verdict is OOM else "2 data-loader workers") in decision.reason


@dataclass(frozen=True)
class Rooted:
    """A verdict as it looks with a root."""

    cause: Cause
    evidence: str
    root: str
    usage: bool = False


def test_memory_that_a_neighbour_holds_is_waited_for_and_nothing_is_changed() -> None:
    taken = Rooted(Cause.GPU_OOM, "process 99 of somebody else holds 60 GiB", NEIGHBOUR)
    facts = Facts(settings=Settings(micro_batch=8, accumulation=2))
    decisions = [decide(taken, Ledger(barren=n), Limits(max_barren=3), facts) for n in range(4)]  # type: ignore[arg-type]
    assert decisions[:3] == [Restart(5.0), Restart(5.0), Restart(10.0)]
    assert isinstance(decisions[3], GiveUp)
    assert "process 99" in decisions[3].reason


def test_a_job_with_another_batch_begins_with_its_own_and_so_does_one_that_was_forgiven_for_memory() -> None:
    changed = {"event": "adapted", "changes": {"micro_batch": 2, "checkpointing": True, "skip": [[3, 4]]}}
    begun = {"event": "run_started", "run_id": "r", "mathematics": "m"}
    kept = Adaptation(micro_batch=2, checkpointing=True, skip=((3, 4),))
    without = Adaptation(skip=((3, 4),))
    ledger = fold([begun, changed])
    assert fold([begun], ledger).adaptation == kept
    assert fold([{**begun, "mathematics": "n", "accept_changes": True}], ledger).adaptation == without
    for reason, left in (("gpu_oom: one sample does not fit", without), ("network: no route", kept)):
        ended = fold([{"event": "run_gave_up", "reason": reason}], ledger)
        assert fold([begun], ended).adaptation == kept
        assert fold([{**begun, "forgive": True}], ended).adaptation == left


def test_what_was_told_and_is_not_obeyed_is_said() -> None:
    found = after_gpu_oom(Settings(micro_batch=8, accumulation=1), Adaptation(micro_batch=4))
    assert isinstance(found, NothingLeft)
    assert "8 samples at a time although it was told 4" in found.reason
    assert isinstance(after_gpu_oom(Settings(micro_batch=4, accumulation=2), Adaptation(micro_batch=4)), Changed)
