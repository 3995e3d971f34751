"""What a member makes of its leader's words: a leader that is a script, and workers that are only told of."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pytest
from engine.crew_ends import NoWorkers, order_of
from harness import BUSY_S, until

from supervisor.engine.members.member import Member
from supervisor.engine.members.messages import PARTED, SEEN, WANTED, Seen, Wanted
from supervisor.errors import ExitCode
from supervisor.link.address import Address, new_token
from supervisor.link.events import Heard
from supervisor.link.hub import PATIENCE_S, Hub
from supervisor.link.line import Line
from supervisor.link.wire import Frame
from supervisor.policy.lifecycle import Gang, Wish
from supervisor.policy.stalls import Account

T = TypeVar("T")
WANTED_NOTHING = Wanted(run_id="r", epoch=1, token="t")


@dataclass
class Script:
    """A leader that says what the test wants, and a member."""

    hub: Hub
    member: Member
    nodes: list[NoWorkers]
    heard: list[Frame] = field(default_factory=list)
    code: ExitCode | None = None
    wish: Wish = Wish.GO_ON

    def say(self, wanted: Wanted) -> None:
        self.hub.post(1, Frame(WANTED, wanted.fields()))

    @property
    def node(self) -> NoWorkers:
        return self.nodes[-1]

    def seen(self) -> Seen | None:
        told = [Seen.read(frame.fields) for frame in self.heard if frame.kind == SEEN]
        return told[-1] if told else None

    def parted(self) -> list[Any]:
        return [frame.fields["number"] for frame in self.heard if frame.kind == PARTED]

    def pump(self) -> None:
        self.heard += [event.frame for event in self.hub.pump(time.monotonic()) if isinstance(event, Heard)]
        self.code = self.code or self.member.step()

    def until(self, condition: Callable[[], T | None], what: str) -> T:
        def pumped() -> T | None:
            self.pump()
            return condition()

        return until(pumped, what)

    def begin(self, number: int) -> Wanted:
        """An attempt that is under way."""
        wanted = replace(WANTED_NOTHING, order=order_of(number, 2))
        self.say(wanted)
        self.until(lambda: (seen := self.seen()) and (seen.attempt, seen.gang) == (number, Gang.ALIVE), "attempt")
        return wanted


@contextmanager
def scripted(fails: Exception | None = None) -> Iterator[Script]:
    token = new_token()
    hub = Hub("127.0.0.1", 0, token, {})
    nodes: list[NoWorkers] = []
    reader, writer = os.pipe()

    def opened(_wanted: Wanted) -> NoWorkers:
        nodes.append(NoWorkers(fails=fails))
        return nodes[-1]

    line = Line(lambda: Address(*hub.address, token), {"node": 1})
    script = Script(
        hub,
        Member(line, reader, lambda _now_s: (script.wish, ""), opened, lambda *_: None, 1),
        nodes,  # type: ignore[arg-type, return-value]
    )
    try:
        script.until(lambda: line.joined, "member")
        script.say(WANTED_NOTHING)
        script.until(lambda: nodes, "node")
        yield script
    finally:
        line.close()
        hub.close()
        os.close(reader)
        os.close(writer)


@pytest.fixture
def script() -> Iterator[Script]:
    with scripted() as made:
        yield made


def test_an_order_that_it_has_not_heard_of_is_begun_and_one_that_it_has_is_not_begun_again(script: Script) -> None:
    wanted = script.begin(3)
    script.say(replace(wanted, drain=1))
    script.until(lambda: script.node.memory.given.get("drain") == 1, "drain")
    assert script.node.begun == [3]
    script.begin(5)
    assert script.node.begun == [3, 5]


def test_an_attempt_that_is_over_before_it_is_heard_of_is_never_begun(script: Script) -> None:
    script.say(replace(WANTED_NOTHING, order=order_of(4, 2), kill=True))
    script.until(lambda: (seen := script.seen()) and (seen.attempt, seen.gang) == (4, Gang.GONE), "word of it")
    assert script.node.begun == []


def test_a_kill_ends_the_workers_and_is_told(script: Script) -> None:
    script.say(replace(script.begin(1), kill=True))
    script.until(lambda: script.seen().gang is Gang.GONE, "word of it")
    assert script.seen().attempt == 1


def test_workers_that_end_by_themselves_are_told_as_broken_so_that_the_others_are_ended(script: Script) -> None:
    script.begin(1)
    script.node.gang = Gang.GONE
    script.until(lambda: script.seen().gang is Gang.BROKEN, "word of it")


def test_an_attempt_that_cannot_be_begun_here_is_told_with_its_reason() -> None:
    with scripted(fails=OSError(28, "No space left on device")) as script:
        script.say(replace(WANTED_NOTHING, order=order_of(2, 2)))
        script.until(lambda: (seen := script.seen()) and seen.failure, "word of it")
        assert (script.seen().attempt, script.seen().gang) == (2, Gang.BROKEN)
        assert "No space left on device" in script.seen().failure
        script.node.fails = None
        script.begin(3)
        assert script.seen().failure is None


def test_a_silent_leader_costs_the_workers_and_a_return_to_it_a_new_attempt(script: Script) -> None:
    wanted = script.begin(1)
    silent_s = time.monotonic()

    def ended() -> bool:
        script.member.step()  # and the leader does not: it is stopped, or cut off
        return script.node.gang is Gang.GONE

    until(ended, "end of the workers")
    assert PATIENCE_S - 1.0 < time.monotonic() - silent_s < PATIENCE_S + 5.0 + BUSY_S
    script.until(lambda: script.member.line.joined, "member")
    script.say(replace(wanted, kill=True))
    script.until(lambda: script.seen().gang is Gang.GONE, "word of it")
    script.begin(2)


def test_a_new_leader_without_an_order_finds_nothing_running(script: Script) -> None:
    script.begin(1)
    script.say(replace(WANTED_NOTHING, epoch=2, token="u"))
    script.until(lambda: script.seen().gang is Gang.NONE and script.seen().attempt == 1, "word of it")
    assert not script.node.present


def test_each_leaders_wish_for_a_part_is_answered_although_all_count_from_one(script: Script) -> None:
    identity = (0, 9, 0, 1)
    for epoch in (1, 2):
        script.say(replace(WANTED_NOTHING, epoch=epoch, order=order_of(epoch, 2), part=(1, identity)))
        script.until(lambda epoch=epoch: script.node.begun == [1, 2][:epoch], "attempt")
        script.node.gang = Gang.BROKEN  # and nothing of that step is on this node's board
        script.until(lambda epoch=epoch: script.parted() == [1] * epoch, "answer")


def test_its_ranks_are_asked_once_and_the_answer_is_news(script: Script) -> None:
    wanted = script.begin(1)
    script.say(replace(wanted, inquiry=1001))
    script.until(lambda: script.node.inquiries, "question")
    account = Account(rank=1, pid=7, state="T", frames=("train.py:fit",), files=("rank-1.stacks.txt",))
    script.node.accounts = 1001, (account,)
    script.until(lambda: script.seen().answered == 1001, "answer")
    assert script.seen().accounts == (account,)
    script.say(replace(wanted, inquiry=1002, native=True))
    script.until(lambda: len(script.node.inquiries) == 2, "another question")
    assert script.node.inquiries == [(1001, False), (1002, True)]
    script.say(replace(wanted, kill=True))
    script.until(lambda: script.seen().gang is Gang.GONE, "end")


def test_a_leader_of_another_run_is_served_from_the_beginning(script: Script) -> None:
    script.say(replace(WANTED_NOTHING, order=order_of(1, 2), kill=True))
    script.until(lambda: (seen := script.seen()) and seen.attempt == 1, "word of it")
    script.say(replace(WANTED_NOTHING, run_id="another", epoch=2, order=order_of(1, 2)))
    script.until(lambda: len(script.nodes) == 2 and script.node.begun == [1], "the other run's attempt")


def test_what_an_attempt_resumed_from_goes_once_it_is_behind_everywhere(script: Script) -> None:
    script.begin(1)
    memory = script.node.memory
    for steps in ([0], [1, 0]):
        memory.steps = steps
        script.pump()
        assert memory.tidied == []
    memory.steps = [2, 1, 0]
    script.until(lambda: memory.tidied == [(1, 1)], "tidying")
    memory.steps = [4, 3, 2]
    script.pump()
    assert memory.tidied == [(1, 1)]
    script.node.granted = True
    script.until(lambda: memory.tidied == [(1, 1), (3, 1)], "tidying of the layout before")


def test_a_second_interrupt_waits_for_nobody(script: Script) -> None:
    script.begin(1)
    script.wish = Wish.STOP
    script.pump()
    assert script.code is None
    script.wish = Wish.KILL
    script.pump()
    assert script.code is ExitCode.STOPPED


def test_it_leaves_with_what_the_leader_says(script: Script) -> None:
    assert not script.member.keeps
    script.say(replace(script.begin(1), leave=75, kill=True, keep=True))
    assert script.until(lambda: script.code, "exit") is ExitCode.HANDED_BACK
    assert not script.node.present
    assert script.member.keeps
