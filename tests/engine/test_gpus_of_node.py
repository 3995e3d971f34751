"""GPUs over an attempt, with a driver that is made of a text file and a kernel log that is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_driver import Driver, build, driver_in
from harness import until

from supervisor.engine.ranks.gpus import Gpus
from supervisor.policy.gpu_health import State
from supervisor.watch.gpu_health import GpuWatch


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def driver(tmp_path: Path, library: Path) -> Driver:
    return driver_in(tmp_path, library)


@pytest.fixture
def said() -> list[str]:
    """What the kernel says."""
    return []


@pytest.fixture
def gpus(driver: Driver, said: list[str]) -> Iterator[Gpus]:
    watch = GpuWatch(("0", "1"), 0.5, driver.environment)
    made = Gpus(watch, mark=lambda: len(said), since=lambda mark: said[mark:] if mark is not None else None)
    yield made
    made.close()


def begun(gpus: Gpus) -> None:
    gpus.begin_attempt()
    until(gpus.look, "answer")


def failed(gpus: Gpus) -> None:
    gpus.ask()
    until(gpus.look, "answer")


def test_without_gpus_nothing_is_asked_and_nothing_waited_for() -> None:
    none = Gpus(None)
    none.begin_attempt()
    none.ask()
    assert none.look()
    assert (none.healths, none.fault, none.words({1}), none.fds) == ((), None, [], [])
    assert not none.hold({1})


def test_before_there_is_an_answer_nothing_is_known(gpus: Gpus) -> None:
    gpus.begin_attempt()
    assert (gpus.healths, gpus.fault, gpus.words(())) == ((), None, [])
    until(gpus.look, "answer")
    assert [one.state for one in gpus.healths] == [State.OK, State.OK]
    assert len(gpus.fds) == 1


def test_a_gpu_that_needs_a_reset_is_known_before_an_attempt(driver: Driver, gpus: Gpus) -> None:
    driver.does("gpus 2", "recovery 1 1")
    begun(gpus)
    assert gpus.fault is not None
    assert gpus.fault.evidence == "GPU 1 (GPU-1-fake): the driver wants it reset"


def test_what_is_reported_during_an_attempt_is_a_fault_at_once(driver: Driver, gpus: Gpus) -> None:
    begun(gpus)
    driver.does("gpus 2", "xid 0 31", "xid 1 79")
    until(lambda: gpus.look() and gpus.fault, "fault")
    assert gpus.fault is not None
    assert gpus.fault.evidence == "GPU 1 (GPU-1-fake): Xid 79, it has fallen off the bus"
    until(lambda: gpus.look() and gpus.words(()), "the program's error")
    assert gpus.words(()) == ["GPU 0 (GPU-0-fake): Xid 31, memory page fault"]
    begun(gpus)  # the next attempt
    assert (gpus.fault, gpus.words(())) == (None, [])


def test_the_kernels_words_count_from_the_beginning_of_the_attempt(driver: Driver, said: list[str], gpus: Gpus) -> None:
    driver.does("gpus 2", "noevents 0", "noevents 1")
    said.append("NVRM: Xid (PCI:0000:a0:00): 48, of an earlier attempt")
    begun(gpus)
    assert gpus.fault is None
    said.append("NVRM: Xid (PCI:0000:a1:00): 119, pid=5, Timeout after 6s of waiting for RPC response")
    failed(gpus)
    assert gpus.fault is not None
    assert gpus.fault.evidence == "GPU 1 (GPU-1-fake): Xid 119, its system processor does not answer"


def test_a_driver_that_hangs_holds_nothing_up(driver: Driver, gpus: Gpus) -> None:
    begun(gpus)
    driver.does("gpus 2", "hang 0", "hang 1", "hanginit")
    failed(gpus)
    assert [(one.state, one.words, one.uuid) for one in gpus.healths] == [
        (State.UNKNOWN, "the driver did not answer", "GPU-0-fake"),
        (State.UNKNOWN, "the driver did not answer", "GPU-1-fake"),
    ]
    assert gpus.fault is None


def test_memory_of_killed_processes_is_waited_for_until_it_is_given_back(driver: Driver, gpus: Gpus) -> None:
    driver.does("gpus 2", "process 1 4711 99", "process 1 4712 5")
    begun(gpus)
    assert gpus.words({4711}) == ["GPU 1: process 4712, which is not of this run, holds 5 B"]
    answers = {gpus.hold({4711, 4710}) for _ in range(3)}
    assert answers == {True}
    driver.does("gpus 2", "process 1 4712 5")
    until(lambda: not gpus.hold({4711, 4710}), "memory given back")


def test_memory_that_a_silent_driver_counts_is_not_waited_for(driver: Driver, gpus: Gpus) -> None:
    driver.does("gpus 2", "process 1 4711 99")
    begun(gpus)
    driver.does("gpus 2", "process 1 4711 99", "hang 1", "hang 0")
    until(lambda: not gpus.hold({4711}), "end of the patience")
