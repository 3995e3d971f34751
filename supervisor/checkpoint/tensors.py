"""The header of a safetensors file, judged as strictly as the library judges it.

The file is 8 bytes of length, that many bytes of JSON, and the tensors' bytes
without a gap. What this file accepts the library accepts too (tested against
it); it is stricter where writing is ours: no unknown keys, no key twice.

Source:
    https://github.com/huggingface/safetensors, README.md, "Format", and
    safetensors/src/tensor.rs, `Metadata::validate`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from supervisor.checkpoint.flaws import FlawError, load_json

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000

#: Bits of one element.
DTYPE_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}

_METADATA = "__metadata__"
_KEYS = {"dtype", "shape", "data_offsets"}
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NEGATIVE_ZERO = re.compile(rb"[\[,:\s]-0")
_MAX_U64 = 2**64 - 1


def header_bytes(start: bytes, file_bytes: int) -> int:
    """Length of the JSON header [B], from the first eight bytes of a file of ``file_bytes``.

    Raises:
        FlawError: no header can be that long.

    >>> header_bytes((2).to_bytes(8, "little"), file_bytes=10)
    2
    """
    if len(start) < LENGTH_BYTES:
        raise FlawError("too short for a safetensors file")
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES or LENGTH_BYTES + length > file_bytes:
        raise FlawError(f"the safetensors header cannot be {length} bytes long")
    return length


def check_header(header: bytes, data_bytes: int) -> None:
    """Make sure that ``header`` describes exactly ``data_bytes`` bytes of tensors.

    Raises:
        FlawError: it does not, and why.

    >>> check_header(b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', 8)
    """
    document = load_json(header)
    _check_as_library(header, document)
    if not isinstance(document, dict):
        raise FlawError("the safetensors header is not a JSON object")
    _check_metadata(document.pop(_METADATA, {}))
    end = 0
    for begin, stop, name in sorted(_span(name, tensor) for name, tensor in document.items()):
        if begin != end:
            raise FlawError(f"tensor {name!r} begins at byte {begin}, not at {end}")
        end = stop
    if end != data_bytes:
        raise FlawError(f"tensors take {end} bytes, the file has {data_bytes} for them")


def _check_as_library(header: bytes, document: Any) -> None:
    """Refuse what Python's JSON reader lets through and the library's does not.

    That is a lone half of a surrogate pair, and -0, which is no size.
    """
    if _NEGATIVE_ZERO.search(header):
        raise FlawError("the safetensors header holds -0")
    if _SURROGATE.search(header):
        try:
            json.dumps(document, ensure_ascii=False).encode()
        except (UnicodeEncodeError, RecursionError):
            raise FlawError("the safetensors header holds half a character") from None


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FlawError(f"{_METADATA} holds more than text")


def _span(name: str, tensor: Any) -> tuple[int, int, str]:
    if not isinstance(tensor, dict) or tensor.keys() != _KEYS:
        raise FlawError(f"tensor {name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
    bits = DTYPE_BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise FlawError(f"tensor {name!r} has a dtype that safetensors does not know")
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        raise FlawError(f"tensor {name!r} has a shape or offsets that are no sizes")
    begin, stop = offsets
    for size in (begin, stop, *shape):
        if type(size) is not int or not 0 <= size <= _MAX_U64:  # a bool is an int, and not meant
            raise FlawError(f"tensor {name!r} has a shape or offsets that are no sizes")
    if stop - begin != _tensor_bytes(name, shape, bits):
        raise FlawError(f"tensor {name!r} spans {stop - begin} bytes, its shape says otherwise")
    return begin, stop, name


def _tensor_bytes(name: str, shape: list[int], bits: int) -> int:
    count = 1
    for size in shape:
        count *= size
        if count > _MAX_U64:  # the library refuses it here, even if a zero follows
            raise FlawError(f"tensor {name!r} has a shape that no memory holds")
    if count * bits > _MAX_U64 or count * bits % 8:
        raise FlawError(f"tensor {name!r} has a shape that fills no whole bytes")
    return count * bits // 8
