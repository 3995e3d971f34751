"""What we accept, the safetensors library accepts; what it writes, we accept."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from supervisor.checkpoint.flaws import FlawError
from supervisor.checkpoint.tensors import DTYPE_BITS, LENGTH_BYTES, check_header, header_bytes

safetensors = pytest.importorskip("safetensors")
OLD_DTYPES = ["BOOL", "U8", "I8", "I16", "F16", "BF16", "I32", "F32", "F64", "I64", "F8_E4M3", "F8_E5M2"]


def framed(header: bytes, data_bytes: int) -> bytes:
    return len(header).to_bytes(LENGTH_BYTES, "little") + header + bytes(data_bytes)


def we_accept(file: bytes) -> bool:
    try:
        length = header_bytes(file[:LENGTH_BYTES], len(file))
        check_header(file[LENGTH_BYTES : LENGTH_BYTES + length], len(file) - LENGTH_BYTES - length)
    except FlawError:
        return False
    return True


def library_accepts(file: bytes) -> bool:
    try:
        safetensors.deserialize(file)
    except safetensors.SafetensorError:
        return False
    return True


@st.composite
def valid(draw: st.DrawFn) -> bytes:
    header: dict[str, Any] = {}
    offset = 0
    for name in draw(st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True, max_size=5)):
        if name == "__metadata__":
            continue
        dtype = draw(st.sampled_from(OLD_DTYPES))
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        size = DTYPE_BITS[dtype] // 8
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    if draw(st.booleans()):
        header["__metadata__"] = {"format": "pt"}
    text = json.dumps(header, ensure_ascii=draw(st.booleans())).encode()
    return framed(text + b" " * draw(st.integers(0, 8)), offset)


@given(valid())
def test_valid_files_are_accepted_by_both(file: bytes) -> None:
    assert library_accepts(file)
    assert we_accept(file)


@settings(max_examples=500)
@given(valid(), st.data())
def test_of_mutated_files_none_is_accepted_that_the_library_rejects(file: bytes, data: st.DataObject) -> None:
    mutated = bytearray(file)
    for _ in range(data.draw(st.integers(1, 3))):
        if not mutated:
            break
        at = data.draw(st.integers(0, len(mutated) - 1))
        match data.draw(st.sampled_from(["bit", "cut", "digit", "drop", "grow"])):
            case "bit":
                mutated[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del mutated[at:]
            case "digit":
                mutated[at] = data.draw(st.sampled_from(b'0123456789-,:"[]{} .eE'))
            case "drop":
                del mutated[at]
            case "grow":
                mutated += b"\0"
    if we_accept(bytes(mutated)):
        assert library_accepts(bytes(mutated))


tokens = st.sampled_from(
    [
        *('"a"', '"b"', '"dtype"', '"shape"', '"data_offsets"', '"F32"', '"U8"', '"__metadata__"', '"\\ud800"', "null"),
        *("{", "}", "[", "]", ",", ":", "0", "-0", "4", "1.0", "4e0", "true", " ", "18446744073709551616", "NaN"),
    ]
)


@given(st.lists(tokens, max_size=30), st.integers(0, 8))
def test_soups_of_tokens_are_not_accepted_where_the_library_rejects(soup: list[str], data_bytes: int) -> None:
    file = framed("".join(soup).encode(), data_bytes)
    if we_accept(file):
        assert library_accepts(file)


@given(st.binary())
@example(b"")
@example(framed(b"[" * 100_000, 0))
@example(framed(b'{"a":' * 100_000, 0))
@example(framed(b'{"\\ud800":' * 900 + b"1" + b"}" * 900, 0))
@example(b"\xff" * 8)
def test_any_bytes_are_judged_without_another_error(file: bytes) -> None:
    if we_accept(file):
        assert library_accepts(file)


def tensor(**changes: Any) -> bytes:
    described = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}
    return framed(json.dumps({"a": described}).encode(), 8)


@pytest.mark.parametrize(
    "file",
    [
        tensor(dtype="F33"),
        tensor(dtype=["F32"]),
        tensor(shape=[3]),
        tensor(shape=[2.0]),
        tensor(shape=[True, 2]),
        tensor(shape=[2**63, 2**63, 0], data_offsets=[0, 0]),
        tensor(shape=[-2]),
        tensor(data_offsets=[0, 4]),
        tensor(data_offsets=[8, 0]),
        tensor(data_offsets=[0, 8, 8]),
        tensor(data_offsets=[4, 12]),
        tensor(extra=1),
        tensor() + b"\0",
        tensor()[:-1],
        framed(b'{"__metadata__": {"a": 1}}', 0),
        framed(b'{"a": {"dtype": "U8", "shape": [-0], "data_offsets": [0, 0]}}', 0),
        framed(b'{"a\\ud800": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}', 0),
        (2**63).to_bytes(8, "little") + b"{}",
    ],
)
def test_these_are_refused(file: bytes) -> None:
    assert not we_accept(file)


def test_overlaps_and_gaps_are_refused() -> None:
    def two(begin: int) -> bytes:
        a = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
        b = {"dtype": "U8", "shape": [4], "data_offsets": [begin, begin + 4]}
        return framed(json.dumps({"a": a, "b": b}).encode(), begin + 4)

    assert we_accept(two(4))
    assert not we_accept(two(3))
    assert not we_accept(two(5))


def test_a_character_written_as_two_escapes_is_text() -> None:
    file = framed(b'{"\\ud83d\\ude00": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}', 0)
    assert library_accepts(file)
    assert we_accept(file)


@pytest.mark.parametrize("dtype", list(DTYPE_BITS))
def test_every_dtype_has_the_size_that_the_library_gives_it(dtype: str) -> None:
    bits = DTYPE_BITS[dtype]
    described = {"dtype": dtype, "shape": [8], "data_offsets": [0, bits]}
    file = framed(json.dumps({"a": described}).encode(), bits)
    assert we_accept(file)
    assert library_accepts(file)
