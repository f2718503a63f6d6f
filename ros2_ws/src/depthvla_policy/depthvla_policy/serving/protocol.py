"""msgpack with numpy arrays, as openpi's clients and servers speak it (packages/openpi-client, msgpack_numpy.py).

An array is a map of `__ndarray__`, `data`, `dtype` and `shape`, a numpy scalar one of `__npgeneric__`, `data` and
`dtype`, all keys bytes. Only plain numbers and strings pass: what is read cannot run, or take memory it did not bring.
"""

from __future__ import annotations

import math
import re

import msgpack
import numpy as np

MAX_MESSAGE_BYTES = 64 << 20  # three raw 1280 x 720 images are 8 MB, as float32 33 MB
DTYPE = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248]|S[1-9]\d*|U[1-9]\d*)")
SCALARS = {"b": bool, "i": int, "u": int, "f": (int, float), "S": bytes, "U": str}


def pack(message: object) -> bytes:
    """Encode a message of maps, lists, strings, numbers, numpy arrays and numpy scalars.

    Raises:
        ValueError: an array's dtype is not plain numbers or strings.
        TypeError: something else cannot be encoded.
    """
    return msgpack.packb(message, default=_encode)


def unpack(data: bytes) -> object:
    """Decode a message; its arrays are read-only.

    Raises:
        ValueError: the bytes are more than `MAX_MESSAGE_BYTES` or not msgpack, or an array in them is not well formed.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise ValueError(f"the message has {len(data)} bytes; at most {MAX_MESSAGE_BYTES} are allowed")
    try:
        return msgpack.unpackb(data, object_hook=_decode)
    except (ValueError, TypeError, OverflowError, KeyError) as error:
        raise ValueError(f"the message is not msgpack with numpy arrays: {error}") from error


def _encode(value: object) -> dict[bytes, object]:
    if isinstance(value, np.ndarray):
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": _checked(value.dtype.str),
            b"shape": value.shape,
        }
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": _checked(value.dtype.str)}
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _decode(item: dict) -> object:
    if b"__ndarray__" in item:
        data, shape, dtype = item[b"data"], tuple(item[b"shape"]), np.dtype(_checked(item[b"dtype"]))
        if not all(isinstance(size, int) and size >= 0 for size in shape) or not isinstance(data, bytes):
            raise ValueError(f"an array has shape {shape} and data of type {type(data).__name__}")
        if math.prod(shape) * dtype.itemsize != len(data):
            raise ValueError(f"an array of shape {shape} and dtype {dtype.str} has {len(data)} bytes")
        return np.ndarray(shape, dtype, buffer=data)
    if b"__npgeneric__" in item:
        data, dtype = item[b"data"], np.dtype(_checked(item[b"dtype"]))
        # numpy's constructors do more than convert: bytes_(n) allocates n bytes.
        if not isinstance(data, SCALARS[dtype.kind]):
            raise ValueError(f"a scalar of dtype {dtype.str} has data of type {type(data).__name__}")
        return dtype.type(data)
    return item


def _checked(dtype: object) -> str:
    if not isinstance(dtype, str) or not DTYPE.fullmatch(dtype):
        raise ValueError(f"dtype {dtype!r} is not allowed; allowed: bool, integers, floats to 64 bit, bytes, strings")
    return dtype
