"""One SLURM cluster for the session, in a directory and on ports of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from one_machine import GRACE_S, Cluster, require


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
