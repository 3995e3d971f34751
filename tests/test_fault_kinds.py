"""The kinds of the fault matrix leave no cause out, and each of them can be told right from wrong."""

from __future__ import annotations

import pytest

from supervisor.journal import EVENTS
from supervisor.policy.causes import Cause
from tests.bench.fault_kinds import ELSEWHERE, KINDS, REFERENCES, Kind
from tests.bench.fault_matrix import HEAD, MARKS, README, Outcome, line, written

DECISIONS = {"finish", "restart", "adapt", "roll_back", "give_up", "leave"}


def test_every_cause_is_brought_about_or_it_is_said_who_does() -> None:
    brought = {Cause(cause) for kind in KINDS.values() for cause in (*kind.causes, *kind.faults)}
    assert brought | set(ELSEWHERE) == set(Cause)
    assert not brought & set(ELSEWHERE)
    for words in ELSEWHERE.values():
        assert (README.parent / words.rpartition(" ")[2]).is_file()


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_what_is_expected_of_a_kind_holds_together(kind: Kind) -> None:
    assert {*kind.decisions} <= DECISIONS
    assert {*kind.events} <= {*EVENTS}
    assert (kind.codes[-1] == 0) == (kind.causes[-1] == "finished") == (kind.same in REFERENCES)
    assert (kind.codes[-1] == 0) == (kind.decisions[-1] == "finish")
    assert (kind.codes[-1] == 3) == (kind.decisions[-1] == "give_up")


def test_each_kind_has_a_line_of_its_own() -> None:
    assert len({kind.said for kind in KINDS.values()}) == len(KINDS)
    assert not any("|" in kind.said + kind.follows for kind in KINDS.values())


def test_the_table_takes_new_lines_and_keeps_those_of_kinds_that_were_not_run() -> None:
    first, second = "nothing", "import"
    right, wrong = Outcome(first, [], 1.0), Outcome(first, ["exit codes"], 1.0)
    old = {second: line(KINDS[second], [Outcome(second, [], 1.0)], "")}
    text = written(f"before\n{MARKS[0]}{MARKS[1]}\nafter\n", old)
    text = written(text, {first: line(KINDS[first], [right, wrong], "")})
    rows = f"| nothing | `finished` | training ends; exit 0 | 2 | 1 |\n{old[second]}"
    assert text == f"before\n{MARKS[0]}{HEAD}{rows}{MARKS[1]}\nafter\n"


def test_a_document_without_a_place_for_the_table_is_not_written() -> None:
    with pytest.raises(ValueError, match="no place for the table"):
        written("# a document\n", {})
    assert "# lora-supervisor" in README.read_text()


def test_the_readme_has_a_line_for_each_kind_in_their_order() -> None:
    table = README.read_text().partition(MARKS[0])[2].partition(MARKS[1])[0]
    assert [row.split(" | ")[0] for row in table.splitlines()[2:]] == [f"| {kind.said}" for kind in KINDS.values()]
