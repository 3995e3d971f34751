"""What was seen while workers lived keeps its cause, and what they left behind is told beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from supervisor.board.pages import Beat
from supervisor.engine.ranks import node
from supervisor.engine.verdicts import verdict_of
from supervisor.policy.causes import Cause, RankEnd, Verdict
from supervisor.policy.lifecycle import Wish


@dataclass
class Wished:
    wish: Wish = Wish.GO_ON
    by: str = "SIGTERM"


def verdict(testimony: node.Testimony, wish: Any = None, early: Verdict | None = None, **more: Any) -> Verdict:
    wishes: Any = wish or Wished()
    return verdict_of(testimony, wishes, [], early, None, **more)


ECHO = RankEnd(0, 1.0, "builtins.RuntimeError", message="Connection closed by peer")
ERROR = RankEnd(0, 1.0, "builtins.ValueError", message="no such column", began=False)


def test_what_the_others_left_is_told_beside_a_lost_node() -> None:
    lost = Verdict(Cause.NODE_LOST, "node 1 (n1): its connection ended")
    found = verdict(node.Testimony(ends=(ECHO,)), early=lost)
    assert (found.cause, found.evidence, found.root) == (Cause.NODE_LOST, lost.evidence, "node_lost")
    assert found.details[0] == "rank 0 raised builtins.RuntimeError: Connection closed by peer"
    assert verdict(node.Testimony(), early=lost).details == ()


def test_a_kill_for_memory_on_any_node_is_evidence() -> None:
    assert verdict(node.Testimony(ends=(ECHO,), oom_kills=1)).cause is Cause.HOST_OOM
    assert verdict(node.Testimony(ends=(ECHO,), oom_kills=0)).cause is Cause.NETWORK


def test_a_program_that_has_trained_before_is_not_wrong_now() -> None:
    assert verdict(node.Testimony(ends=(ERROR,))).cause is Cause.USER_ERROR
    assert verdict(node.Testimony(ends=(ERROR,)), trained_before=True).cause is Cause.CRASHED


@pytest.mark.parametrize(("wish", "cause"), [(Wish.HAND_BACK, Cause.PREEMPTED), (Wish.STOP, Cause.USER_STOP)])
def test_what_somebody_wished_is_asked_before_what_ranks_say(wish: Wish, cause: Cause) -> None:
    assert verdict(node.Testimony(ends=(ERROR,)), wish=Wished(wish)).cause is cause


def test_a_program_that_returned_has_finished() -> None:
    assert verdict(node.Testimony(finished=True)).cause is Cause.FINISHED
    beat = Beat(pid=1, step=2, max_steps=12)
    wishes: Any = Wished()
    assert verdict_of(node.Testimony(finished=True), wishes, [beat], None, None).cause is Cause.CRASHED
