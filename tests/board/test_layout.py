"""The images are safetensors' own format: cross-checked with its library; headers survive nothing but being whole."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load

from supervisor.board.layout import (
    SLOT_HEADER_BYTES,
    Image,
    Region,
    SlotHeader,
    Tensor,
    image,
    page_aligned,
    region,
)
from supervisor.board.pages import PAGE
from supervisor.board.slots import SlotWriter

SIZES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "I16": 2, "U8": 1, "BOOL": 1}

tensors = st.lists(
    st.tuples(
        st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__"),
        st.sampled_from(sorted(SIZES, key=lambda kind: -SIZES[kind])),
        st.lists(st.integers(0, 4), max_size=3),
    ),
    max_size=6,
    unique_by=lambda entry: entry[0],
).map(lambda entries: sorted(entries, key=lambda entry: -SIZES[entry[1]]))


def laid_out(entries: list[tuple[str, str, list[int]]], metadata: dict[str, str] | None = None) -> Image:
    listed = []
    for name, kind, shape in entries:
        count = 1
        for dimension in shape:
            count *= dimension
        listed.append(Tensor(name, kind, tuple(shape), count * SIZES[kind]))
    return image(listed, metadata)


@settings(deadline=None)
@given(entries=tensors, metadata=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2))
def test_safetensors_reads_every_image_that_is_laid_out(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, str, list[int]]], metadata: dict[str, str]
) -> None:
    made = laid_out(entries, metadata)
    raw = bytearray(made.header + bytes(made.size - len(made.header)))
    for number, (name, kind, shape) in enumerate(entries):
        if 0 not in shape:
            raw[made.offsets[name]] = number % 2  # of every tensor the first byte
        assert made.offsets[name] % SIZES[kind] == 0  # aligned, if wider types come first
    path = tmp_path_factory.mktemp("image") / "x.safetensors"
    path.write_bytes(raw)
    with safe_open(path, framework="numpy") as file:
        assert set(file.keys()) == {name for name, _, _ in entries}
        assert (file.metadata() or {}) == metadata
        for number, (name, kind, shape) in enumerate(entries):
            found = file.get_tensor(name)
            assert list(found.shape) == shape
            assert found.dtype.itemsize == SIZES[kind]
            assert found.tobytes()[:1] in (b"", bytes([number % 2]))


def test_the_bytes_of_a_slot_are_a_safetensors_file(tmp_path: Path) -> None:
    images = {
        "adapter_model.safetensors": image([Tensor("a", "F32", (2, 2), 16)], {"format": "pt"}),
        "rank-0.safetensors": image([Tensor("b", "I64", (3,), 24), Tensor("c", "BOOL", (), 1)]),
    }
    geometry = region(images, slots=3, json_bytes=5000)
    path = tmp_path / "rank-0.1"
    path.write_bytes(bytes(geometry.total_bytes))
    writer = SlotWriter(path, geometry, images, since=0, populate=False)
    at = geometry.file_at(2, "rank-0.safetensors")
    writer.memory[at + images["rank-0.safetensors"].offsets["b"]] = 7
    raw = path.read_bytes()
    for slot in range(3):
        first = geometry.file_at(slot, "adapter_model.safetensors")
        size = dict(geometry.files)["adapter_model.safetensors"]
        assert load(raw[first : first + size])["a"].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    found = load(raw[at : at + images["rank-0.safetensors"].size])
    assert found["b"].tolist() == [7, 0, 0]
    assert found["c"].tolist() is False


regions = st.builds(
    Region,
    st.integers(3, 4),
    st.integers(0, 1 << 40),
    st.lists(st.tuples(st.text(max_size=20), st.integers(0, 1 << 50)), max_size=5).map(tuple),
    st.integers(0, 2**32 - 1),
)


@given(regions)
def test_a_geometry_is_read_back_from_its_page(one: Region) -> None:
    page = one.encode()
    assert len(page) <= PAGE
    assert Region.decode(page + bytes(PAGE - len(page))) == one


@given(regions, st.data())
def test_a_torn_geometry_is_none(one: Region, data: st.DataObject) -> None:
    page = bytearray(one.encode())
    at = data.draw(st.integers(0, len(page) - 1))
    page[at] ^= data.draw(st.integers(1, 255))
    assert Region.decode(bytes(page)) is None
    assert Region.decode(one.encode()[:at]) is None
    assert Region.decode(bytes(PAGE)) is None


@given(
    st.dictionaries(st.text(max_size=5), st.integers(0, 20_000), max_size=5), st.integers(0, 9999), st.integers(3, 4)
)
def test_no_two_parts_of_a_region_overlap(sizes: dict[str, int], json_bytes: int, slots: int) -> None:
    images = {name: Image(b"", {}, size) for name, size in sizes.items()}
    made = region(images, slots=slots, json_bytes=json_bytes)
    spans = [(0, PAGE)]
    for slot in range(slots):
        spans += [(made.slot_at(slot), SLOT_HEADER_BYTES), (made.json_at(slot), json_bytes)]
        spans += [(made.file_at(slot, name), size) for name, size in sizes.items()]
    for (start, size), (following, _) in pairwise(spans):
        assert start + size <= following
        assert following % PAGE == 0
    assert spans[-1][0] + spans[-1][1] <= made.total_bytes == PAGE + slots * made.slot_bytes


def test_a_file_that_is_not_there_has_no_place() -> None:
    with pytest.raises(KeyError):
        region({}, slots=3, json_bytes=1).file_at(0, "x")


def test_regions_with_other_tensors_have_another_digest() -> None:
    def made(**names: tuple[int, ...]) -> int:
        listed = [Tensor(name, "F32", shape, 4) for name, shape in names.items()]
        return region({"f": image(listed)}, slots=3, json_bytes=1).digest

    digests = [made(a=(1,)), made(b=(1,)), made(a=()), made(a=(1,), b=(1,))]
    assert len(set(digests)) == 4
    assert made(a=(1,)) == digests[0]
    assert page_aligned(0) == 0


headers = st.builds(
    SlotHeader,
    st.integers(0, 2**64 - 1),
    *[st.integers(-(2**63), 2**63 - 1)] * 5,
    st.integers(0, 2**32 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
)


@given(headers)
def test_a_slot_header_is_read_back_unless_the_slot_is_busy(one: SlotHeader) -> None:
    assert len(one.encode()) == SLOT_HEADER_BYTES
    assert SlotHeader.decode(one.encode()) == (one if one.sequence else None)
    assert SlotHeader.decode(replace(one, sequence=0).encode()) is None


@given(headers, headers, st.integers(0, SLOT_HEADER_BYTES - 1))
def test_a_slot_header_that_was_half_overwritten_is_none(old: SlotHeader, new: SlotHeader, at: int) -> None:
    torn = new.encode()[:at] + old.encode()[at:]
    if torn not in (old.encode(), new.encode()):
        assert SlotHeader.decode(torn) is None
    assert SlotHeader.decode(new.encode()[:at]) is None
    assert SlotHeader.decode(bytes(SLOT_HEADER_BYTES)) is None
