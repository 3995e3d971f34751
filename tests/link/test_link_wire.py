"""However a stream is split it gives the same frames, and whatever comes in costs bounded memory."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from link_flaws import FLAWED

from supervisor.link.wire import BODY_LIMIT, HEAD_LIMIT, UNPROVED_LIMIT, Decoder, Frame, WireError, encode

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
NAMES = st.text().filter(lambda name: name not in ("kind", "body"))
FRAMES = st.builds(Frame, st.text(), st.dictionaries(NAMES, VALUES, max_size=5), st.binary(max_size=200))


def decoded(stream: bytes, cuts: list[int], limit: int = HEAD_LIMIT) -> list[Frame]:
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    decoder = Decoder(limit)
    return [frame for a, b in pairwise(edges) for frame in decoder.feed(stream[a:b])]


@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(0, 3000), max_size=12))
def test_any_split_of_the_stream_gives_the_same_frames(frames: list[Frame], cuts: list[int]) -> None:
    assert decoded(b"".join(map(encode, frames)), cuts) == frames


@given(st.lists(FRAMES, min_size=1, max_size=3))
def test_a_stream_that_comes_byte_by_byte_does_too(frames: list[Frame]) -> None:
    stream = b"".join(map(encode, frames))
    assert decoded(stream, list(range(len(stream)))) == frames


@given(st.lists(st.binary(max_size=300) | st.sampled_from([b"\n", b'{"kind":"a"}\n', b'{"kind":"a","body":3}\n'])))
def test_no_bytes_do_more_than_end_the_stream(pieces: list[bytes]) -> None:
    decoder = Decoder()
    for piece in pieces:
        try:
            frames = decoder.feed(piece)
        except WireError:
            with pytest.raises(WireError):
                decoder.feed(b'{"kind":"late"}\n')
            return
        assert all(isinstance(frame.kind, str) for frame in frames)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0, 5e-324])
def test_a_loss_that_is_no_number_survives(value: float) -> None:
    (frame,) = Decoder().feed(encode(Frame("state", {"loss": [value, None]})))
    assert repr(frame.fields["loss"]) == repr([value, None])


@pytest.mark.parametrize("stream", FLAWED.values(), ids=FLAWED)
@pytest.mark.parametrize("cuts", [[], [1, 2, 10, 50, 4000, 4096]], ids=["whole", "in pieces"])
def test_what_is_flawed_ends_the_stream(stream: bytes, cuts: list[int]) -> None:
    with pytest.raises(WireError):
        decoded(stream, cuts, UNPROVED_LIMIT)


@pytest.mark.parametrize("limit", [UNPROVED_LIMIT, HEAD_LIMIT])
@pytest.mark.parametrize("cuts", [[], [1, 4096, 1 << 19]])
def test_a_line_and_a_body_may_be_as_long_as_the_limit_and_not_longer(limit: int, cuts: list[int]) -> None:
    def line(size: int) -> bytes:
        start = f'{{"kind":"a","body":{limit},"x":"'.encode()
        return start + b"x" * (size - len(start) - 2) + b'"}\n'

    (frame,) = decoded(line(limit) + b"y" * limit, cuts, limit)
    assert len(frame.body) == limit
    with pytest.raises(WireError):
        decoded(line(limit + 1), cuts, limit)


def test_a_raised_limit_holds_from_the_next_line_on() -> None:
    decoder = Decoder()
    assert decoder.feed(b'{"kind":"a"}\n{"kind":"b","x":"') == [Frame("a")]
    decoder.limit = HEAD_LIMIT
    assert len(decoder.feed(b"x" * 100_000 + b'"}\n')[0].fields["x"]) == 100_000


def test_a_flawed_stream_stays_flawed() -> None:
    decoder = Decoder()
    for _ in range(2):
        with pytest.raises(WireError):
            decoder.feed(b'[]\n{"kind":"a"}\n')


@pytest.mark.parametrize("frame", [Frame("a", {"x": "x" * HEAD_LIMIT}), Frame("a", {}, b"x" * (BODY_LIMIT + 1))])
def test_what_nobody_would_take_is_not_encoded(frame: Frame) -> None:
    with pytest.raises(WireError, match="too large"):
        encode(frame)


@pytest.mark.parametrize("name", ["kind", "body"])
def test_a_field_cannot_take_the_place_of_the_frame(name: str) -> None:
    with pytest.raises(AssertionError):
        encode(Frame("a", {name: 1}))


def test_a_line_is_what_json_reads_anywhere() -> None:
    line, _, body = encode(Frame("stacks", {"node": 3, "text": "ä\n\x00\ud800"}, b"\n\n")).partition(b"\n")
    told: dict[str, Any] = json.loads(line)
    assert told == {"kind": "stacks", "node": 3, "text": "ä\n\x00\ud800", "body": 2}
    assert body == b"\n\n"
