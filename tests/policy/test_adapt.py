"""Settings that were changed survive everything that the journal survives."""

from hypothesis import given
from hypothesis import strategies as st

from supervisor.policy.adapt import Adaptation
from supervisor.policy.ledger import Ledger, fold

steps = st.integers(0, 10**9)
adaptations = st.builds(
    Adaptation,
    micro_batch=st.none() | st.integers(1, 4096),
    checkpointing=st.none() | st.booleans(),
    loader_workers=st.none() | st.integers(0, 64),
    pin_memory=st.none() | st.booleans(),
    offline=st.none() | st.booleans(),
    skip=st.lists(st.tuples(steps, steps), max_size=3).map(tuple),
)
garbage = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["micro_batch", "skip", "x"]), inner),
    max_leaves=8,
)


@given(adaptations)
def test_what_is_told_is_read_back(adaptation: Adaptation) -> None:
    assert Adaptation().after(adaptation.told()) == adaptation


@given(adaptations, garbage)
def test_what_is_not_understood_changes_nothing_that_is_known(adaptation: Adaptation, changes: object) -> None:
    after = adaptation.after(changes)
    assert after.checkpointing == adaptation.checkpointing
    assert after.micro_batch is None or after.micro_batch >= 1


def test_an_adaptation_is_a_new_chance_and_lasts() -> None:
    records = [
        {"event": "attempt_ended", "cause": "gpu_oom", "root": "cuda_oom", "step": None},
        {"event": "adapted", "changes": {"micro_batch": 4}},
        {"event": "adapted", "excluded": ["n1"]},
        {"event": "allocation_started", "epoch": 2},
    ]
    ledger = fold(records)
    assert (ledger.adaptation, ledger.barren) == (Adaptation(micro_batch=4), 0)
    assert fold([{"event": "run_started", "fresh": True}], ledger).adaptation == Adaptation()


def test_going_back_begins_a_lineage_and_forgets_what_was_settled_from_there_on() -> None:
    ledger = fold(
        [
            {"event": "attempt_ended", "cause": "diverged", "step": 40},
            {"event": "adapted", "lineage": 1, "before": 31, "changes": {"skip": [[31, 33]]}},
        ]
    )
    assert (ledger.lineage, ledger.best_step, ledger.adaptation.skip) == (1, 30, ((31, 33),))
    assert [ledger.counts(0, 30), ledger.counts(0, 31), ledger.counts(1, 31)] == [True, False, True]


def test_a_lineage_never_goes_back() -> None:
    ledger = Ledger(lineage=3)
    assert fold([{"event": "adapted", "lineage": 3, "before": 1, "changes": {}}], ledger).lineage == 3
    assert fold([{"event": "adapted", "lineage": 3, "before": 1, "changes": {}}], ledger).behind == ()
