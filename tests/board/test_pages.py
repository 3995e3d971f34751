"""Half pages with one writer each: what is read is whole, whoever is killed or in the middle of writing."""

import math
import os
import struct
import subprocess
import sys
from dataclasses import astuple, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.board.pages import (
    BELL,
    CONTROL,
    PAGE,
    Beat,
    Control,
    Orders,
    Phase,
    Reply,
    control_size,
    ring,
)

TEXT_LIMIT = 1998  # half a page, less the version and the numbers

HAMMER = """
import sys
from pathlib import Path
from supervisor.board.pages import Beat, Control
control, count = Control(Path(sys.argv[1])), int(sys.argv[2])
for n in range(1, count + 1):
    control.publish(0, Beat(pid=n, start_ticks=n, phase=n % 9, step=n, resumed=n, max_steps=n, time_s=float(n),
                            loss=float(n), step_s=float(n), snapshot_s=float(n), wish=n, wish_bytes=n, trained=n,
                            grad_norm=float(n), own_s=float(n), diverged_at=n, micro_batch=n, accumulation=n,
                            loader_workers=n, checkpointing=n))
"""


@pytest.fixture
def control(tmp_path: Path) -> Control:
    return Control.create(tmp_path / CONTROL, ranks=2)


int64 = st.integers(-(2**63), 2**63 - 1)
float64 = st.floats(allow_nan=False)


@settings(deadline=None, max_examples=30)
@given(
    beat=st.builds(
        Beat,
        *[int64] * 2,
        st.sampled_from(Phase),
        *[int64] * 3,
        *[float64] * 4,
        *[int64] * 3,
        *[float64] * 2,
        *[int64] * 5,
    ),
    orders=st.builds(Orders, *[int64] * 7),
    numbers=st.tuples(*[int64] * 4),
    text=st.text(max_size=400),
)
def test_what_is_published_is_read_by_the_other_side(
    tmp_path_factory: pytest.TempPathFactory, beat: Beat, orders: Orders, numbers: tuple[int, ...], text: str
) -> None:
    path = tmp_path_factory.mktemp("board") / CONTROL
    supervisor = Control.create(path, ranks=2)
    worker = Control(path)
    reply = Reply(*numbers, text)
    worker.publish(1, beat)
    supervisor.give_orders(orders)
    supervisor.reply(1, reply)
    assert (supervisor.beat(1), worker.orders(), worker.replied(1)) == (beat, orders, reply)
    assert (worker.replied(0), supervisor.beat(0).pid) == (Reply(granted=0, held_step=0), 0)


def test_a_new_file_tells_nothing_and_is_private(control: Control, tmp_path: Path) -> None:
    assert control.valid()
    assert control.ranks == 2
    assert (tmp_path / CONTROL).stat().st_size == control_size(2) == 3 * PAGE
    assert (tmp_path / CONTROL).stat().st_mode & 0o777 == 0o600
    assert control.orders() == Orders(period=0)


def test_unknown_figures_stay_unknown(control: Control) -> None:
    control.publish(0, Beat())
    told = control.beat(0)
    assert all(math.isnan(value) for value in (told.loss, told.step_s, told.snapshot_s))
    assert (told.step, told.resumed, told.max_steps) == (-1, -1, -1)


def test_a_forgotten_beat_is_that_of_a_rank_that_has_not_started(control: Control) -> None:
    control.publish(0, Beat(pid=7, step=3))
    control.forget(0)
    assert (control.beat(0).pid, control.beat(0).step, control.beat(0).phase) == (0, -1, Phase.ABSENT)


def test_a_file_is_made_exclusively_and_never_through_a_link(control: Control, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        Control.create(tmp_path / CONTROL, ranks=1)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        Control.create(tmp_path / "link", ranks=1)
    (tmp_path / "other").symlink_to(tmp_path / CONTROL)
    with pytest.raises(OSError, match="symbolic link"):
        Control(tmp_path / "other")


def test_something_else_of_the_right_size_is_not_valid(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes(control_size(1)))
    assert not Control(tmp_path / "zeros").valid()


@pytest.mark.parametrize("text", ["x" * TEXT_LIMIT, "é" * (TEXT_LIMIT // 2), ""])
def test_a_reply_holds_text_up_to_its_limit(control: Control, text: str) -> None:
    control.reply(0, Reply(granted=1, text=text))
    assert control.replied(0).text == text


def test_a_longer_text_is_refused_and_leaves_the_reply_before_it(control: Control) -> None:
    control.reply(0, Reply(granted=1, text="here"))
    with pytest.raises(ValueError, match="room for 1998"):
        control.reply(0, Reply(granted=2, text="é" * TEXT_LIMIT))
    assert control.replied(0) == Reply(granted=1, text="here")


def test_every_half_page_has_its_own_writer(control: Control, tmp_path: Path) -> None:
    """Each record is written with all bytes set; the others stay as they were."""
    full = replace(Beat(), **dict.fromkeys(("pid", "start_ticks", "phase", "wish", "wish_bytes", "trained"), -1))
    writes = {
        0: lambda: control.give_orders(Orders(*[-1] * 8)),
        2: lambda: control.publish(0, full),
        3: lambda: control.reply(0, Reply(-1, -1, -1, -1, "\x7f" * TEXT_LIMIT)),
        4: lambda: control.publish(1, full),
        5: lambda: control.reply(1, Reply(-1, -1, -1, -1, "\x7f" * TEXT_LIMIT)),
    }
    for half, write in writes.items():
        before = (tmp_path / CONTROL).read_bytes()
        write()
        after = (tmp_path / CONTROL).read_bytes()
        changed = {at // (PAGE // 2) for at in range(len(after)) if before[at] != after[at]}
        assert changed == {half}


def test_a_writer_killed_in_the_middle_leaves_what_was_read_last(control: Control, tmp_path: Path) -> None:
    control.publish(0, Beat(pid=1, step=5))
    assert control.beat(0).step == 5
    raw = bytearray((tmp_path / CONTROL).read_bytes())
    (version,) = struct.unpack_from("<Q", raw, PAGE)
    struct.pack_into("<Q", raw, PAGE, version | 1)
    raw[PAGE + 8 : PAGE + 60] = b"\xff" * 52
    (tmp_path / CONTROL).write_bytes(raw)
    assert control.beat(0) == Beat(pid=1, step=5) or control.beat(0).step == 5
    assert Control(tmp_path / CONTROL).beat(0).pid == 0  # a reader that had read nothing knows nothing
    control.publish(0, Beat(pid=2, step=6))
    assert Control(tmp_path / CONTROL).beat(0).step == 6


def test_a_reader_never_sees_half_of_a_beat_of_another_process(control: Control, tmp_path: Path) -> None:
    count = 50_000
    control.publish(0, Beat(*[0] * 20))
    writer = subprocess.Popen([sys.executable, "-c", HAMMER, str(tmp_path / CONTROL), str(count)])
    seen: list[int] = []

    def look() -> bool:
        told = astuple(control.beat(0))
        assert {float(value) for at, value in enumerate(told) if at != 2} == {float(told[0])}
        assert told[2] == told[0] % 9
        seen.append(int(told[0]))
        return told[0] == count

    while not look():
        assert writer.poll() in (None, 0)
    assert writer.wait(timeout=180) == 0
    assert seen == sorted(seen)
    assert len(set(seen)) > 10  # it really looked while the other wrote


def test_the_bell_wakes_whoever_listens_and_is_no_error_when_nobody_does(tmp_path: Path) -> None:
    ring(tmp_path)  # no board any more
    os.mkfifo(tmp_path / BELL)
    ring(tmp_path)  # nobody listens
    listening = os.open(tmp_path / BELL, os.O_RDWR | os.O_NONBLOCK)
    for _ in range(70_000):  # more than a pipe holds
        ring(tmp_path)
    assert os.read(listening, 10) == b"!" * 10
    os.close(listening)
