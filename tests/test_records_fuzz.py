"""Whatever lies in a run directory, its readers answer with a value."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from supervisor.engine.opening import history
from supervisor.journal import EVENTS, JOURNAL, read_run
from supervisor.lease import read_lease
from supervisor.policy.ledger import Ledger
from supervisor.watch.requests import stop_asked

NASTY = [
    b"",
    b"\x00" * 64,
    b"\xff\xfe{\x00}\x00",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"9" * 10_000,
    b'{"step": 1e999, "time": NaN}',
    b'{"event": "\\ud800"}',
    b'{"event": "x", "event": "y", "time": 1}',
    b'{"by": ' + b"9" * 5000 + b"}",
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["checkpoints/checkpoint-9", "../../etc", "final", "crashed"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = ["attempt", "step", "lineage", "path", "reason", "cause", "root", "before", "changes", "epoch", "processes"]
RECORDS = st.builds(
    lambda event, fields: {"v": 1, "time": 1.0, "event": event, "host": "h", **fields},
    st.sampled_from(sorted(EVENTS)),
    st.dictionaries(st.sampled_from([*KEYS, "run_id", "fresh", "forgive", "world_size", "mathematics"]), VALUES),
)


@pytest.mark.parametrize("data", NASTY, ids=range(len(NASTY)))
def test_bytes_that_have_broken_readers_are_read_in_no_time(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "control").mkdir()
    for name in (JOURNAL, "journal-3-n1.jsonl", "lease", "control/stop"):
        (tmp_path / name).write_bytes(data)
    began_s = time.monotonic()
    assert isinstance(history(tmp_path), Ledger)
    assert isinstance(read_run(tmp_path), list)
    assert stop_asked(tmp_path)
    assert read_lease(tmp_path) is None
    assert time.monotonic() - began_s < 20.0


@settings(deadline=None, max_examples=200)
@given(st.lists(RECORDS, max_size=5))
@example([{"time": 1.0, "event": "checkpoint_committed", "lineage": "x"}])
@example([{"time": 1.0, "event": "attempt_started", "attempt": "many"}])
def test_records_of_the_right_kind_with_anything_in_them_are_folded(records: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / JOURNAL).write_text("".join(json.dumps(record) + "\n" for record in records))
        assert isinstance(history(Path(place)), Ledger)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_request_and_any_lease_are_read(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        run_dir = Path(place)
        (run_dir / "control").mkdir()
        (run_dir / "control" / "stop").write_bytes(data)
        (run_dir / "lease").write_bytes(data)
        assert isinstance(stop_asked(run_dir), str)
        assert read_lease(run_dir) is None
