"""The door to stores: what fails is tried again and ends, what is refused is said, conditions hold."""

from __future__ import annotations

import time

import pytest
from stores import Proxy, Server, now_and_then, s3_server

from supervisor.mirror.refusals import ConditionError, StoreError, StoreRefusedError
from supervisor.mirror.store import Store


@pytest.fixture
def through(url: str, server: Server, between: Proxy, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store behind the proxy."""
    for name, value in server.environment(between.port).items():
        monkeypatch.setenv(name, value)
    return Store(url, small_s=4.0, large_s=4.0)


def once(fault: str, method: str) -> object:
    left = [fault]
    return lambda line: left.pop() if left and line.startswith(method) else ""


def test_an_object_is_written_read_listed_and_deleted(anywhere: str) -> None:
    store = Store(anywhere)
    assert store.get("a/b") is None
    assert store.fetch("a/b") is None
    assert store.names("a/") == {}
    store.put("a/b", b"one")
    store.put("a/b", b"two")
    found = store.get("a/b")
    assert found is not None
    assert (found.data, store.fetch("a/b"), store.names("a/")) == (b"two", b"two", {"a/b": 3})
    store.delete(["a/b", "a/never"])
    assert store.names("a/") == {}


def test_only_one_creates(anywhere: str) -> None:
    store = Store(anywhere)
    store.create("lease", b"mine")
    with pytest.raises(ConditionError):
        store.create("lease", b"theirs")
    found = store.get("lease")
    assert found is not None
    assert found.data == b"mine"


def test_only_the_version_that_was_seen_is_replaced(through: Store) -> None:
    tag = through.create("lease", b"one")
    newer = through.replace("lease", b"two", tag)
    with pytest.raises(ConditionError):
        through.replace("lease", b"three", tag)
    through.replace("lease", b"four", newer)


@pytest.mark.parametrize("fault", ["500", "cut", "hang", "lost"])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_what_fails_once_is_tried_again(through: Store, between: Proxy, fault: str, method: str) -> None:
    between.fault = once(fault, method)
    through.put("a", b"one")
    found = through.get("a")
    assert found is not None
    assert found.data == b"one"
    assert sum(line.startswith(method) for line in between.seen) == 2


def test_a_conditional_write_whose_answer_was_lost_is_known_for_our_own(through: Store, between: Proxy) -> None:
    between.fault = once("lost", "PUT")
    tag = through.create("lease", b"one")
    between.fault = once("lost", "PUT")
    tag = through.replace("lease", b"two", tag)
    through.replace("lease", b"three", tag)


def test_a_store_that_always_fails_says_so_in_the_end(through: Store, between: Proxy) -> None:
    between.fault = lambda _line: "hang"
    began_s = time.monotonic()
    with pytest.raises(StoreError, match="cannot be used now"):
        through.get("a")
    assert time.monotonic() - began_s < 60


def test_many_faults_hold_nothing_up_for_good(through: Store, between: Proxy) -> None:
    between.fault = now_and_then(["500", "cut", "lost"], every=8)
    for number in range(40):
        through.put(f"many/{number}", bytes([number]))
    assert through.names("many/").keys() == {f"many/{number}" for number in range(40)}


def test_a_bucket_that_is_not_there_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    store = Store("s3://nobody-made-it/runs")
    with pytest.raises(StoreRefusedError, match="no such bucket"):
        store.names("x")
    with pytest.raises(StoreRefusedError, match="no such bucket"):
        store.put("x", b"")


def test_credentials_that_are_not_known_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server({"INITIAL_NO_AUTH_ACTION_COUNT": "1"}) as strict:
        bucket = strict.bucket("strict")
        for name, value in strict.environment().items():
            monkeypatch.setenv(name, value)
        with pytest.raises(StoreRefusedError, match="refuses these credentials"):
            Store(bucket).names("x")


def test_nonsense_is_no_address() -> None:
    with pytest.raises(StoreRefusedError, match=r"correct `checkpoint\.mirror`"):
        Store("s3://")
