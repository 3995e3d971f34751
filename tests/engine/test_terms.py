"""A run that gave up goes on when it is forgiven, or when what it gave up for is accepted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.engine.opening import Terms, accepted, check_terms, forgives
from supervisor.errors import GaveUpError
from supervisor.job import Job, mathematics, resolved_yaml
from supervisor.policy.ledger import Ledger

CHANGED = "user_error: eval.jsonl has changed since the run began; go on with what it is now: --accept-changes"


def gave_up(job: Job, reason: str) -> Ledger:
    return replace(Ledger(), run_id="a", mathematics=mathematics(job), gave_up=reason)


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [(CHANGED, "`supervisor run JOB --accept-changes`"), ("crashed", "`supervisor run JOB --forgive`")],
)
def test_what_lets_it_go_on_is_named_and_does(reason: str, remedy: str, tmp_path: Path) -> None:
    job = Job(program="p.py", run_dir=tmp_path)
    ledger = gave_up(job, reason)
    with pytest.raises(GaveUpError, match=remedy.replace("`", ".")):
        check_terms(job, ledger, Terms())
    terms = Terms(accept_changes=True) if reason is CHANGED else Terms(forgive=True)
    check_terms(job, ledger, terms)
    assert forgives(terms, ledger)


def test_to_accept_changes_forgives_nothing_else(tmp_path: Path) -> None:
    job = Job(program="p.py", run_dir=tmp_path)
    with pytest.raises(GaveUpError):
        check_terms(job, gave_up(job, "the same came twice"), Terms(accept_changes=True))


def test_each_change_that_is_accepted_is_named(tmp_path: Path) -> None:
    before = Job(program="p.py", run_dir=tmp_path, args={"r": 8, "seed": 1, "max_steps": 10})
    ledger = replace(Ledger(), run_id="a", mathematics=mathematics(before))
    now = Job(program="p.py", run_dir=tmp_path, args={"r": 16, "max_steps": 20})
    assert accepted(now, ledger, Terms(accept_changes=True)) == ["nobody knows what, its job.yaml is lost or damaged"]
    (tmp_path / "job.yaml").write_text(resolved_yaml(before))
    assert accepted(now, ledger, Terms(accept_changes=True)) == ["args.r 8 → 16", "args.seed 1 → (absent)"]
    assert accepted(before, ledger, Terms(accept_changes=True)) == []
    assert accepted(now, ledger, Terms(accept_changes=True, fresh=True)) == []
