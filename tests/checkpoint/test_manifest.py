"""A manifest is what it was when it was sealed, or it says what is wrong with it."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from supervisor.checkpoint.manifest import (
    FORMAT,
    MAX_BYTES,
    Entry,
    Health,
    Manifest,
    ManifestError,
    NewerFormatError,
    encode,
    parse,
    seal,
)
from supervisor.checkpoint.names import MANIFEST, is_plain

DIGEST = "0123456789abcdef" * 2
SAMPLE = Manifest(run_id="run-a", lineage=1, step=20, world_size=2, files={"state.json": Entry(2, DIGEST)})

counts = st.integers(0, 2**63 - 1)
names = st.text(min_size=1, max_size=40).filter(lambda name: is_plain(name) and name != MANIFEST)
digests = st.text("0123456789abcdef", min_size=32, max_size=32)
finite = st.none() | st.floats(allow_nan=False, allow_infinity=False)
manifests = st.builds(
    Manifest,
    run_id=st.text(min_size=1).filter(str.isprintable),
    lineage=counts,
    step=counts,
    world_size=st.integers(1, 2**63 - 1),
    files=st.dictionaries(names, st.builds(Entry, counts, digests), max_size=5),
    health=st.builds(Health, finite, finite, st.booleans()),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def document(**changes: Any) -> dict[str, Any]:
    body = json.loads(encode(SAMPLE))
    del body["seal"]
    return {**body, **changes}


def reason(data: bytes) -> str:
    with pytest.raises(ManifestError) as refused:
        parse(data)
    return refused.value.reason


@given(manifests)
def test_what_is_encoded_is_parsed(manifest: Manifest) -> None:
    assert parse(encode(manifest)) == manifest


def test_it_is_json_for_people_and_tools() -> None:
    body = json.loads(encode(SAMPLE))
    assert list(body) == [
        *("seal", "format", "run_id", "lineage", "step", "world_size"),
        *("loss", "grad_norm", "diverged", "files"),
    ]
    assert body["files"] == {"state.json": {"bytes": 2, "xxh3_128": DIGEST}}


def test_keys_of_the_future_are_passed_over() -> None:
    files = {"state.json": {"bytes": 2, "xxh3_128": DIGEST, "note": 1}}
    assert parse(seal(document(mood="good", files=files))) == SAMPLE


def test_a_manifest_of_before_there_was_any_health_is_of_a_good_state() -> None:
    body = {key: value for key, value in document().items() if key not in ("loss", "grad_norm", "diverged")}
    assert parse(seal(body)) == SAMPLE


def test_a_format_of_the_future_is_not_ours_to_judge() -> None:
    with pytest.raises(NewerFormatError, match="format 2, written by a newer version"):
        parse(seal({"format": FORMAT + 1, "files": "whatever"}))


def test_no_single_bit_can_change_unseen() -> None:
    data = encode(SAMPLE)
    for at in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            with pytest.raises(ManifestError):
                parse(bytes(flipped))


@given(st.data())
def test_no_truncation_or_splice_passes(data: st.DataObject) -> None:
    whole = encode(SAMPLE)
    begin = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(begin, len(whole)))
    spliced = whole[:begin] + data.draw(st.binary(max_size=20)) + whole[end:]
    if spliced != whole:
        reason(spliced)


@given(st.binary())
@example(b"[" * 100_000)
@example(b'{"seal": "' + b"9" * 5000)
@example(b'{"a":' * 5000)
@example(b"\xff\xfe{\x00}\x00")
@example(b'{"format": ' + b"9" * 10_000 + b"}")
@example(b"null")
def test_any_bytes_are_refused_with_a_reason(data: bytes) -> None:
    assert reason(data)


@given(st.sampled_from(list(document())), values)
def test_a_wrong_value_is_refused_or_understood(key: str, value: Any) -> None:
    """What is sealed may still be wrong: a bug of a writer, or a joker."""
    try:
        parsed = parse(seal(document(**{key: value})))
    except ManifestError:
        return
    assert parse(encode(parsed)) == parsed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"step": -1}, "step: not a whole number of at least 0"),
        ({"step": True}, "step: not a whole number of at least 0"),
        ({"step": 2.0}, "step: not a whole number of at least 0"),
        ({"step": 2**63}, "step: not a whole number of at least 0"),
        ({"world_size": 0}, "world_size: not a whole number of at least 1"),
        ({"format": 0}, "format: not a whole number of at least 1"),
        ({"format": None}, "format: not a whole number of at least 1"),
        ({"run_id": ""}, "run_id: not a name"),
        ({"diverged": 1}, "diverged: neither true nor false"),
        ({"loss": "nan"}, "loss: not a finite number"),
        ({"loss": float("nan")}, "loss: not a finite number"),
        ({"grad_norm": float("inf")}, "grad_norm: not a finite number"),
        ({"grad_norm": 10**400}, "grad_norm: not a finite number"),
        ({"files": []}, "files: not an object"),
        ({"files": {"a": []}}, "files: a: not an object"),
        ({"files": {"a": {"bytes": -1, "xxh3_128": DIGEST}}}, "files: a: bytes: not a whole number of at least 0"),
        ({"files": {"a": {"bytes": 1, "xxh3_128": DIGEST + "\n"}}}, "files: a: no xxh3-128"),
        ({"files": {"a": {"bytes": 1, "xxh3_128": DIGEST.upper()}}}, "files: a: no xxh3-128"),
    ],
)
def test_wrong_values_are_named(changes: dict[str, Any], said: str) -> None:
    assert reason(seal(document(**changes))) == said


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a/b", "..", ".", "", ".hidden", "a\\b", "a\0b", "a\nb", "\ud800", "x" * 201, MANIFEST],
)
def test_names_that_leave_the_directory_are_refused(name: str) -> None:
    files = {name: {"bytes": 1, "xxh3_128": DIGEST}}
    assert "no file name of ours" in reason(seal(document(files=files)))


def test_a_key_that_comes_twice_is_refused() -> None:
    body = encode(SAMPLE).replace(b'"step": 20', b'"step": 20, "step": 30')
    assert reason(body) == "a key is there twice"


def test_what_has_no_seal_is_refused() -> None:
    assert reason(json.dumps(document()).encode()) == "no seal"


def test_what_is_too_large_is_not_even_read() -> None:
    assert reason(b" " * (MAX_BYTES + 1)) == f"larger than {MAX_BYTES} bytes"
