"""A stop is asked for with a file, from any machine; half a file is a request, an unreadable disk is not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from supervisor.watch.requests import ask_stop, forget_stop, stop_asked


def test_nobody_has_asked_at_first(tmp_path: Path) -> None:
    assert stop_asked(tmp_path) is None
    (tmp_path / "control").mkdir()
    assert stop_asked(tmp_path) is None


def test_whoever_asks_is_named_and_asking_twice_is_asking_once(tmp_path: Path) -> None:
    assert ask_stop(tmp_path, 5.0) == ask_stop(tmp_path, 6.0) == tmp_path / "control" / "stop"
    assert f"pid {os.getpid()} on " in (stop_asked(tmp_path) or "")
    assert [p.name for p in (tmp_path / "control").iterdir()] == ["stop"]
    assert json.loads((tmp_path / "control" / "stop").read_text())["time"] == 6.0


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_a_request_is_its_users_alone(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        path = ask_stop(tmp_path, 5.0)
    finally:
        os.umask(before)
    assert [one.stat().st_mode & 0o077 for one in (path.parent, path)] == [0, 0]


def test_an_obeyed_request_is_forgotten(tmp_path: Path) -> None:
    forget_stop(tmp_path)  # nothing there
    ask_stop(tmp_path, 5.0)
    forget_stop(tmp_path)
    assert stop_asked(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b'{"time": 1, "b', b"[]", b'"x"', b"{}", b"\xff\xfe", b'{"by": null}'])
def test_a_torn_request_is_one_nevertheless(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "stop").write_bytes(content)
    assert stop_asked(tmp_path) == "somebody"


def test_a_disk_that_cannot_be_read_does_not_stop_a_run(tmp_path: Path) -> None:
    (tmp_path / "control").write_text("not a directory")
    assert stop_asked(tmp_path) is None
    (tmp_path / "control").unlink()
    (tmp_path / "control").symlink_to("control")  # ELOOP, for whoever follows it
    assert stop_asked(tmp_path) is None
