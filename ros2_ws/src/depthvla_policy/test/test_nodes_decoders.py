"""Images that are decoded before they are asked for."""

from __future__ import annotations

import threading

import pytest

from depthvla_policy.nodes.policy.decoders import KEPT, Decoders


class Payload:
    """Equal to every other one, as the images of a still camera are."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return True

    __hash__ = None


@pytest.fixture
def decoded():
    return []


@pytest.fixture
def decoders(decoded):
    def decode(payload):
        decoded.append(payload.value)
        if payload.value < 0:
            raise ValueError(f"{payload.value} is no image")
        return payload.value * 10

    decoders = Decoders(decode)
    yield decoders
    decoders.close()


def test_an_image_is_decoded_once_whether_it_was_begun_or_not(decoders, decoded):
    begun, other = Payload(1), Payload(2)
    decoders.begin("head", begun)
    assert decoders.results({"head": begun, "wrist": other}) == {"head": 10, "wrist": 20}
    assert sorted(decoded) == [1, 2]


def test_an_image_that_equals_another_is_not_taken_for_it(decoders):
    decoders.begin("head", Payload(1))
    decoders.begin("wrist", Payload(2))
    assert decoders.results({"head": Payload(3), "wrist": Payload(4)}) == {"head": 30, "wrist": 40}


def test_what_decoding_raises_asking_raises(decoders):
    bad = Payload(-1)
    decoders.begin("head", bad)
    for payload in (bad, Payload(-2)):
        with pytest.raises(ValueError, match="is no image"):
            decoders.results({"head": payload})


def test_only_the_newest_images_are_kept(decoders, decoded):
    payloads = [Payload(value) for value in range(KEPT + 1)]
    for payload in payloads:
        decoders.begin("head", payload)
    for payload in payloads:
        decoders.results({"head": payload})
    assert sorted(decoded) == [0, 0, *range(1, KEPT + 1)]


def test_images_are_decoded_side_by_side():
    together = threading.Barrier(3, timeout=10)
    decoders = Decoders(lambda payload: together.wait() and payload)
    try:
        decoders.begin("head", 1)
        assert set(decoders.results({"head": 1, "left": 2, "right": 3})) == {"head", "left", "right"}
    finally:
        decoders.close()
