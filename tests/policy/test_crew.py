"""Gangs of up to three nodes, every combination."""

from __future__ import annotations

from itertools import product

from supervisor.policy.crew import together
from supervisor.policy.lifecycle import Gang

CREWS = [gangs for count in (1, 2, 3) for gangs in product(Gang, repeat=count)]
LEFT = {Gang.ALIVE, Gang.BROKEN, Gang.DONE}


def test_nothing_is_gone_while_something_is_left_anywhere() -> None:
    for gangs, lost, killing in product(CREWS, (False, True), (False, True)):
        whole = together(gangs, lost=lost, killing=killing)
        if LEFT & set(gangs):
            assert whole not in (Gang.GONE, Gang.NONE)
        else:
            assert whole in (Gang.GONE, Gang.NONE, Gang.BROKEN)


def test_what_is_being_ended_is_broken_until_it_is_gone_everywhere() -> None:
    for gangs, lost in product(CREWS, (False, True)):
        whole = together(gangs, lost=lost, killing=True)
        assert whole in (Gang.BROKEN, Gang.GONE, Gang.NONE)
        assert (whole is Gang.BROKEN) == bool(LEFT & set(gangs))


def test_a_loss_ends_the_attempt_whatever_the_others_do() -> None:
    present = [gangs for gangs in CREWS if set(gangs) != {Gang.NONE}]
    assert {together(gangs, lost=True) for gangs in present} == {Gang.BROKEN}


def test_one_that_is_broken_breaks_all_and_done_are_only_all() -> None:
    for gangs in CREWS:
        whole = together(gangs)
        assert (whole is Gang.BROKEN) == (Gang.BROKEN in gangs)
        if whole is Gang.DONE:
            assert set(gangs) <= {Gang.DONE, Gang.GONE}
        if Gang.ALIVE in gangs and Gang.BROKEN not in gangs:
            assert whole is Gang.ALIVE


def test_a_node_that_has_left_already_is_no_hindrance_and_no_proof() -> None:
    assert together([Gang.DONE, Gang.GONE]) is Gang.DONE
    assert together([Gang.ALIVE, Gang.GONE]) is Gang.ALIVE
    assert together([Gang.GONE, Gang.GONE]) is Gang.GONE
