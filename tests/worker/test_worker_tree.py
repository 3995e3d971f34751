"""Whatever a training state holds comes back as it was, or is refused by its place."""

from __future__ import annotations

import json
import math
import struct
from collections import OrderedDict
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from supervisor.worker import tree

keys = st.one_of(st.text(), st.integers(), st.booleans(), st.tuples(st.integers(), st.text()), st.none())
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.sampled_from([torch.bfloat16])
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.lists(inner, max_size=4).map(tuple), st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=12,
)


def through_json(value: Any) -> Any:
    return tree.decode(json.loads(json.dumps(tree.encode(value), allow_nan=False)))


def same(one: Any, other: Any) -> bool:
    """Equal in value and type, floats bit for bit but for the payload of a NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        pairs = zip(one.items(), other.items(), strict=True)
        return len(one) == len(other) and all(same(k, m) and same(v, w) for (k, v), (m, w) in pairs)
    return bool(one == other)


@given(trees)
def test_any_nesting_comes_back_with_its_types_and_bits(value: Any) -> None:
    assert same(through_json(value), value)


@pytest.mark.parametrize(
    "value", [-0.0, math.inf, -math.inf, math.nan, 5e-324, 2**80, True, {"~": 1}, {1: "a", "1": 2}]
)
def test_what_json_cannot_say_is_said(value: Any) -> None:
    assert same(through_json(value), value)


@settings(deadline=None)
@given(
    arrays.arrays(
        st.one_of(
            arrays.boolean_dtypes(),
            arrays.integer_dtypes(endianness="?"),
            arrays.floating_dtypes(endianness="?"),
            arrays.complex_number_dtypes(),
            arrays.byte_string_dtypes(max_len=5),
            arrays.unicode_string_dtypes(max_len=5),
            arrays.datetime64_dtypes(),
        ),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    )
)
def test_arrays_come_back_bit_for_bit_and_can_be_written(array: Any) -> None:
    array = np.asarray(array)
    back = through_json(array)
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert back.flags.writeable


def test_an_array_that_is_not_contiguous_keeps_its_values() -> None:
    array = np.arange(12).reshape(3, 4).T[::2]
    assert (through_json(array) == array).all()


@pytest.mark.parametrize(
    "number", [np.float64("nan"), np.float64("-inf"), np.float64(0.1), np.int64(3), np.bool_(True)]
)
def test_scalars_of_numpy_become_plain_numbers(number: Any) -> None:
    assert same(through_json(number), number.item())


PLAIN = [d for d in vars(torch).values() if isinstance(d, torch.dtype)]


def works(dtype: torch.dtype) -> bool:
    """Some types of torch are names only: not even a copy can be made of such a tensor."""
    try:
        torch.zeros(16, dtype=torch.uint8).view(dtype)[::2].clone()
    except (RuntimeError, TypeError):
        return False
    return True


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", sorted({d for d in PLAIN if works(d)}, key=str), ids=str)
def test_tensors_of_every_type_come_back_bit_for_bit(dtype: torch.dtype) -> None:
    raw = torch.arange(64, dtype=torch.uint8)
    if dtype is torch.bool:
        raw = raw % 2
    tensor = raw.view(dtype)
    for one in (tensor, tensor[:1].reshape(()), tensor[:0].reshape(0, 3), tensor[::2]):
        back = through_json(one)
        assert (back.dtype, back.shape) == (one.dtype, one.shape)
        assert bytes_of(back) == bytes_of(one)


def bytes_of(tensor: torch.Tensor) -> bytes:
    flat = tensor.contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b""


def test_a_parameter_comes_back_as_a_plain_tensor() -> None:
    back = through_json(torch.nn.Parameter(torch.ones(3)))
    assert type(back) is torch.Tensor
    assert not back.requires_grad


def test_an_ordered_dict_keeps_its_order() -> None:
    assert list(through_json(OrderedDict([("b", 1), ("a", 2)]))) == ["b", "a"]


class Colour(Enum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, (2, {3})]}, "state.a[1][1] is a set"),
        ({"a": {"b": SimpleNamespace()}}, "state.a.b is a SimpleNamespace"),
        ([lambda: 0], "state[0] is a function"),
        ({"path": Path()}, "state.path is a PosixPath"),
        ({"c": Colour.RED}, "state.c is a Colour"),
        ({"z": 1j}, "state.z is a complex"),
        ({Colour.RED: 1}, "state is a Colour"),
        ({"o": np.array([object()])}, "state.o is an array of object"),
        ({"r": np.zeros(1, dtype=[("x", "f4")])}, "state.r is an array of [('x', '<f4')]"),
    ],
)
def test_what_would_need_a_pickle_is_refused_by_its_place(value: Any, message: str) -> None:
    with pytest.raises(TypeError) as refused:
        tree.encode(value)
    assert message in str(refused.value)


def test_a_large_tensor_belongs_elsewhere() -> None:
    edge = torch.zeros(tree.INLINE_BYTES, dtype=torch.uint8)
    assert through_json(edge).shape == edge.shape
    with pytest.raises(TypeError, match=r"scaler\.x is a tensor of 65537 bytes"):
        tree.encode({"x": torch.zeros(tree.INLINE_BYTES + 1, dtype=torch.uint8)}, "scaler")


def test_a_kind_of_a_later_version_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown kind 'set'"):
        tree.decode([{"~": "set", "items": []}])
