"""Fields of an observation as a client sent them: found by name, checked, brought into our form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

MAX_SIDE = 4096  # of an image [px]
PICTURE = f"(H, W, 3) or (3, H, W) RGB, uint8 or float from 0 to 1, sides 1 to {MAX_SIDE}"


def find(message: object, name: str) -> object:
    """The field of that name. "a/b" is the key "a/b", or "b" of the map "a": openpi's clients use both.

    Raises:
        ValueError: there is none.
    """
    if not isinstance(message, Mapping):
        raise ValueError(f"an observation must be a map, got {type(message).__name__}")
    if name in message:
        return message[name]
    outer, _, inner = name.partition("/")
    nested = message.get(outer)
    if inner and isinstance(nested, Mapping) and inner in nested:
        return nested[inner]
    present = nested if inner and isinstance(nested, Mapping) else message
    raise ValueError(f"{name} is missing; there are {sorted(map(str, present))}")


def picture(value: object, name: str) -> np.ndarray:
    """An image as (H, W, 3) uint8 RGB.

    Raises:
        ValueError: it is not what `PICTURE` says.
    """
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name} is of type {type(value).__name__}; it must be an array {PICTURE}")
    wrong = f"{name} has shape {value.shape} and dtype {value.dtype}; it must be {PICTURE}"
    if value.ndim != 3 or not all(1 <= side <= MAX_SIDE for side in value.shape):
        raise ValueError(wrong)
    if value.shape[2] != 3:
        if value.shape[0] != 3:
            raise ValueError(wrong)
        value = value.transpose(1, 2, 0)
    if value.dtype == np.uint8:
        return np.ascontiguousarray(value)
    if value.dtype.kind != "f":
        raise ValueError(wrong)
    low, high = float(value.min()), float(value.max())  # NaN where a value is
    if not 0.0 <= low <= high <= 1.0:
        raise ValueError(f"{name} has values from {low:g} to {high:g}; floats must be from 0 to 1, else send uint8")
    return np.round(value.astype(np.float32) * 255.0).astype(np.uint8)


def vector(value: object, name: str, entries: Sequence[str]) -> np.ndarray:
    """A vector as (len(entries),) float64.

    Raises:
        ValueError: it is not numbers, of another length or not finite.
    """
    allowed = f"it must be {len(entries)} finite numbers: {', '.join(entries)}"
    try:
        array = np.atleast_1d(np.asarray(value))
    except ValueError as error:  # a ragged list
        raise ValueError(f"{name} is not a vector; {allowed}") from error
    if array.dtype.kind not in "iuf" or array.shape != (len(entries),):
        raise ValueError(f"{name} has shape {array.shape} and dtype {array.dtype}; {allowed}")
    for entry, number in zip(entries, array, strict=True):
        if not np.isfinite(number):
            raise ValueError(f"{name} has {number} for {entry}; {allowed}")
    return array.astype(np.float64)


def text(value: object, name: str) -> str:
    """A text that is not blank. Raises ValueError for anything else."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is {value!r:.80}; it must be a text that is not blank")
    return str(value)
