"""Nested training state as JSON and tensors, without pickle.

JSON has neither tuples nor bytes, nor keys that are numbers, and turns -0.0 and infinities
into what each reader likes. What JSON cannot say is said by an object with the key ``~``.
Small tensors and arrays stand in the JSON as base64; large ones belong in a safetensors
file and are handled by `capture`.
"""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import torch

#: Tensors up to this size may stand in the JSON [bytes]; a random state of torch has 5,056.
INLINE_BYTES = 64 << 10


def encode(value: Any, where: str = "state") -> Any:  # noqa: PLR0911 - one line per kind
    """A JSON value for a nested state.

    Args:
        value: None, numbers, strings, bytes, lists, tuples, dicts, arrays, tensors, nested.
        where: what it is called in an error.

    Raises:
        TypeError: something that is none of these; the message says where it stands.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"~": "float", "value": repr(float(value))}
        case np.ndarray():
            return _array(value, where)
        case np.generic():
            return encode(value.item(), where)
        case torch.Tensor():
            return _tensor(value, where)
        case torch.dtype():
            return {"~": "dtype", "value": str(value).removeprefix("torch.")}
        case bytes() | bytearray():
            return {"~": "bytes", "data": base64.b64encode(value).decode()}
        case list():
            return [encode(v, f"{where}[{i}]") for i, v in enumerate(value)]
        case tuple():
            return {"~": "tuple", "items": [encode(v, f"{where}[{i}]") for i, v in enumerate(value)]}
        case dict():
            if all(isinstance(k, str) and k != "~" for k in value):
                return {k: encode(v, f"{where}.{k}") for k, v in value.items()}
            items = [[encode(k, where), encode(v, f"{where}.{k}")] for k, v in value.items()]
            return {"~": "dict", "items": items}
    raise TypeError(f"{where} is a {type(value).__qualname__}, which a checkpoint without pickle cannot hold")


def decode(value: Any) -> Any:  # noqa: PLR0911 - one line per kind
    """The nested state of a JSON value that `encode` made.

    Raises:
        ValueError: the value was made by nothing that this version knows.
    """
    if isinstance(value, list):
        return [decode(v) for v in value]
    if not isinstance(value, dict):
        return value
    match value.get("~"):
        case None:
            return {k: decode(v) for k, v in value.items()}
        case "float":
            return float(value["value"])
        case "bytes":
            return base64.b64decode(value["data"])
        case "tuple":
            return tuple(decode(v) for v in value["items"])
        case "dict":
            return {decode(k): decode(v) for k, v in value["items"]}
        case "dtype":
            return getattr(torch, value["value"])
        case "ndarray":
            raw = base64.b64decode(value["data"])
            return np.frombuffer(raw, dtype=np.dtype(value["dtype"])).reshape(value["shape"]).copy()
        case "tensor":
            data = bytearray(base64.b64decode(value["data"]))
            dtype = getattr(torch, value["dtype"])
            if not data:
                return torch.empty(value["shape"], dtype=dtype)
            return torch.frombuffer(data, dtype=torch.uint8).view(dtype).reshape(value["shape"]).clone()
        case other:
            raise ValueError(f"unknown kind {other!r} in a saved state")


def _array(array: np.ndarray[Any, Any], where: str) -> dict[str, Any]:
    if array.dtype.hasobject or array.dtype.kind == "V":
        raise TypeError(f"{where} is an array of {array.dtype}, which a checkpoint without pickle cannot hold")
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"~": "ndarray", "dtype": array.dtype.str, "shape": list(array.shape), "data": data}


def _tensor(tensor: torch.Tensor, where: str) -> dict[str, Any]:
    size = tensor.numel() * tensor.element_size()
    if size > INLINE_BYTES:
        raise TypeError(f"{where} is a tensor of {size} bytes; so large a one belongs in a safetensors file")
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    raw = flat.view(torch.uint8).numpy().tobytes() if size else b""
    dtype = str(tensor.dtype).removeprefix("torch.")
    return {"~": "tensor", "dtype": dtype, "shape": list(tensor.shape), "data": base64.b64encode(raw).decode()}
