"""The real pynvml against a driver that is made of a text file, so that every sickness can be had."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_driver import Driver, build, driver_in
from harness import until

from supervisor.policy.causes import Cause
from supervisor.policy.gpu_health import Holder, State, app_fault, fault_of
from supervisor.watch.gpu_health import GpuWatch, Look, look, neighbours


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def driver(tmp_path: Path, library: Path) -> Driver:
    return driver_in(tmp_path, library)


@pytest.fixture
def watch(driver: Driver) -> Iterator[Callable[..., GpuWatch]]:
    made: list[GpuWatch] = []

    def make(*gpus: str, limit_s: float = 30.0) -> GpuWatch:
        made.append(GpuWatch(gpus or ("0", "1"), limit_s, driver.environment))
        return made[-1]

    yield make
    for one in made:
        one.close()


def asked(watch: GpuWatch) -> Look:
    watch.ask(time.monotonic())
    return until(lambda: watch.answer(time.monotonic()), "answer")


def test_fit_gpus_are_named_and_fit(driver: Driver) -> None:
    found = look(["0", "1"], environment=driver.environment)
    assert [(one.index, one.uuid, one.state, one.words) for one in found.healths] == [
        (0, "GPU-0-fake", State.OK, ""),
        (1, "GPU-1-fake", State.OK, ""),
    ]
    assert found.holders == ()


@pytest.mark.parametrize(
    ("does", "state", "words"),
    [
        ("recovery 1 1", State.BAD, "the driver wants it reset"),
        ("recovery 1 2", State.BAD, "the driver wants the node rebooted"),
        ("handle 1 15", State.BAD, "the driver has lost it"),
        ("norecovery 1 15", State.BAD, "the driver has lost it"),
        ("handle 1 16", State.BAD, "the driver wants it reset"),
        ("rows 1 0 1", State.BAD, "broken memory rows could not be replaced"),
        ("rows 1 1 0", State.SUSPECT, "broken memory rows wait for a reset to be replaced"),
        ("ecc 1 4", State.SUSPECT, "uncorrected memory errors since the driver was loaded: 4"),
        ("norecovery 1 3", State.UNKNOWN, "NVML: Not Supported"),
        ("norows 1 3", State.OK, ""),  # a GPU without such memory
        ("noecc 1 3", State.OK, ""),
        ("handle 1 999", State.UNKNOWN, "NVML: Unknown Error"),
    ],
)
def test_what_is_wrong_with_one_is_said_of_that_one(driver: Driver, does: str, state: State, words: str) -> None:
    driver.does("gpus 2", does)
    fit, sick = look(["0", "1"], environment=driver.environment).healths
    assert (fit.state, fit.words) == (State.OK, "")
    assert (sick.index, sick.state, sick.words) == (1, state, words)


@pytest.mark.parametrize(
    ("name", "index"), [("GPU-1-fake", 1), ("GPU-1", 1), ("MIG-GPU-1-fake/7/0", 1), ("MIG-1", 1), ("0", 0)]
)
def test_a_gpu_is_found_by_every_name_that_cuda_knows(driver: Driver, name: str, index: int) -> None:
    (found,) = look([name], environment=driver.environment).healths
    assert (found.index, found.state) == (index, State.OK)


def test_a_gpu_that_the_driver_does_not_know_is_not_known(driver: Driver) -> None:
    seventh, named = look(["7", "GPU-9"], environment=driver.environment).healths
    assert (seventh.index, seventh.state, seventh.words) == (7, State.UNKNOWN, "NVML: Invalid Argument")
    assert (named.index, named.state, named.words) == (None, State.UNKNOWN, "NVML: Not Found")


def test_without_a_library_nothing_is_known() -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a driver")
    (found,) = look(["0"]).healths
    assert (found.state, found.words) == (State.UNKNOWN, "NVML: NVML Shared Library Not Found")
    assert fault_of([found]) is None


def test_a_driver_that_is_not_loaded_is_not_known(driver: Driver) -> None:
    driver.does("init 9")
    (found,) = look(["0"], environment=driver.environment).healths
    assert (found.state, found.words) == (State.UNKNOWN, "NVML: Driver Not Loaded")


def test_a_driver_that_hangs_on_one_gpu_leaves_the_others_known(driver: Driver) -> None:
    driver.does("gpus 3", "hang 1")
    fit, silent, other = look(["0", "1", "2"], 2.0, environment=driver.environment).healths
    assert (fit.state, other.state) == (State.OK, State.OK)
    assert (silent.index, silent.state, silent.words) == (1, State.UNKNOWN, "the driver did not answer")


def test_a_driver_that_hangs_at_once_is_given_up_and_asked_again_later(
    driver: Driver, watch: Callable[..., GpuWatch]
) -> None:
    driver.does("hanginit")
    one = watch("0", limit_s=1.0)
    begun_s = time.monotonic()
    (silent,) = asked(one).healths
    assert time.monotonic() - begun_s < 30.0  # the limit, and a busy machine's time to start a process
    assert (silent.state, silent.words) == (State.UNKNOWN, "the driver did not answer")
    driver.does("gpus 1")
    until(lambda: one.hear(time.monotonic()) or one.fd is None, "end of the one that hung")
    (found,) = asked(one).healths
    assert found.state is State.OK


def test_an_error_is_heard_as_it_happens_and_belongs_to_its_attempt(
    driver: Driver, watch: Callable[..., GpuWatch]
) -> None:
    driver.does("gpus 2", "xid 0 31")  # before anybody listened
    one = watch()
    assert [health.state for health in asked(one).healths] == [State.OK, State.OK]
    assert one.heard == ()
    driver.does("gpus 2", "xid 0 31", "xid 1 45", "xid 1 79")
    until(lambda: one.hear(time.monotonic()) or (one.heard and len(one.heard[0].xids) == 2), "Xid")
    (heard,) = one.heard
    assert (heard.index, heard.uuid, heard.state, heard.xids) == (1, "GPU-1-fake", State.BAD, (45, 79))
    driver.does("gpus 2", "xid 0 31", "xid 1 45", "xid 1 79", "handle 1 15")
    fit, gone = asked(one).healths
    assert fit.state is State.OK
    verdict = fault_of([fit, gone])
    assert verdict is not None
    assert (verdict.cause, verdict.evidence) == (
        Cause.GPU_FAULT,
        "GPU 1 (GPU-1-fake): the driver has lost it; Xid 79, it has fallen off the bus",
    )
    driver.does("gpus 2", "xid 0 31", "xid 1 45", "xid 1 79")
    one.forget()
    assert fault_of(asked(one).healths) is None


def test_an_error_of_the_program_does_not_blame_the_gpu(driver: Driver, watch: Callable[..., GpuWatch]) -> None:
    one = watch("0")
    asked(one)
    driver.does("gpus 2", "xid 0 13")
    until(lambda: one.hear(time.monotonic()) or one.heard, "Xid")
    assert fault_of(one.heard) is None
    assert app_fault(one.heard) == "GPU 0 (GPU-0-fake): Xid 13, graphics engine exception"


def test_a_gpu_that_is_called_unavailable_is_lost(driver: Driver, watch: Callable[..., GpuWatch]) -> None:
    one = watch("0")
    asked(one)
    driver.does("gpus 2", f"event 0 {0x4000} 0")
    until(lambda: one.hear(time.monotonic()) or one.heard, "event")
    assert [health.state for health in one.heard] == [State.BAD]


def test_what_the_kernel_says_of_a_gpu_is_added_to_it(driver: Driver, watch: Callable[..., GpuWatch]) -> None:
    driver.does("gpus 2", "noevents 0", "noevents 1")
    one = watch()
    asked(one)
    one.note([("0000:a1:00", 79, "GPU has fallen off the bus."), ("0000:ff:00", 48, "of a GPU that is not ours")])
    fit, gone = asked(one).healths
    assert (fit.state, gone.state, gone.xids) == (State.OK, State.BAD, (79,))


def test_a_neighbours_process_is_told_from_ours(driver: Driver) -> None:
    driver.does("gpus 2", "process 0 4711 99", "process 0 4712 1024", "process 1 4713 7")
    found = look(["0", "1"], environment=driver.environment)
    assert found.holders == (Holder(4711, 99, 0), Holder(4712, 1024, 0), Holder(4713, 7, 1))
    assert neighbours(found.holders, {4711, 4713}) == (Holder(4712, 1024, 0),)


def test_in_a_container_neighbours_cannot_be_told(tmp_path: Path) -> None:
    (tmp_path / "self" / "ns").mkdir(parents=True)
    (tmp_path / "self" / "ns" / "pid").symlink_to("pid:[4026532198]")
    assert neighbours([Holder(1, 2, 3)], {1}, tmp_path) is None


def test_the_process_that_asks_ends_with_whoever_started_it(driver: Driver) -> None:
    program = (
        "import os, sys, time\n"
        "from supervisor.watch.gpu_health import GpuWatch\n"
        "one = GpuWatch(['0'])\n"
        "one.ask(time.monotonic())\n"
        "while one.answer(time.monotonic()) is None: time.sleep(0.01)\n"
        "print(one._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=driver.environment, capture_output=True, text=True, timeout=180, check=False)
    pid = int(done.stdout)
    until(lambda: not Path(f"/proc/{pid}").exists(), "end of the process that asks")
