"""Messages of the policy server: what passes comes back the same, what could do harm does not pass."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthvla_policy.serving import protocol
from depthvla_policy.serving.protocol import pack, unpack

NUMBERS = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">i4", ">f8"]


@pytest.mark.parametrize("dtype", [*NUMBERS, "S3", "U3"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_an_array_comes_back_the_same(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    back = unpack(pack(array))
    assert back.dtype == array.dtype and back.shape == shape and np.array_equal(back, array)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_a_scalar_comes_back_the_same(dtype):
    scalar = np.ones((), dtype)[()]
    assert unpack(pack(scalar)) == scalar


def test_an_array_in_any_order_of_memory_comes_back_the_same():
    array = np.arange(24).reshape(2, 3, 4)
    for view in (array.T, array[:, ::-1], np.asfortranarray(array)):
        assert np.array_equal(unpack(pack(view)), view)


def test_maps_lists_and_texts_may_hold_arrays():
    message = {"a/b": [1, 2.5, None, True, "ä", b"\x00"], "c": {"d": np.float32([1, 2])}}
    back = unpack(pack(message))
    assert back["a/b"] == message["a/b"] and np.array_equal(back["c"]["d"], [1, 2])


def test_not_a_number_passes_so_that_a_field_can_be_named():
    assert np.isnan(unpack(pack(np.array([np.nan])))[0])


@pytest.mark.parametrize(
    "array",
    [
        np.array([{}]),
        np.zeros(1, "g"),
        np.zeros(1, "c8"),
        np.zeros(1, "i4, f4"),
        np.zeros(1, "M8[s]"),
        np.zeros(1, "V4"),
    ],
    ids=lambda array: array.dtype.str,
)
def test_objects_records_and_other_dtypes_are_not_sent(array):
    with pytest.raises(ValueError, match="dtype .* is not allowed"):
        pack(array)


def test_what_is_no_message_is_not_sent():
    with pytest.raises(TypeError, match="set cannot be sent"):
        pack({"a": {1}})


def array_map(**changes):
    fields = {"__ndarray__": True, "data": b"\x00" * 8, "dtype": "<f4", "shape": [2], **changes}
    return msgpack.packb({key.encode(): value for key, value in fields.items() if value is not ...})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (array_map(dtype="|O"), "dtype '.O' is not allowed"),
        (array_map(dtype="O8"), "dtype 'O8' is not allowed"),
        (array_map(dtype="<i4, <f4"), "is not allowed"),
        (array_map(dtype=[["a", "<i4"]]), "is not allowed"),
        (array_map(dtype="U0", data=b"", shape=[10**9]), "is not allowed"),
        (array_map(shape=[3]), "has 8 bytes"),
        (array_map(shape=[2**62, 2, 0], data=b""), "not msgpack"),
        (array_map(shape=[-2]), "an array has shape"),
        (array_map(shape=["2"]), "an array has shape"),
        (array_map(shape=2), "not msgpack"),
        (array_map(data="text"), "an array has shape"),
        (array_map(data=...), "not msgpack"),
        (msgpack.packb({b"__npgeneric__": True, b"dtype": "S1", b"data": 10**12}), "data of type int"),
        (msgpack.packb({b"__npgeneric__": True, b"dtype": "<f8", b"data": [1, 2]}), "data of type list"),
        (msgpack.packb({b"__npgeneric__": True, b"dtype": "i1", b"data": 300}), "not msgpack"),
        (msgpack.packb({b"__npgeneric__": True, b"dtype": "|O", b"data": 1}), "is not allowed"),
        (b"", "not msgpack"),
        (b"\xc1", "not msgpack"),
        (pack({"a": 1}) + b"\x00", "not msgpack"),
        (b"\x91" * 100_000, "not msgpack"),
    ],
)
def test_a_message_that_is_not_well_formed_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        unpack(data)


def test_a_message_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(protocol, "MAX_MESSAGE_BYTES", 10)
    with pytest.raises(ValueError, match="has 11 bytes; at most 10"):
        unpack(b"\x00" * 11)


@given(st.binary(max_size=60) | st.builds(lambda cut: array_map()[:cut], st.integers(0, 60)))
def test_no_bytes_do_worse_than_a_refusal(data):
    try:
        unpack(data)
    except ValueError:
        pass
