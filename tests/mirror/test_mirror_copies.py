"""Checkpoints go into a store and come back: whole, verified, and once."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from stores import RUN, Proxy, Server, made, now_and_then, tree

from supervisor.checkpoint.flaws import FlawError
from supervisor.checkpoint.verify import Intact, verify
from supervisor.mirror.cleaning import Cleaner
from supervisor.mirror.fetching import DamagedError, Fetcher
from supervisor.mirror.layout import PIECE_BYTES, Head, commit_path, commits_of, pieces_of
from supervisor.mirror.sending import Sender
from supervisor.mirror.store import Store

HEAD = Head(RUN, committed=True)


class StoppedError(Exception):
    """In place of a kill."""


def send(store: Store, checkpoint: Path) -> int:
    sender = Sender(store, RUN)
    sender.look()
    return sender.checkpoint(checkpoint, lambda: None).sent_bytes


def fetch(store: Store, step: int, to: Path, lineage: int = 0) -> Path:
    fetcher = Fetcher(store, RUN)
    found = fetcher.commit_object(lineage, step)
    return fetcher.checkpoint(found, to, confirm=lambda: None, clock=time.monotonic).path


def through(url: str, server: Server, between: Proxy, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name, value in server.environment(between.port).items():
        monkeypatch.setenv(name, value)
    return Store(url, small_s=1.0, large_s=2.0)


def test_what_comes_back_is_bit_for_bit_what_went(tmp_path: Path, anywhere: str) -> None:
    store = Store(anywhere)
    checkpoint = made(tmp_path / "here", 20).path
    send(store, checkpoint)
    back = fetch(store, 20, tmp_path / "there")
    assert tree(back) == tree(checkpoint)
    assert isinstance(verify(back, RUN), Intact)


def test_files_of_several_pieces_come_back_whole_and_only_new_pieces_are_sent(tmp_path: Path, anywhere: str) -> None:
    store = Store(anywhere)
    first = made(tmp_path / "here", 20, size=PIECE_BYTES + 17)
    assert send(store, first.path) == first.bytes
    sent = send(store, made(tmp_path / "here", 30).path)
    # What two checkpoints have in common lies there once.
    assert sent == made(tmp_path / "again", 30).bytes - len(b'{"peft_type": "LORA"}') - len(b'{"log_history": []}')
    assert tree(fetch(store, 20, tmp_path / "there")) == tree(first.path)


def test_a_checkpoint_exists_only_by_its_commit_object_and_a_second_try_sends_what_is_missing(
    tmp_path: Path, anywhere: str
) -> None:
    store = Store(anywhere)
    checkpoint = made(tmp_path / "here", 20).path

    def stop() -> None:
        raise StoppedError

    sender = Sender(store, RUN)
    sender.look()
    with pytest.raises(StoppedError):
        sender.checkpoint(checkpoint, stop)
    assert store.names(commits_of(RUN)) == {}
    assert Cleaner(store, RUN).commits() == {}
    lost = sorted(store.names(pieces_of(RUN)))[0]
    store.delete([lost])
    assert send(store, checkpoint) == int(lost.rpartition("-")[2])
    assert tree(fetch(store, 20, tmp_path / "there")) == tree(checkpoint)


def test_a_damaged_checkpoint_on_disk_is_not_sent(tmp_path: Path, anywhere: str) -> None:
    checkpoint = made(tmp_path / "here", 20).path
    data = bytearray((checkpoint / "optimizer.safetensors").read_bytes())
    data[-1] ^= 1
    (checkpoint / "optimizer.safetensors").write_bytes(data)
    with pytest.raises(FlawError, match=r"optimizer\.safetensors: content changed"):
        send(Store(anywhere), checkpoint)
    assert Store(anywhere).names(commits_of(RUN)) == {}


def test_a_checkpoint_that_is_deleted_meanwhile_is_sent_whole(tmp_path: Path, anywhere: str) -> None:
    store, sender = Store(anywhere), Sender(Store(anywhere), RUN)
    checkpoint = made(tmp_path / "here", 20).path
    before = tree(checkpoint)
    sender.moved = lambda: shutil.rmtree(checkpoint, ignore_errors=True)
    sender.look()
    sender.checkpoint(checkpoint, lambda: None)
    assert not checkpoint.exists()
    assert tree(fetch(store, 20, tmp_path / "there")) == before


@pytest.mark.parametrize("damage", ["changed", "short", "missing"])
def test_a_damaged_piece_never_becomes_a_checkpoint_and_is_sent_anew(
    tmp_path: Path, anywhere: str, damage: str
) -> None:
    store = Store(anywhere)
    checkpoint = made(tmp_path / "here", 20).path
    send(store, checkpoint)
    place = pieces_of(RUN)
    victim = max(store.names(place), key=lambda path: int(path.rpartition("-")[2]))
    if damage == "missing":
        store.delete([victim])
    else:
        data = bytearray(store.fetch(victim) or b"")
        store.put(victim, bytes(data[:-1]) if damage == "short" else bytes([data[0] ^ 1]) + bytes(data[1:]))
    with pytest.raises(DamagedError, match=r"optimizer\.safetensors: (content changed|missing)") as caught:
        fetch(store, 20, tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []
    assert caught.value.pieces == {victim.removeprefix(place)}

    cleaner = Cleaner(store, RUN)
    cleaner.set_aside(0, 20)
    assert cleaner.commits() == {}
    sender = Sender(store, RUN, doubted=set(caught.value.pieces))
    sender.look()
    sender.checkpoint(checkpoint, lambda: None)
    assert tree(fetch(store, 20, tmp_path / "there")) == tree(checkpoint)


def test_a_damaged_commit_object_is_set_aside(tmp_path: Path, anywhere: str) -> None:
    store = Store(anywhere)
    for step in (10, 20, 30):
        send(store, made(tmp_path / "here", step).path)
    store.put(commit_path(RUN, 0, 30), b"{}")
    store.put(commit_path(RUN, 0, 20), (store.fetch(commit_path(RUN, 0, 10)) or b""))
    assert Cleaner(store, RUN).commits().keys() == {(0, 10)}
    assert store.names(f"{RUN}/torn/").keys() == {f"{RUN}/torn/0-20.json", f"{RUN}/torn/0-30.json"}


def test_a_byte_that_is_wrong_on_the_way_is_asked_for_again(
    tmp_path: Path, url: str, server: Server, between: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = through(url, server, between, monkeypatch)
    checkpoint = made(tmp_path / "here", 20).path
    send(store, checkpoint)
    left = ["wrong", "wrong"]
    between.fault = lambda line: left.pop() if left and "/pieces/" in line else ""
    assert tree(fetch(store, 20, tmp_path / "there")) == tree(checkpoint)
    assert left == []
    between.fault = lambda line: "wrong" if "/pieces/" in line else ""
    with pytest.raises(DamagedError, match="content changed"):
        fetch(store, 20, tmp_path / "elsewhere")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_store_that_fails_now_and_then_takes_and_gives_all_the_same(
    tmp_path: Path, url: str, server: Server, between: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = through(url, server, between, monkeypatch)
    between.fault = now_and_then(["500", "cut", "lost", "500", "hang"], every=6, seed=3)
    for step in (10, 20, 30):
        checkpoint = made(tmp_path / "here", step).path
        send(store, checkpoint)
        assert tree(fetch(store, step, tmp_path / "there")) == tree(checkpoint)


def test_what_goes_goes_commit_object_first_and_nothing_leaks(tmp_path: Path, anywhere: str) -> None:
    store, cleaner = Store(anywhere), Cleaner(Store(anywhere), RUN)
    for step in (10, 20, 30, 40):
        send(store, made(tmp_path / "here", step).path)
    store.put(pieces_of(RUN) + "0" * 32 + "-7", b"leaked!")
    cleaner.clean(Head(RUN, committed=True, kept=frozenset({(0, 10)})), last=2, on_disk=[])
    there = cleaner.commits()
    assert there.keys() == {(0, 10), (0, 30), (0, 40)}
    needed = {pieces_of(RUN) + piece for one in there.values() for piece in one.all_pieces}
    assert store.names(pieces_of(RUN)).keys() == needed
    assert cleaner.clean(HEAD, last=2, on_disk=[(0, 40)]) > 0
    assert cleaner.clean(HEAD, last=2, on_disk=[(0, 40)]) == 0
    assert Cleaner(store, RUN).commits().keys() == {(0, 30), (0, 40)}


def test_what_a_run_has_gone_back_behind_goes_once_there_are_others(tmp_path: Path, anywhere: str) -> None:
    store = Store(anywhere)
    cleaner = Cleaner(store, RUN, lambda lineage, step: lineage >= 1 or step < 15)
    for step in (10, 20, 30):
        send(store, made(tmp_path / "here", step).path)
    cleaner.clean(HEAD, last=2, on_disk=[])
    assert cleaner.commits().keys() == {(0, 10), (0, 20), (0, 30)}
    send(store, made(tmp_path / "new", 20, lineage=1).path)
    cleaner.clean(HEAD, last=2, on_disk=[])
    assert cleaner.commits().keys() == {(0, 10), (1, 20)}
    assert tree(fetch(store, 20, tmp_path / "there", lineage=1)) == tree(tmp_path / "new" / "checkpoint-20")
