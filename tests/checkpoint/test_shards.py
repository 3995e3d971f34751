"""Pieces of tensors, put together into the file that would have been written without shards."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.checkpoint.flaws import FlawError
from supervisor.checkpoint.parts import Part, Piece, part_from_bytes
from supervisor.checkpoint.shards import WHOLE, put_together, shard_file
from supervisor.checkpoint.tensors import LENGTH_BYTES, check_header

WIDTH = {"F32": 4, "BF16": 2, "U8": 1}
FILE = "optimizer.safetensors"


def written(tensors: dict[str, tuple[str, list[int], bytes]], metadata: dict[str, str]) -> bytes:
    """A safetensors file, wider types first."""
    table: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    at, data = 0, b""
    for name, (dtype, shape, raw) in sorted(tensors.items(), key=lambda item: (-WIDTH[item[1][0]], item[0])):
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(raw)]}
        at, data = at + len(raw), data + raw
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def in_pieces_of(size: int, name: str, data: bytes) -> Part:
    """A part that comes in small pieces, of one buffer that is written over each time."""

    def pieces() -> Iterator[Piece]:
        buffer = memoryview(bytearray(size))
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            buffer[: len(piece)] = piece
            yield buffer[: len(piece)]

    return Part(name, len(data), pieces)


def cut(rows: int, ranks: int) -> list[int]:
    """Rows of each rank, as torch.chunk has it: the last ones get fewer, or none."""
    most = -(-rows // ranks)
    return [max(0, min(most, rows - rank * most)) for rank in range(ranks)]


TENSORS = st.dictionaries(
    st.text("abc.", min_size=1, max_size=6),
    st.tuples(st.sampled_from(sorted(WIDTH)), st.integers(1, 7), st.integers(1, 3), st.booleans()),
    min_size=1,
)


@given(tensors=TENSORS, ranks=st.integers(1, 5), buffer=st.integers(1, 64), seed=st.randoms(use_true_random=False))
def test_pieces_put_together_are_the_file_that_was_cut(tensors, ranks, buffer, seed) -> None:  # type: ignore[no-untyped-def]
    alike, of, whole = {}, [{} for _ in range(ranks)], {}
    everything = {}
    for name, (dtype, rows, columns, sharded) in tensors.items():
        row = columns * WIDTH[dtype]
        raw = seed.randbytes(rows * row)
        everything[name] = dtype, [rows, columns], raw
        if not sharded:
            alike[name] = everything[name]
            continue
        whole[name] = [len(raw), [rows, columns]]
        at = 0
        for rank, own in enumerate(cut(rows, ranks)):
            of[rank][name] = dtype, [own, columns], raw[at * row : (at + own) * row]
            at += own
    metadata = {WHOLE: json.dumps(whole)}
    files = {shard_file(rank, FILE): written(one, metadata) for rank, one in enumerate(of) if one}
    files |= {FILE: written(alike, {})} if alike else {}
    files["rank-0.safetensors"] = b"own"

    parts = {name: in_pieces_of(buffer, name, data) for name, data in files.items()}
    made = {part.name: b"".join(map(bytes, part.pieces())) for part in put_together(parts, ranks)}

    assert made == {FILE: written(everything, {}), "rank-0.safetensors": b"own"}
    length = int.from_bytes(made[FILE][:LENGTH_BYTES], "little")
    check_header(made[FILE][LENGTH_BYTES : LENGTH_BYTES + length], len(made[FILE]) - LENGTH_BYTES - length)


def one_piece(rank: int, rows: int, whole: list[object], name: str = "a") -> Part:
    data = written({name: ("F32", [rows, 2], bytes(rows * 8))}, {WHOLE: json.dumps({name: whole})})
    return part_from_bytes(shard_file(rank, FILE), data)


def test_a_type_that_safetensors_does_not_know_keeps_its_whole_shape() -> None:
    told = {WHOLE: json.dumps({"a": [6, [3, 2]]})}
    pieces = [
        written({"a": ("U8", [4], b"abcd")}, {**told, "a": '["float8_x", [2, 2]]'}),
        written({"a": ("U8", [2], b"ef")}, {**told, "a": '["float8_x", [1, 2]]'}),
    ]
    parts = {shard_file(rank, FILE): part_from_bytes("any", data) for rank, data in enumerate(pieces)}
    (made,) = put_together(parts, 2)
    expected = written({"a": ("U8", [6], b"abcdef")}, {"a": '["float8_x", [3, 2]]'})
    assert b"".join(map(bytes, made.pieces())) == expected


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([one_piece(0, 2, [24, [3, 2]])], "nobody has what rank 1 held of it"),
        ([one_piece(0, 2, [24, [3, 2]]), one_piece(1, 2, [24, [3, 2]])], "the pieces of a have 32 bytes, it has 24"),
        ([one_piece(0, 2, [24, [3, 2]]), one_piece(1, 1, [24, [3, 2]], "b")], "pieces of different tensors"),
        ([one_piece(0, 2, [24, [3, 2]]), one_piece(1, 1, [32, [4, 2]])], "pieces of different tensors"),
    ],
)
def test_pieces_that_do_not_belong_together_are_refused(parts: list[Part], reason: str) -> None:
    with pytest.raises(FlawError, match=reason):
        put_together({part.name: part for part in parts}, 2)
