"""Looks at the graph and listens to one topic after the other. Nothing is published."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState

from depthvla_control.nodes.executor.sole_writer import UNKNOWN
from depthvla_control.refusal import Refusal
from depthvla_control.ros import qos
from depthvla_control.ros.messages import nanoseconds
from depthvla_control.ros.polling import PolledSubscription
from depthvla_policy.ros import image_messages
from r1lite_bringup.preflight.observed import Calibration, Endpoint, Graph, Joints, Picture, Sample

NODE = "preflight"
INFINITE_NS = 2**62
PATIENCE_S = 2.0  # for the first message of a topic
POLL_S = 0.005
SETTLE_S = 0.5  # from the last topic that was waited for: its other endpoints are announced one by one


@dataclass(frozen=True)
class Kind:
    """How messages of a type are kept. `every`: the values of all, or of the newest alone."""

    message_type: type
    depth: int
    value: Callable[[Any, str], Any]
    every: bool = False


KINDS = {
    "sensor_msgs/msg/JointState": Kind(JointState, 256, lambda message, _: _joints(message), every=True),
    "sensor_msgs/msg/CompressedImage": Kind(CompressedImage, 8, lambda message, topic: _compressed(message, topic)),
    "sensor_msgs/msg/Image": Kind(Image, 8, lambda message, topic: _raw(message, topic)),
    "sensor_msgs/msg/CameraInfo": Kind(CameraInfo, 8, lambda message, _: _calibration(message)),
}


class Listener:
    """A node of a context of its own, without services."""

    def __init__(self) -> None:
        self._context = Context()
        rclpy.init(context=self._context)
        self.node = rclpy.create_node(NODE, context=self._context, enable_rosout=False, start_parameter_services=False)

    @property
    def middleware(self) -> str:
        return rclpy.get_rmw_implementation_identifier()

    def graph(self, wanted: Collection[str], limit_s: float) -> Graph:
        """The graph as soon as every wanted topic is published by a node whose name is known, or after the limit."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline and not all(self._is_known(topic) for topic in wanted):
            time.sleep(0.05)
        time.sleep(SETTLE_S)
        topics = [name for name, _ in self.node.get_topic_names_and_types()]
        nodes = {_full(namespace, name) for name, namespace in self.node.get_node_names_and_namespaces()}
        return Graph(
            nodes=tuple(sorted(nodes - {_full(self.node.get_namespace(), NODE)})),
            publishers={topic: self._publishers(topic) for topic in topics},
            subscriptions={topic: self._subscriptions(topic) for topic in topics},
        )

    def listen(self, topic: str, message_type: str, seconds: float, most: int | None = None) -> Sample:
        """What comes within `seconds` of the first message, or the first `most` messages.

        Best effort receives from everybody, so that a stream is judged even where a node's QoS does not fit it.
        """
        kind = KINDS[message_type]
        profile = qos.stream("best_effort", kind.depth)
        subscription = PolledSubscription(self.node, kind.message_type, topic, profile)
        received, stamps, numbers, values, newest = [], [], [], [], None
        deadline = time.monotonic() + max(seconds, PATIENCE_S)
        try:
            while time.monotonic() < deadline and not (most and len(received) >= most):
                while (taken := subscription.take()) is not None:
                    message, info = taken
                    if not received:
                        deadline = time.monotonic() + seconds
                    received.append(info["received_timestamp"])
                    stamps.append(nanoseconds(message.header.stamp))
                    numbers.append(info.get("publication_sequence_number"))
                    newest = message
                    if kind.every:
                        values.append(kind.value(message, topic))
                time.sleep(POLL_S)
        finally:
            subscription.destroy()
        if newest is not None and not kind.every:
            values.append(kind.value(newest, topic))
        return Sample(topic, tuple(received), tuple(stamps), lost(numbers), tuple(values))

    def _is_known(self, topic: str) -> bool:
        infos = self.node.get_publishers_info_by_topic(topic)
        return bool(infos) and all(info.node_name != UNKNOWN for info in infos)

    def _publishers(self, topic: str) -> tuple[Endpoint, ...]:
        infos = self.node.get_publishers_info_by_topic(topic)
        return tuple(_endpoint(info, lambda ours, theirs: (theirs, ours)) for info in infos)

    def _subscriptions(self, topic: str) -> tuple[Endpoint, ...]:
        infos = self.node.get_subscriptions_info_by_topic(topic)
        return tuple(_endpoint(info, lambda ours, theirs: (ours, theirs)) for info in infos)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


def lost(numbers: list[int | None]) -> int:
    """Messages missing between the first and the last, from the sender's count. 0 where the middleware has none, and
    where the numbers of several senders are mixed.
    """
    if len(numbers) < 2 or None in numbers or np.any(np.diff(numbers) <= 0):
        return 0
    return numbers[-1] - numbers[0] + 1 - len(numbers)


def _endpoint(info, pair: Callable) -> Endpoint:
    """pair: our profile and theirs -> publisher's and subscription's."""
    theirs, conflicts = _comparable(info.qos_profile), {}
    for reliability in qos.RELIABILITIES:
        compatibility, reason = qos_check_compatible(*pair(qos.stream(reliability, 1), theirs))
        if compatibility == QoSCompatibility.ERROR:
            conflicts[reliability] = reason.replace("ERROR: ", "").strip("; ")
    return Endpoint(
        node=_full(info.node_namespace, info.node_name),
        message_type=info.topic_type,
        reliability=theirs.reliability.name.lower(),
        conflicts=conflicts,
    )


def _comparable(profile: QoSProfile) -> QoSProfile:
    """Discovered endpoints say "infinite" where our profiles say nothing, which the check takes for a difference."""
    for name in ("deadline", "lifespan", "liveliness_lease_duration"):
        if getattr(profile, name).nanoseconds >= INFINITE_NS:
            setattr(profile, name, Duration())
    return profile


def _full(namespace: str, name: str) -> str:
    return f"{namespace.rstrip('/')}/{name}"


def _compressed(message: CompressedImage, topic: str) -> Picture:
    return _picture(image_messages.from_compressed(message, topic), message.format)


def _raw(message: Image, topic: str) -> Picture:
    return _picture(image_messages.from_image(message, topic), message.encoding)


def _picture(image: image_messages.EncodedImage | Refusal, encoding: str) -> Picture:
    if isinstance(image, Refusal):
        return Picture(encoding, problem=str(image))
    try:
        pixels = image_messages.decode(image)
    except ValueError as error:
        return Picture(encoding, problem=str(error))
    height, width = pixels.shape[:2]
    return Picture(encoding, width, height, float(pixels.std()))


def _joints(message: JointState) -> Joints:
    return Joints(tuple(message.position), tuple(message.name))


def _calibration(message: CameraInfo) -> Calibration:
    return Calibration(message.width, message.height, tuple(message.k), tuple(message.d))
