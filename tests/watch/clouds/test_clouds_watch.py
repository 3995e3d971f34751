"""Each cloud watched over a real connection: its notices, its manners, its withdrawals."""

from __future__ import annotations

import time

import pytest
from clouds_asked import place, watching
from fake_metadata import iso, rfc1123, serving
from harness import until

from supervisor.policy.notices import Notice, Unread, Withdrawn
from supervisor.watch.clouds.alibaba import Alibaba
from supervisor.watch.clouds.aws import Aws
from supervisor.watch.clouds.azure import Azure
from supervisor.watch.clouds.gcp import Gcp
from supervisor.watch.clouds.watch import Cloud, CloudWatch
from supervisor.watch.ready import ready

SOON_S = 0.02


def in_s(seconds: float) -> float:
    return float(int(time.time() + seconds))


def preempt(name: str = "vm-0", *others: str, **changes: object) -> dict[str, object]:
    event = {"EventId": "E1", "EventType": "Preempt", "ResourceType": "VirtualMachine", "Resources": [name, *others]}
    return {**event, "EventStatus": "Scheduled", "NotBefore": rfc1123(in_s(30)), "EventSource": "Platform", **changes}


def test_aws_tells_of_an_interruption_with_its_deadline() -> None:
    with serving("aws") as fake, watching(Aws(place(fake), every_s=SOON_S)) as watched:
        until(lambda: len(fake.asked) > 6, "questions")
        deadline_s = in_s(120)
        fake.say(action={"action": "terminate", "time": iso(deadline_s)})
        watched.wait(1)
        assert watched.notice().deadline_s == deadline_s
        assert str(watched.notice()) == "aws: spot instance-action terminate"
        fake.say(action=None)  # AWS takes no interruption back: an answer without one is a failure of the service
        fake.say(rebalance={"noticeTime": iso(in_s(0))})
        watched.wait(2)
        assert [news.kind for news in watched.told if isinstance(news, Notice)][1:] == ["rebalance recommendation"]
        fake.say(rebalance=None)
        assert watched.wait(3)[2] == Withdrawn("aws", watched.notice(1).detail, "rebalance")


def test_aws_is_asked_with_one_token_until_it_is_half_as_old_as_it_may_get_or_refused() -> None:
    now = [1000.0]
    with serving("aws") as fake:
        cloud = Aws(place(fake), life_s=100.0, maintenance_every_s=1e9, clock=lambda: now[0])
        for _ in range(3):
            assert cloud.poll(0.0) == ()
        assert fake.asked.count("PUT /latest/api/token") == 1
        now[0] += 51.0
        assert cloud.poll(0.0) == ()
        assert fake.asked.count("PUT /latest/api/token") == 2
        fake.forget_tokens()  # 401: a new one is fetched within the same poll
        assert cloud.poll(0.0) == ()
        assert fake.asked.count("PUT /latest/api/token") == 3


def test_what_is_wrong_with_the_advice_of_aws_hides_no_interruption() -> None:
    with serving("aws", maintenance="<broken", rebalance="[]", action={"action": "stop", "time": "soon"}) as fake:
        assert Aws(place(fake)).poll(0.0) == (
            Notice("aws", "spot instance-action stop", None, '{"action":"stop","time":"soon"}', True, "spot"),
        )


def test_google_tells_of_a_preemption_while_the_question_waits() -> None:
    with serving("gcp") as fake, watching(Gcp(place(fake), wait_s=60.0, every_s=SOON_S)) as watched:
        until(lambda: any("wait_for_change=true&timeout_sec=60&last_etag=" in one for one in fake.asked), "long poll")
        asked = len(fake.asked)
        fake.say(preempted="TRUE")
        watched.wait(1)
        assert (watched.notice().kind, watched.notice().deadline_s) == ("preempted", None)
        assert len(fake.asked) - asked <= 2  # it was that very question that was answered


def test_googles_maintenance_keeps_its_deadline_and_may_be_over() -> None:
    with serving("gcp") as fake:
        cloud = Gcp(place(fake), wait_s=0.0, gpu=lambda: False)
        assert cloud.poll(1000.0) == ()
        fake.say(maintenance_event="TERMINATE_ON_HOST_MAINTENANCE")
        told = [cloud.poll(now_s) for now_s in (1010.0, 1020.0, 1030.0)]
        assert [(one.deadline_s, one.urgent) for reading in told for one in reading] == [(1070.0, True)] * 3
        fake.say(maintenance_event="NONE")
        assert cloud.poll(1040.0) == ()


def test_azure_tells_of_an_eviction_of_this_machine_and_of_its_withdrawal() -> None:
    others = preempt("vm-4")
    with serving("azure", name="vm-3", events=[others]) as fake, watching(quick("azure", place(fake))) as watched:
        until(lambda: len(fake.asked) > 6, "questions")
        fake.say(events=[others, preempt("vm-3", "vm-4", EventId="E2")])
        watched.wait(1)
        assert (watched.notice().key, watched.notice().kind) == ("E2", "Preempt")
        fake.say(events=[others])
        watched.wait(2)
        assert watched.withdrawn() == Withdrawn("azure", watched.notice(0).detail, "E2")


def test_azures_event_that_has_started_is_told_anew_with_no_time_left() -> None:
    with serving("azure", events=[preempt()]) as fake, watching(Azure(place(fake), every_s=SOON_S)) as watched:
        watched.wait(1)
        fake.say(events=[preempt(EventStatus="Started", NotBefore="")])
        watched.wait(2)
        assert (watched.notice(0).key, watched.notice(1).key, watched.notice(1).deadline_s) == ("E1", "E1", None)


@pytest.mark.parametrize(("others", "started"), [((), ["E1"]), (("vm-1",), [])])
def test_azure_is_told_to_begin_only_with_what_concerns_nobody_else(others: tuple[str], started: list[str]) -> None:
    event = preempt("vm-0", *others)
    with serving("azure", events=[event]) as fake, watching(quick("azure", place(fake))) as watched:
        watched.wait(1)
        watched.watch.acknowledge(watched.notice())
        assert fake.started == {}
        assert watched.watch.close(5.0) is bool(started)
        assert list(fake.started) == started


def test_an_acknowledgement_that_hangs_is_not_waited_for_any_longer_than_asked() -> None:
    with serving("azure", events=[preempt()]) as fake, watching(Azure(place(fake), every_s=SOON_S)) as watched:
        watched.wait(1)
        fake.manner = "silent"
        began_s = time.monotonic()
        watched.watch.acknowledge(watched.notice())
        assert not watched.watch.close(0.3)
        assert time.monotonic() - began_s < 10.0


def test_the_first_question_to_azure_may_take_long_and_the_later_ones_may_not() -> None:
    with serving("azure") as fake:
        cloud = Azure(place(fake), limit_s=0.5, first_limit_s=4.0)
        assert cloud.poll(0.0) == ()
        fake.manner = "trickle"
        began_s = time.monotonic()
        cloud.poll(0.0)
        assert time.monotonic() - began_s < 3.0
        slow = Azure(place(fake), limit_s=0.5, first_limit_s=4.0, _own="vm-0")
        began_s = time.monotonic()
        slow.poll(0.0)
        assert time.monotonic() - began_s >= 4.0


def test_alibaba_tells_of_a_release_with_its_deadline() -> None:
    with serving("alibaba") as fake, watching(Alibaba(place(fake), every_s=SOON_S)) as watched:
        until(lambda: len(fake.asked) > 6, "questions")
        fake.forget_tokens()
        deadline_s = in_s(300)
        fake.say(termination=iso(deadline_s))
        watched.wait(1)
        assert (watched.notice().deadline_s, watched.notice().urgent) == (deadline_s, True)


def quick(cloud: str, fake_place: object, limit_s: float = 10.0) -> Cloud:
    made = {
        "aws": lambda: Aws(fake_place, every_s=SOON_S, limit_s=limit_s),
        "gcp": lambda: Gcp(fake_place, every_s=SOON_S, limit_s=limit_s, wait_s=0.0),
        "azure": lambda: Azure(fake_place, every_s=SOON_S, limit_s=limit_s, first_limit_s=limit_s),
        "alibaba": lambda: Alibaba(fake_place, every_s=SOON_S, limit_s=limit_s),
    }
    return made[cloud]()


FACTS = {
    "aws": {"action": {"action": "stop", "time": "2036-01-01T00:00:00Z"}},
    "gcp": {"preempted": "TRUE"},
    "azure": {"events": [preempt()]},
    "alibaba": {"termination": "2036-01-01T00:00:00Z"},
}


#: What is given up when the time is over; all else ends by itself.
ENDLESS = ("silent", "trickle")


@pytest.mark.parametrize("manner", [*ENDLESS, "flood", "garbage", "hang up", "error"])
@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure", "alibaba"])
def test_trouble_is_told_once_and_a_notice_after_it_is_still_heard(cloud: str, manner: str) -> None:
    with serving(cloud) as fake:
        fake.manner = manner
        with watching(quick(cloud, place(fake), 0.5 if manner in ENDLESS else 10.0)) as watched:
            watched.wait(1)
            assert watched.unread().cloud == cloud
            asked = len(fake.asked)
            until(lambda: len(fake.asked) >= asked + 2, "further questions")
            fake.manner = ""
            fake.say(**FACTS[cloud])
            watched.wait(2)
            assert [type(news) for news in watched.told] == [Unread, Notice]


def test_trouble_changes_nothing_about_a_notice_that_stands() -> None:
    with serving("azure", events=[preempt()]) as fake, watching(quick("azure", place(fake))) as watched:
        watched.wait(1)
        fake.manner = "error"
        watched.wait(2)
        fake.manner = ""
        fake.say(events=[])
        watched.wait(3)
        assert [type(news) for news in watched.told] == [Notice, Unread, Withdrawn]


def test_whoever_does_not_answer_is_asked_less_and_less_often() -> None:
    with serving("aws") as fake:
        fake.manner = "error"
        with watching(Aws(place(fake), every_s=0.01), rarely_s=60.0):
            until(lambda: len(fake.asked) >= 7, "seven questions")
            began_s = time.monotonic()
            until(lambda: len(fake.asked) >= 8, "one more")
            assert time.monotonic() - began_s > 0.2  # 0.01 s doubled seven times is 1.28 s


class Astray:
    """A cloud whose answer nobody thought of."""

    name, every_s, polls = "astray", 0.01, 0

    def poll(self, now_s: float) -> tuple[Notice, ...]:
        self.polls += 1
        if self.polls < 4:
            raise KeyError("Events")
        return (Notice("astray", "end", None, "", True),)


def test_an_answer_that_nobody_thought_of_ends_no_watch() -> None:
    with watching(Astray()) as watched:
        assert watched.wait(2) == [Unread("astray", "KeyError: 'Events'"), Notice("astray", "end", None, "", True)]


def test_a_watch_begins_in_no_time_and_is_quiet_while_there_is_no_news() -> None:
    with serving("aws") as silent, serving("azure") as quiet:
        silent.manner = "silent"
        began_s = time.monotonic()
        watch = CloudWatch([Aws(place(silent)), Azure(place(quiet), every_s=SOON_S)])
        watch.start()
        assert time.monotonic() - began_s < 1.0  # the silent one is given two seconds
        until(lambda: len(quiet.asked) > 3, "questions")
        assert (watch.events(), ready([watch.fd], 0.0)) == ([], [])
        watch.close()
