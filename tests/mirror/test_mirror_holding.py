"""Two machines never both own a mirror."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from stores import Server

from supervisor.errors import OwnedError
from supervisor.mirror.holding import hold
from supervisor.mirror.layout import LEASE
from supervisor.mirror.store import Store
from supervisor.owner import Owner, this_process

RACER = """
import select, sys, time
from dataclasses import replace
from supervisor.errors import OwnedError
from supervisor.mirror.holding import hold
from supervisor.mirror.store import Store
from supervisor.owner import this_process

owner = replace(this_process(), boot_id=f"machine-{sys.argv[2]}")
print("ready", flush=True)
sys.stdin.readline()
try:
    held = hold(Store(sys.argv[1]), owner, wait=time.sleep, watch_s=6.0, poll_s=0.2)
except OwnedError:
    print("owned", flush=True)
else:
    print("held", held.epoch, flush=True)
    while not select.select([sys.stdin], [], [], 0.1)[0]:
        held.renew()
"""


def elsewhere(name: str = "a") -> Owner:
    """A process on another machine."""
    return replace(this_process(), host=name, boot_id=f"boot of {name}")


def never(_seconds: float) -> None:
    raise AssertionError("it was to be taken at once")


def test_of_many_machines_that_start_at_once_one_owns_it(url: str, server: Server) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, f"{url}/demo", str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **server.environment()},
            text=True,
        )
        for number in range(4)
    ]
    assert {told(racer) for racer in racers} == {"ready"}
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    assert sorted(told(racer) for racer in racers) == ["held 1", "owned", "owned", "owned"]
    assert [racer.communicate(timeout=180)[0] for racer in racers] == [""] * 4


def told(racer: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert racer.stdout is not None
    return racer.stdout.readline().strip()


def test_a_silent_owner_elsewhere_is_followed_after_a_while_and_can_write_no_more(anywhere: str) -> None:
    store = Store(anywhere)
    first = hold(store, elsewhere("a"), wait=never)
    first.renew()
    waited: list[float] = []
    second = hold(store, elsewhere("b"), wait=waited.append, watch_s=30.0, poll_s=1.0)
    assert (first.epoch, second.epoch, sum(waited)) == (1, 2, 30.0)
    second.still_held()
    for ask in (first.still_held, first.renew):
        with pytest.raises(OwnedError):
            ask()
    first.release()
    second.renew()


def test_an_owner_elsewhere_that_renews_is_left_alone(anywhere: str) -> None:
    store = Store(anywhere)
    first = hold(store, elsewhere("a"), wait=never)
    with pytest.raises(OwnedError, match=r"is owned by process|is alive"):
        hold(store, elsewhere("b"), wait=lambda _seconds: first.renew(), watch_s=30.0, poll_s=1.0)
    first.still_held()


def test_what_was_given_back_is_taken_at_once(anywhere: str) -> None:
    store = Store(anywhere)
    hold(store, elsewhere("a"), wait=never).release()
    assert hold(store, elsewhere("b"), wait=never).epoch == 2


def test_a_later_stay_of_the_same_job_follows_at_once(anywhere: str) -> None:
    store = Store(anywhere)
    hold(store, replace(elsewhere("a"), job="17", restart=0), wait=never)
    assert hold(store, replace(elsewhere("b"), job="17", restart=1), wait=never).epoch == 2
    assert hold(store, replace(elsewhere("c"), job="18", restart=0), wait=never, over=["17"]).epoch == 3


def test_a_process_that_does_this_for_the_same_supervisor_again_needs_not_wait(anywhere: str) -> None:
    owner = this_process()
    first = hold(Store(anywhere), owner, wait=never)
    second = hold(Store(anywhere), owner, wait=never)
    with pytest.raises(OwnedError):
        first.renew()
    second.renew()


def test_where_nothing_can_be_written_conditionally_it_is_read_again_after_a_moment(tmp_path: object) -> None:
    """A directory, through the door of stores: it creates, but does not replace."""
    store = _Plain(f"file://{tmp_path}/store")
    waited: list[float] = []
    first = hold(store, elsewhere("a"), wait=waited.append)
    assert waited == []
    first.renew()

    def another_comes(_seconds: float) -> None:
        store.put(LEASE, b'{"v": 1, "epoch": 9, "counter": 0, "owner": null}')

    first.release()
    took = hold(store, elsewhere("b"), wait=waited.append)
    assert (took.epoch, len(waited)) == (2, 1)
    took.release()
    turns = iter([another_comes, waited.append])

    def wait(seconds: float) -> None:
        next(turns)(seconds)

    assert hold(store, elsewhere("c"), wait=wait).epoch == 10


class _Plain(Store):
    """A directory, taken for an object store."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = f"plain{url}"
