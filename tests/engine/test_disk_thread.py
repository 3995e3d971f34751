"""A disk that hangs: who waits, and in what order things are done."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from harness import until

from supervisor.engine.disk import PATIENCE_S, Disk


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    """What something on the disk waits for."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    yield made
    made.close(10.0)


def test_on_a_healthy_disk_whoever_does_something_finds_it_done(disk: Disk) -> None:
    done = disk.do(lambda: 7)
    assert done.over
    assert done.result() == 7


def test_what_fails_is_the_askers_and_the_next_is_done_nevertheless(disk: Disk) -> None:
    failed = disk.do(lambda: {}["nothing"])
    assert failed.over
    with pytest.raises(KeyError, match="nothing"):
        failed.result()
    assert disk.do(lambda: 7).result() == 7


def test_nobody_waits_behind_what_is_stuck_and_all_is_done_in_order_once_it_goes_on(
    disk: Disk, stuck: threading.Event
) -> None:
    done: list[int] = []
    began_s = time.monotonic()
    first = disk.do(lambda: stuck.wait(30.0))
    assert not first.over
    assert PATIENCE_S <= time.monotonic() - began_s < PATIENCE_S + 15.0
    began_s = time.monotonic()
    later = [disk.do(lambda n=n: done.append(n)) for n in range(50)]
    asked = disk.ask(lambda: list(done))
    assert time.monotonic() - began_s < 20 * PATIENCE_S  # fifty times that, if each were waited for
    assert not any(one.over for one in (*later, asked))
    stuck.set()
    until(lambda: asked.over, "end of all")
    assert asked.result() == list(range(50))
    assert disk.do(lambda: 7).over  # healthy again: waited for again


def test_leaving_does_not_wait_for_what_is_stuck(stuck: threading.Event) -> None:
    disk = Disk()
    disk.ask(lambda: stuck.wait(30.0))
    began_s = time.monotonic()
    disk.close(0.2)
    assert time.monotonic() - began_s < 20.0


def test_it_is_known_while_something_is_stuck(disk: Disk, stuck: threading.Event) -> None:
    assert not disk.stuck
    asked = disk.ask(lambda: stuck.wait(30.0))
    assert not disk.stuck  # it has only begun
    until(lambda: disk.stuck, "word of it")
    stuck.set()
    until(lambda: asked.over, "end")
    until(lambda: not disk.stuck, "word of that")
