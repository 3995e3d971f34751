"""One S3 server for all tests of mirrors; each has a bucket of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from stores import Proxy, Server, proxy, s3_server


@pytest.fixture(scope="session")
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


@pytest.fixture(params=["s3", "file"])
def anywhere(request: pytest.FixtureRequest, server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An address in an object store, and one in a directory."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    if request.param == "s3":
        return f"{server.bucket(f'b{uuid.uuid4().hex[:12]}')}/demo"
    return f"file://{request.getfixturevalue('tmp_path')}/store/demo"
