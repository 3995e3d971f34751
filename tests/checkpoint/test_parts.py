"""Parts are streams: plainly named, of known size, never whole in memory."""

import os
from pathlib import Path

import pytest
from checkpoint_samples import python

from supervisor.checkpoint.parts import Part, joined, part_from_bytes, part_from_range


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "/a", "a\\b", "a\0", "a\n", "\ud800"])
def test_a_part_needs_a_plain_name(name: str) -> None:
    with pytest.raises(ValueError, match="no plain file name"):
        part_from_bytes(name, b"")


def test_a_part_has_no_negative_size() -> None:
    with pytest.raises(ValueError, match="-1 bytes"):
        Part("a", -1, lambda: iter(()))


@pytest.mark.parametrize("piece_bytes", [1, 3, 4, 100])
def test_a_range_is_what_lies_there_each_time(tmp_path: Path, piece_bytes: int) -> None:
    file = tmp_path / "slot"
    file.write_bytes(b"0123456789")
    by_path = part_from_range("a", file, 3, 4, piece_bytes)
    fd = os.open(file, os.O_RDONLY)
    by_fd = part_from_range("a", fd, 3, 4, piece_bytes)
    for part in (by_path, by_fd):
        for _ in range(2):
            pieces = [bytes(piece) for piece in part.pieces()]
            assert b"".join(pieces) == b"3456"
            assert max(map(len, pieces)) <= piece_bytes
    os.close(fd)


def test_a_range_beyond_the_end_is_short(tmp_path: Path) -> None:
    file = tmp_path / "slot"
    file.write_bytes(b"0123456789")
    assert b"".join(part_from_range("a", file, 8, 4).pieces()) == b"89"
    assert b"".join(part_from_range("a", file, 80, 4).pieces()) == b""


def test_an_empty_range_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "slot"
    file.write_bytes(b"0123456789")
    assert list(part_from_range("a", file, 8, 0).pieces()) == []


def test_joined_parts_lie_end_to_end() -> None:
    part = joined("a", [part_from_bytes("x", b"12"), part_from_bytes("y", b""), part_from_bytes("z", memoryview(b"3"))])
    assert part.size == 3
    assert b"".join(part.pieces()) == b"123"


MEMORY = """
import json, sys
from pathlib import Path
from checkpoint_samples import commit_step, parts
from supervisor.checkpoint.parts import part_from_bytes, part_from_range, joined
from supervisor.checkpoint.verify import Intact, verify

root = Path(sys.argv[1])
size = 200_000_000
header = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
slot = root / "slot"
with slot.open("wb") as file:
    file.truncate(size)
optimizer = joined("optimizer.safetensors", [
    part_from_bytes("length", len(header).to_bytes(8, "little")),
    part_from_bytes("header", header),
    part_from_range("data", slot, 0, size),
])
history = b'{"log_history": [' + b", ".join([b'{"loss": 1.5, "step": 100000, "epoch": 0.1}'] * 100_000) + b"]}"

def kib(what):
    return int(Path("/proc/self/status").read_text().split(what + ":")[1].split()[0])

others = [part for part in parts(20) if part.name not in {"optimizer.safetensors", "trainer_state.json"}]
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = kib("VmRSS")
done = commit_step(root, 20, made_of=[*others, optimizer, part_from_bytes("trainer_state.json", history)])
assert isinstance(verify(done.path, None), Intact)
print(kib("VmHWM") - before, len(history) // 1024)
foreign = {"torch", "numpy", "safetensors", "pydantic", "psutil"} & set(sys.modules)
assert not foreign, foreign
"""


def test_a_commit_and_its_verification_stay_small_and_import_nothing_large(tmp_path: Path) -> None:
    child = python(MEMORY, tmp_path)
    assert child.returncode == 0, child.stderr
    grown_kib, history_kib = map(int, child.stdout.split())
    assert 4 * 1024 < grown_kib < 10 * 1024 + 4 * history_kib, "a piece, and the history as bytes and as text"
