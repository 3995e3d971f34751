"""A run outlives its machine: nothing but the job file and a store is left, and it goes on from there."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import BUSY_S, Run, send, until
from stores import Proxy, Server, proxy, s3_server
from undisturbed import ALONE, assert_same

from supervisor.checkpoint.verify import Intact, verify
from supervisor.mirror.layout import LEASE, piece_name, pieces_of
from supervisor.mirror.store import Store


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def url(server: Server) -> str:
    return server.bucket(f"b{uuid.uuid4().hex[:12]}")


@pytest.fixture
def between(server: Server) -> Iterator[Proxy]:
    with proxy(server.port) as standing:
        yield standing


def mirrored(base: Path, url: str, environment: dict[str, str], **job: Any) -> Run:
    checkpoint = {"every": "2 steps", "snapshot": "1 step", "mirror": url}
    return Run(
        base,
        args=ALONE,
        job={"name": "demo", "launch": {"processes_per_node": 1}, "checkpoint": checkpoint, **job},
        environment=environment,
    )


def keepers(run: Run) -> list[psutil.Process]:
    assert run.process is not None
    try:
        children = psutil.Process(run.process.pid).children()
    except psutil.NoSuchProcess:
        return []
    return [one for one in children if "supervisor.mirror.keeper" in words_of(one)]


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; none of one that has ended meanwhile."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def lose_the_machine(run: Run) -> None:
    """Everything dies, and nothing of it is left: neither memory nor disk."""
    found = keepers(run)
    run.kill_tree()
    for keeper in found:
        send(keeper.pid, signal.SIGKILL)
    psutil.wait_procs(found, 30)
    shutil.rmtree(run.board(), ignore_errors=True)
    shutil.rmtree(run.run_dir)


def store(url: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The run's mirror, as somebody else sees it."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return Store(f"{url}/demo")


def steps_mirrored(run: Run) -> list[int]:
    return [record.fields["step"] for record in run.journal("mirrored")]


def test_a_machine_with_nothing_but_the_job_file_goes_on_from_the_mirror_bit_for_bit(
    tmp_path: Path, url: str, server: Server, alone: Run
) -> None:
    run = mirrored(tmp_path / "run", url, server.environment())
    run.place("step-8")
    run.start().wait_at("step-8", ranks=1)
    until(lambda: 6 in steps_mirrored(run), "step 6 in the mirror")
    run_id = run.run_id()
    lose_the_machine(run)
    run.let_go("step-8")

    assert run.run() == 0, run.said()
    assert run.run_id() == run_id
    [_, again] = run.journal("training_started")
    assert (again.fields["source"], again.fields["step"]) == ("mirror", 6)
    [lost, _] = run.journal("attempt_ended")
    assert (lost.fields["cause"], lost.fields["step"]) == ("node_lost", 6)
    assert [record.attempt for record in run.journal("attempt_started")] == [1, 2]
    assert run.journal("incident") == []
    assert_same(run, alone)

    # Somebody who starts it once more, on yet another machine, is told that it is over, and gets the adapter.
    final = (run.run_dir / "final" / "model.safetensors").read_bytes()
    shutil.rmtree(run.run_dir)
    assert run.run() == 0, run.said()
    assert (run.run_dir / "final" / "model.safetensors").read_bytes() == final
    assert len(run.journal("attempt_started")) == 2


def test_an_emergency_checkpoint_reaches_the_mirror_within_the_grace(
    tmp_path: Path, url: str, server: Server, between: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = mirrored(
        tmp_path / "run",
        url,
        server.environment(between.port),
        checkpoint={"every": "10 min", "snapshot": "1 step", "mirror": url},
        recovery={"grace": "20 s"},
    )
    between.fault = lambda line: time.sleep(0.2) or ""  # type: ignore[func-returns-value]
    run.place("step-8")
    run.start().wait_at("step-8", ranks=1)
    assert steps_mirrored(run) == []
    run.signal_tree(signal.SIGTERM)
    assert run.wait() == 75, run.said()
    [committed] = run.journal("checkpoint_committed")
    assert committed.fields["reason"] == "emergency"
    assert steps_mirrored(run) == [committed.fields["step"]]
    assert run.journal("mirrored")[0].time - run.journal("notice")[0].time < 20.0
    # The lease was given back, so another machine need not watch it for half a minute.
    lease = store(url, server, monkeypatch).get(LEASE)
    assert lease is not None
    assert json.loads(lease.data)["owner"] is None


def test_a_store_that_swallows_everything_neither_slows_training_nor_holds_a_drain_beyond_the_grace(
    tmp_path: Path, url: str, server: Server, between: Proxy, alone: Run
) -> None:
    run = mirrored(tmp_path / "run", url, server.environment(between.port), recovery={"grace": "5 s"})
    run.place("step-4")
    run.start().wait_at("step-4", ranks=1)
    until(lambda: 2 in steps_mirrored(run), "step 2 in the mirror")
    between.fault = lambda _line: "hang"
    run.place("step-10")
    run.let_go("step-4")
    run.wait_at("step-10", ranks=1)
    run.signal_tree(signal.SIGTERM)
    assert run.wait(8.0 + BUSY_S) == 75, run.said()
    run.let_go("step-10")
    # The store is still gone: the run directory has its own checkpoints, so it goes on from them.
    assert run.start().wait() == 0, run.said()
    assert run.journal("training_started")[-1].fields["source"] in ("checkpoint", "snapshot")
    assert "mirror: " in run.journal("incident")[-1].fields["detail"]
    assert_same(run, alone)


def test_a_machine_that_knows_nothing_does_not_begin_anew_while_the_store_is_gone(
    tmp_path: Path, url: str, server: Server, between: Proxy
) -> None:
    run = mirrored(tmp_path / "run", url, server.environment(between.port))
    between.fault = lambda _line: "500"
    assert run.start().wait() == 75, run.said()
    assert "only it could tell whether the run has been begun" in run.said()
    assert run.journal("attempt_started") == []


def test_a_damaged_checkpoint_in_the_mirror_is_passed_over_for_the_next_older(
    tmp_path: Path, url: str, server: Server, alone: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = mirrored(tmp_path / "run", url, server.environment())
    run.place("step-5")
    run.place("step-8")
    run.start().wait_at("step-5", ranks=1)
    until(lambda: 4 in steps_mirrored(run), "step 4 in the mirror")
    run.let_go("step-5")
    run.wait_at("step-8", ranks=1)
    until(lambda: 6 in steps_mirrored(run), "step 6 in the mirror")
    optimizer = (run.run_dir / "checkpoints" / "checkpoint-6" / "optimizer.safetensors").read_bytes()
    run_id = run.run_id()
    lose_the_machine(run)
    run.let_go("step-8")
    store(url, server, monkeypatch).put(pieces_of(run_id) + piece_name(optimizer), b"\0" * len(optimizer))

    assert run.run() == 0, run.said()
    [rejected] = run.journal("checkpoint_rejected")
    assert (rejected.fields["step"], rejected.fields["reason"]) == (6, "optimizer.safetensors: content changed")
    assert run.journal("training_started")[-1].fields["step"] == 4
    assert_same(run, alone)
    assert isinstance(verify(run.run_dir / "checkpoints" / "checkpoint-12", run_id), Intact)


def test_two_machines_never_both_own_a_run(tmp_path: Path, url: str, server: Server) -> None:
    one = mirrored(tmp_path / "one", url, server.environment())
    one.place("step-4")
    one.start().wait_at("step-4", ranks=1)
    other = mirrored(tmp_path / "other", url, server.environment())
    assert other.run() == 2
    assert "is owned by process" in other.said()
    one.let_go("step-4")
    assert one.wait() == 0, one.said()


def test_a_keeper_that_is_killed_is_started_again_and_goes_on(tmp_path: Path, url: str, server: Server) -> None:
    run = mirrored(tmp_path / "run", url, server.environment())
    run.place("step-6")
    run.start().wait_at("step-6", ranks=1)
    until(lambda: 4 in steps_mirrored(run), "step 4 in the mirror")
    [keeper] = keepers(run)
    keeper.kill()
    run.let_go("step-6")
    assert run.wait() == 0, run.said()
    assert max(steps_mirrored(run)) == 12


@pytest.mark.parametrize(
    ("mirror", "environment", "said"),
    [
        ("s3://nobody-made-it", {}, "there is no such bucket"),
        ("s3://", {}, "correct `checkpoint.mirror`"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    tmp_path: Path, server: Server, mirror: str, environment: dict[str, str], said: str
) -> None:
    run = mirrored(tmp_path / "run", mirror, {**server.environment(), **environment})
    assert run.start().wait() == 2
    assert said in run.said()
    assert run.journal("attempt_started") == []


def test_without_the_library_the_key_is_refused_with_what_to_install(tmp_path: Path) -> None:
    run = mirrored(tmp_path / "run", "s3://bucket", {})
    program = (
        "import sys; sys.modules['obstore'] = None\n"
        "from supervisor.cli import main\n"
        f"sys.argv = ['supervisor', 'run', {str(run.write_job())!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 2
    assert "pip install 'lora-supervisor[cloud]'" in done.stderr
