"""The journal survives its writer's death and any content; it is read back as it was written."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.errors import DiskError
from supervisor.journal import EVENTS, JOURNAL, Journal, Record, read, read_from
from supervisor.journal.records import records_of


def opened(run_dir: Path) -> Journal:
    times = iter(range(100, 10_000))
    return Journal.open(run_dir, lambda: float(next(times)), "node1")


def test_a_line_is_as_the_contract_says(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append("run_started", run_id="r", name="demo")
    journal.append("attempt_started", attempt=1, world_size=2)
    journal.append("workers_ready", pids=[1, 2])
    lines = [json.loads(line) for line in (tmp_path / JOURNAL).read_text().splitlines()]
    assert lines == [
        {
            "v": 1,
            "time": 100.0,
            "event": "run_started",
            "attempt": None,
            "host": "node1",
            "run_id": "r",
            "name": "demo",
        },
        {"v": 1, "time": 101.0, "event": "attempt_started", "attempt": 1, "host": "node1", "world_size": 2},
        {"v": 1, "time": 102.0, "event": "workers_ready", "attempt": 1, "host": "node1", "pids": [1, 2]},
    ]


def test_what_a_full_disk_refused_comes_with_the_next_line(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.note("run_started", run_id="r")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / JOURNAL).stat().st_size + 10, most))  # ten bytes left
    try:
        refused = [journal.note("incident", detail="one"), journal.note("incident", detail="two")]
        with pytest.raises(DiskError):
            journal.append("incident", detail="three")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert [r.event for r in read(tmp_path / JOURNAL)] == ["run_started"]
    last = journal.note("run_stopped")
    assert read(tmp_path / JOURNAL)[1:] == [*refused, last]


def test_the_journal_is_its_owners_alone(tmp_path: Path) -> None:
    opened(tmp_path)
    assert (tmp_path / JOURNAL).stat().st_mode & 0o777 == 0o600


def test_a_reader_sees_what_append_returned(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    returned = [
        journal.append("incident", attempt=3, cause="crashed", detail="a\nb \ud800 é", decision="restart"),
        journal.append("checkpoint_committed", step=4, path=Path("checkpoints/x"), stall_s=float("inf"), durable=False),
    ]
    assert read(tmp_path / JOURNAL) == returned
    assert returned[1].fields == {"step": 4, "path": "checkpoints/x", "stall_s": "inf"}


def test_every_line_is_json_that_other_tools_read(tmp_path: Path) -> None:
    opened(tmp_path).append("incident", loss=float("nan"))
    json.loads((tmp_path / JOURNAL).read_text(), parse_constant=pytest.fail)


def test_an_unknown_event_is_our_bug(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        opened(tmp_path).append("run_strated")
    with pytest.raises(AssertionError):
        opened(tmp_path).append("incident", host="me")
    assert len(EVENTS) == 18


def test_a_missing_journal_is_empty_and_an_unreadable_one_is_not(tmp_path: Path) -> None:
    assert read(tmp_path / JOURNAL) == []
    (tmp_path / JOURNAL).mkdir()
    with pytest.raises(DiskError):
        read(tmp_path / JOURNAL)
    with pytest.raises(DiskError, match=r"journal\.jsonl"):
        opened(tmp_path)
    with pytest.raises(DiskError):
        opened(tmp_path / "nowhere")


def test_a_torn_last_line_costs_itself_only(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append("run_started")
    whole = (tmp_path / JOURNAL).read_bytes()
    for cut in range(len(whole)):
        (tmp_path / JOURNAL).write_bytes(whole + whole[:cut])
        journal = opened(tmp_path)
        journal.append("run_stopped")
        events = [record.event for record in read(tmp_path / JOURNAL)]
        assert events == ["run_started", "run_stopped"], "one that lacks its end only is the same record once more"


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 4096,
        b"\xff\xfe{",
        b"{}",
        b"[1]",
        b'"x"',
        b"null",
        b'{"event": 3, "time": 1}',
        b'{"event": "x"}',
        b'{"event": "x", "time": true}',
        b'{"event": "x", "time": NaN}',
        b'{"event": "x", "time": "now"}',
        b'{"event": "x", "time": ' + b"9" * 5000 + b"}",
        b'{"event": "x", "time": ' + b"9" * 400 + b"}",
        b'{"a": ' + b"[" * 100_000,
    ],
)
def test_garbage_anywhere_is_passed_over(tmp_path: Path, garbage: bytes) -> None:
    journal = opened(tmp_path)
    journal.append("run_started")
    good = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(garbage + b"\n" + good + garbage + b"\n" + good + garbage)
    assert [record.event for record in read(tmp_path / JOURNAL)] == ["run_started"] * 2


def test_other_releases_are_carried_along(tmp_path: Path) -> None:
    line = {"v": 9, "time": 5, "event": "tea_made", "attempt": "first", "host": None, "sugar": 2}
    (tmp_path / JOURNAL).write_text(json.dumps(line) + "\n")
    assert read(tmp_path / JOURNAL) == [Record(5.0, "tea_made", None, None, {"sugar": 2})]


def test_following_reads_each_whole_line_once(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    journal = opened(tmp_path)
    journal.append("run_started")
    first, offset = read_from(path, 0)
    with path.open("ab") as file:
        file.write(b'{"v":1,"time":1')
    assert read_from(path, offset) == ([], offset)
    journal.append("run_stopped")
    second, offset = read_from(path, offset)
    assert [record.event for record in first + second] == ["run_started", "run_stopped"]
    assert offset == path.stat().st_size


PROGRAM = """
import sys
from pathlib import Path
from supervisor.journal import Journal
journal = Journal.open(Path(sys.argv[1]), lambda: 1.0, "h")
for n in range(10**9):
    journal.append("incident", attempt=n, detail="x" * (n % 9000), durable=False)
    if n == 200:
        print("ready", flush=True)
"""


def test_a_killed_writer_leaves_every_line_but_the_last_whole(tmp_path: Path) -> None:
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    lines = (tmp_path / JOURNAL).read_bytes().split(b"\n")
    torn = sum(1 for line in lines if line and not line.endswith(b"}"))
    assert torn <= 3
    starts = [record.attempt for record in read(tmp_path / JOURNAL)].count(0)
    assert starts == 3


def test_a_disk_that_takes_half_a_line_is_an_error_and_the_next_line_is_whole(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes the kernel take a part of a write, as a full disk does."""
    code = """
import resource, signal, sys
from pathlib import Path
from supervisor.errors import DiskError
from supervisor.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal.open(Path(sys.argv[1]), lambda: 1.0, "h")
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
for _ in range(2):
    try:
        journal.append("incident", detail="x" * 200)
    except DiskError as error:
        print(type(error).__name__)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
journal.append("run_stopped")
"""
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    assert said.stdout.split() == ["DiskError", "DiskError"]
    assert [record.event for record in read(tmp_path / JOURNAL)] == ["run_stopped"]
    assert os.path.getsize(tmp_path / JOURNAL) > 100


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["v", "time", "event", "attempt", "x"]), inner)
    ),
    max_leaves=8,
)


@given(
    st.lists(st.binary(max_size=30) | JSON.map(lambda value: json.dumps(value).encode()), max_size=6).map(b"\n".join)
)
@settings(deadline=None)
def test_no_content_makes_reading_fail(data: bytes) -> None:
    for record in records_of(data):
        assert isinstance(record.event, str)
        assert record.number("x") is None or isinstance(record.number("x"), float)
        assert record.count("x") is None or isinstance(record.count("x"), int)
