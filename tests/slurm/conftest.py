"""One SLURM cluster for the session, in a directory and on ports of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import until
from one_machine import GRACE_S, LOST, Cluster, processes, require


@pytest.fixture(scope="session")
def session_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require()
    found = Cluster(tmp_path_factory.mktemp("slurm") / "c")
    try:
        yield found.up("--nodes", "3", "--grace-time", str(GRACE_S), "--kill-wait", "5")
    finally:
        found.down()


@pytest.fixture
def cluster(session_cluster: Cluster) -> Cluster:
    """The session's cluster, without what an earlier test has left."""
    return session_cluster.empty()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    """A directory for a cluster that the test itself starts and ends."""
    require()
    found = Cluster(tmp_path / "c")
    try:
        yield found
    finally:
        found.down()


@pytest.fixture(scope="session", autouse=True)
def bereft(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, str]]:
    """A cluster whose only node died with this job on it.

    Made before the first test, for SLURM takes half a minute to notice, and the others use that time.
    """
    require()
    found = Cluster(tmp_path_factory.mktemp("slurm") / "bereft")
    try:
        found.up("--nodes", "1", "--slurmd-timeout", "5")
        job = found.submit("--wrap", f"exec sleep {LOST}")
        until(lambda: processes(LOST), "job's process")
        found.fail("n1")
        yield found, job
    finally:
        found.down()
