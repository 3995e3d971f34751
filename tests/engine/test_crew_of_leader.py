"""What the leader makes of its members: who is there, who is lost, whose parts have come."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from engine.crew_ends import Ends, ends_of, order_of
from harness import until

from supervisor.board.pages import Beat
from supervisor.engine.members.crew import Crew, NoPart
from supervisor.engine.members.gathering import Gathering
from supervisor.engine.members.joining import unlike
from supervisor.engine.members.messages import PART, PARTED, SEEN, Seen
from supervisor.engine.members.team import Team
from supervisor.engine.state.memory import Whole
from supervisor.link.events import Lost
from supervisor.link.hub import PATIENCE_S
from supervisor.link.wire import BODY_LIMIT, Frame
from supervisor.policy.causes import Cause
from supervisor.policy.lifecycle import Attendance, Gang
from supervisor.policy.stalls import Account

IDENTITY = (0, 7, 0, 1)
ORDERS = {"period": 1, "due_every": 0, "taken": 0, "due_at": 0, "drain": 0}
OURS = {"release": "1", "mathematics": "a", "processes": 2, "on_nan": "stop", "host": "leader"}


@pytest.fixture
def ends() -> Iterator[Ends]:
    with ends_of(3) as made:
        yield made


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"release": "2"}, "it runs release 2, the leader 1"),
        ({"mathematics": "b"}, "its job file is another one"),
        ({"on_nan": "ignore"}, "its job file says `on_nan: ignore`, the leader's stop"),
        ({"processes": 1}, "it has 1 processes, the leader 2; every node has as many"),
        ({"host": "member"}, None),
    ],
)
def test_only_nodes_of_the_same_release_job_and_size_train_together(other: dict[str, object], why: str | None) -> None:
    assert unlike(OURS, {**OURS, **other}) == why


def test_who_does_not_belong_is_sent_away_and_said_once_however_often_it_comes() -> None:
    with ends_of(2, accept=lambda said: "its job file is another one" if said["node"] == 1 else None) as ends:
        ends.come(1)
        ends.come(7)
        ends.until(lambda: len(ends.refusals(1)) >= 3 and len(ends.refusals(7)) >= 3, "refusals")
        assert set(ends.refusals(1)) == {"its job file is another one"}
        [one, seven] = sorted(ends.crew.news.take_refusals())
        assert one == "node 1 (host1): its job file is another one"
        assert seven.startswith("node 7 (host7): ")
        assert ends.crew.news.take_refusals() == []
        assert ends.crew.ready() == set()
        assert ends.crew.losses == []


def test_each_member_is_told_its_own_place_and_hears_every_change(ends: Ends) -> None:
    ends.join(1)
    assert ends.crew.missing() == ["node 2"]
    ends.crew.begin(order_of(4), **ORDERS)
    ends.join(2)
    for node in (1, 2):
        wanted = ends.until(lambda node=node: (told := ends.told(node)) and told.order and told, "order")
        assert (wanted.order.number, wanted.order.first_rank, wanted.kill) == (4, node, False)
    ends.crew.want(kill=True)
    ends.until(lambda: all(ends.told(node).kill for node in (1, 2)), "kill")


def test_a_member_that_is_lost_in_an_attempt_counts_again_only_after_it(ends: Ends) -> None:
    ends.join(1)
    ends.join(2)
    ends.crew.begin(order_of(1), **ORDERS)
    for node in (1, 2):
        ends.say(node, Seen(attempt=1, gang=Gang.ALIVE, beats=(Beat(pid=node),)))
    ends.until(lambda: [beat.pid for beat in ends.crew.beats(1)] == [1, 2], "beats")
    ends.lines[2].close()
    del ends.lines[2]
    ends.until(lambda: ends.crew.losses, "loss")
    assert [str(loss) for loss in ends.crew.losses] == ["node 2 (host2): the connection ended"]
    assert ends.crew.counted == [1]
    assert len(ends.crew.gangs()) == 1
    ends.join(2)
    assert ends.crew.counted == [1]
    ends.crew.close_attempt()
    assert ends.crew.counted == [1, 2]
    ends.say(1, Seen(attempt=1, gang=Gang.GONE))
    ends.until(lambda: ends.crew.ready() == {1, 2}, "both nodes")


def test_what_ranks_are_at_is_complete_when_every_node_that_counts_has_answered_this_question(ends: Ends) -> None:
    ends.join(1)
    ends.join(2)
    ends.crew.begin(order_of(1), **ORDERS)
    ends.crew.want(inquiry=1001, native=True)
    ends.until(lambda: (told := ends.told(1)) and (told.inquiry, told.native) == (1001, True), "question")
    accounts = {node: Account(rank=node, pid=node, state="S") for node in (1, 2)}
    ends.say(1, Seen(attempt=1, gang=Gang.ALIVE, answered=1001, accounts=(accounts[1],)))
    ends.say(2, Seen(attempt=1, gang=Gang.ALIVE, answered=1000, accounts=(accounts[2],)))
    ends.until(lambda: ends.crew.accounts(1001) == ([accounts[1]], False), "one answer, and an old one")
    ends.say(2, Seen(attempt=1, gang=Gang.ALIVE, answered=1001, accounts=(accounts[2],)))
    ends.until(lambda: ends.crew.accounts(1001) == ([accounts[1], accounts[2]], True), "both")
    ends.crew.begin(order_of(2), **ORDERS)
    ends.until(lambda: (told := ends.told(2)) and told.inquiry == 0, "an attempt of which nothing is asked yet")


def test_a_member_that_left_while_an_attempt_was_prepared_is_lost_to_it(ends: Ends) -> None:
    ends.join(1)
    ends.join(2)
    ends.lines.pop(2).close()
    ends.until(lambda: ends.crew.ready() == {1}, "end of the line")
    assert ends.crew.losses == []
    ends.crew.begin(order_of(1), **ORDERS)
    assert [str(loss) for loss in ends.crew.losses] == ["node 2 (host2): it left before the attempt began"]


def test_a_member_whose_words_mean_nothing_is_lost_and_hurts_nobody(ends: Ends) -> None:
    ends.join(1)
    ends.join(2)
    ends.crew.begin(order_of(1), **ORDERS)
    ends.say(1, Seen(attempt=1, gang=Gang.ALIVE))
    ends.lines[2].send(Frame(SEEN, {**Seen().fields(), "attempt": float("inf")}))
    ends.lines[2].send(Frame(SEEN, Seen(attempt=1, gang=Gang.GONE, stop=True).fields()))
    ends.until(lambda: ends.crew.losses, "loss")
    assert [loss.node for loss in ends.crew.losses] == [2]
    assert "not understood" in ends.crew.losses[0].reason
    assert ends.crew.news.take_stops() == []  # what it said after that does not count
    assert 2 not in ends.crew.ready()
    ends.until(lambda: ends.crew.gangs() == [Gang.ALIVE], "word of the other")


def test_notices_and_wishes_to_stop_are_handed_on_once(ends: Ends) -> None:
    ends.join(1)
    for _ in range(3):
        ends.say(1, Seen(notice="SIGTERM", stop=True))
    ends.say(1, Seen(gang=Gang.ALIVE, notice="SIGTERM", stop=True))
    ends.until(lambda: ends.crew.ready() == set(), "last word")
    assert ends.crew.news.take_notices() == [("SIGTERM", "host1")]
    assert ends.crew.news.take_stops() == ["host1"]
    assert ends.crew.news.take_notices() == ends.crew.news.take_stops() == []


def test_a_warning_is_handed_on_once_and_the_next_one_again(ends: Ends) -> None:
    ends.join(1)
    for words in ("93 %", "93 %", "97 %"):
        ends.say(1, Seen(gang=Gang.ALIVE, shortage=words))
    ends.until(lambda: ends.crew.ready() == set(), "last word")
    assert ends.crew.news.take_shortages() == [("93 %", "host1"), ("97 %", "host1")]
    assert ends.crew.news.take_shortages() == []


def test_a_broken_gpu_is_known_by_its_node_as_long_as_the_attempt_lasts(ends: Ends) -> None:
    for node in (1, 2):
        ends.join(node)
    ends.crew.begin(order_of(1, 3))
    ends.say(1, Seen(attempt=1, gang=Gang.ALIVE))
    ends.say(2, Seen(attempt=1, gang=Gang.ALIVE, gpu_fault="GPU 0: Xid 79"))
    ends.until(ends.crew.gpu_faults, "fault")
    assert ends.crew.gpu_faults() == [("host2", "GPU 0: Xid 79")]
    ends.crew.begin(order_of(2, 3))
    assert ends.crew.gpu_faults() == []


def part(crew_number: int, rank: int, name: str, data: bytes) -> Frame:
    return Frame(PART, {"number": crew_number, "rank": rank, "name": name}, data)


def gathered(ends: Ends) -> int:
    """A gathering that both members have heard of; its number."""
    ends.crew.gather(IDENTITY)
    ends.until(lambda: all((told := ends.told(node)) and told.part for node in ends.lines), "wish for parts")
    return ends.told(1).part[0]


def test_parts_come_together_by_rank_whoever_sends_first(ends: Ends) -> None:
    for node in (1, 2):
        ends.join(node)
    number = gathered(ends)
    for node in (2, 1):
        line = ends.lines[node]
        line.send(part(number - 1, node, "told", b"of an older one"))
        line.send(part(number, node, "told", json.dumps({"rank": node}).encode()))
        for piece in (b"ab", b"cd"):
            line.send(part(number, node, f"rank-{node}.safetensors", piece))
        line.send(Frame(PARTED, {"number": number, "problem": None, "again": False}))
    gathering = ends.crew.gathering
    ends.until(lambda: not gathering.awaited, "parts")
    assert gathering.problem is None
    for node, share in enumerate(gathering.shares(), 1):
        assert (share.rank, share.told) == (node, {"rank": node})
        assert [(p.name, b"".join(map(bytes, p.pieces()))) for p in share.files] == [
            (f"rank-{node}.safetensors", b"abcd")
        ]


def test_a_part_that_will_not_come_is_known_at_once(ends: Ends) -> None:
    for node in (1, 2):
        ends.join(node)
    number = gathered(ends)
    ends.lines[2].send(Frame(PARTED, {"number": number, "problem": "overwritten", "again": True}))
    ends.until(lambda: ends.crew.gathering.problem, "problem")
    assert ends.crew.gathering.problem == NoPart("node 2: overwritten", again=True)
    ends.crew.gathered()

    gathered(ends)
    ends.join(1)  # over a new connection: what it sent on the old one is gone
    assert ends.crew.gathering.problem is not None
    assert ends.crew.gathering.problem.again


def test_parts_are_taken_as_long_as_the_leaders_memory_has_room_for_them() -> None:
    spare, gathering = [600 << 20], Gathering(1, {1, 2}, spare=lambda: spare[-1])
    pieces = [part(1, rank, f"shard-{rank}.model", bytes([rank]) * BODY_LIMIT) for rank in (1, 2)]
    for rank in (1, 2):
        gathering.take(part(1, rank, "told", b"{}"))
    for number in range(300):
        gathering.take(pieces[number % 2])
    assert gathering.problem is None
    for share in gathering.shares():
        (file,) = share.files
        assert file.size == 150 * BODY_LIMIT
        assert sum(bytes(piece).count(share.rank) for piece in file.pieces()) == file.size

    spare.append(100 << 20)
    for _ in range(213):
        gathering.take(pieces[0])
    words = "are more than this node's memory has room for: 512 MiB have come, and 100 MiB are left"
    assert gathering.problem == NoPart(f"the parts of other nodes {words}", again=False)


def test_members_go_on_hearing_from_a_leader_that_does_something_long(ends: Ends) -> None:
    ends.join(1)
    team = team_of(ends.crew)
    began_s = time.monotonic()

    def work() -> str:
        def passed() -> bool:
            ends.events[1] += ends.lines[1].pump(time.monotonic())
            return time.monotonic() - began_s > PATIENCE_S + 1.0

        until(passed, "end of it")
        return "done"

    assert team.attend(work) == "done"
    assert [event for event in ends.events[1] if isinstance(event, Lost)] == []
    assert ends.crew.ready() == {1}


class OwnMemory:
    """Of the leader's own node; it holds no snapshot."""

    def wholes(self) -> list[Whole]:
        return []


class OwnNode:
    """The leader's own node, on which nothing is the matter."""

    present = False
    gang = Gang.NONE

    def __init__(self) -> None:
        self.memory = OwnMemory()

    def look(self, now_s: float) -> Gang:
        return Gang.NONE

    def close(self) -> None:
        return


def team_of(crew: Crew, **patience: float) -> Team:
    return Team(OwnNode(), crew, **patience)  # type: ignore[arg-type]


def test_a_node_is_missed_from_when_it_was_seen_last_not_from_when_its_attempt_began(ends: Ends) -> None:
    team = team_of(ends.crew, join_s=0.0, rejoin_s=3.0)
    assert team.attendance_now() is Attendance.OVERDUE  # nobody has ever come
    ends.join(1)
    ends.join(2)
    team.look(time.monotonic())
    assert team.was_complete
    ends.crew.begin(order_of(1), **ORDERS)
    for node in (1, 2):
        ends.say(node, Seen(attempt=1, gang=Gang.ALIVE))
    ends.until(lambda: ends.crew.ready() == set(), "attempt")
    ends.until(lambda: team.attendance_now() is Attendance.OVERDUE, "an attempt longer than a node is waited for")
    ends.lines.pop(2).close()
    ends.until(lambda: ends.crew.losses, "loss")
    assert team.verdict().cause is Cause.NODE_LOST
    team.close_attempt()
    assert team.attendance_now() is Attendance.AWAITED
    ends.until(lambda: team.attendance_now() is Attendance.OVERDUE, "end of the patience")
