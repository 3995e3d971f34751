"""What undisturbed runs give, made once for all processes that test: every disturbed one has to give the same."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from disks import tmpfs
from harness import SHM, Run, send
from undisturbed import ALONE, TOGETHER, TRAINER_ALONE, TRAINER_TOGETHER

from supervisor.board.store import PREFIX
from supervisor.journal import JOURNAL, read


def _undisturbed(factory: pytest.TempPathFactory, name: str, args: dict[str, Any], processes: int) -> Run:
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # of all of them
    run = Run(base / name, args=args, job={"launch": {"processes_per_node": processes}})
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (run.run_dir / "final").exists():
            assert run.run() == 0, run.said()
    return run


def _fixture(name: str, args: dict[str, Any], processes: int) -> Any:
    @pytest.fixture(scope="session", name=name)
    def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
        return _undisturbed(tmp_path_factory, name, args, processes)

    return made


#: The undisturbed runs, by the names under which tests ask for them.
together = _fixture("together", TOGETHER, 2)
alone = _fixture("alone", ALONE, 1)
trainer_together = _fixture("trainer_together", TRAINER_TOGETHER, 2)
trainer_alone = _fixture("trainer_alone", TRAINER_ALONE, 1)


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """A test that fails leaves a run that waits for ever: end it, and take its memory away."""
    yield
    for process in psutil.process_iter(["cmdline"]):
        if any(str(tmp_path) in word for word in process.info["cmdline"] or ()):
            send(process.pid, signal.SIGKILL)
    for journal in tmp_path.rglob(JOURNAL):
        for record in read(journal):
            if record.event == "run_started":
                for board in SHM.glob(f"{PREFIX}{record.text('run_id')}*"):
                    shutil.rmtree(board, ignore_errors=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    with tmpfs(tmp_path / "disk", "size=6m") as place:
        yield place
