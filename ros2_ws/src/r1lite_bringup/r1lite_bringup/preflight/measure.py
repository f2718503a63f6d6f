"""Looks at the graph and listens to one topic after the other: endpoints, samples, pictures. Nothing is published."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState

from depthvla_control.nodes.executor.sole_writer import UNKNOWN
from depthvla_control.ros import qos
from depthvla_control.ros.messages import nanoseconds
from depthvla_control.ros.polling import PolledSubscription
from depthvla_policy.policy.camera_images import camera_image, encoded_image

NODE = "preflight"
INFINITE_NS = 2**62
PATIENCE_S = 2.0  # for the first message of a topic
POLL_S = 0.005
SETTLE_S = 0.5  # from the last topic that was waited for: its other endpoints are announced one by one


MESSAGE_TYPES = {f"sensor_msgs/msg/{kind.__name__}": kind for kind in (JointState, CompressedImage, Image, CameraInfo)}


@dataclass(frozen=True)
class Endpoint:
    """A publisher or a subscription of somebody else. `conflicts`: reliability that our side would use -> why nothing
    would pass between the two, as the middleware says it.
    """

    node: str
    message_type: str
    reliability: str
    conflicts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Nodes by their full names; topics with their endpoints."""

    nodes: tuple[str, ...] = ()
    publishers: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    subscriptions: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=dict)

    def publishes(self, topic: str, message_type: str) -> bool:
        return any(endpoint.message_type == message_type for endpoint in self.publishers.get(topic, ()))


@dataclass(frozen=True)
class Sample:
    """Some seconds of one topic. Times are of the system clock, when the middleware received a message, and of its
    header. `lost`: messages that were sent between those received and did not arrive, where the middleware counts them.
    """

    topic: str
    received_ns: tuple[int, ...] = ()
    stamps_ns: tuple[int, ...] = ()
    lost: int = 0
    values: tuple[Any, ...] = ()  # joint states; the newest CameraInfo; the newest image as a `Picture`

    def __len__(self) -> int:
        return len(self.received_ns)

    @property
    def rate_hz(self) -> float:
        """NaN for fewer than two messages."""
        if len(self) < 2:
            return float("nan")
        return (len(self) - 1) * 1e9 / max(self.received_ns[-1] - self.received_ns[0], 1)

    @property
    def largest_gap_s(self) -> float:
        return float(np.max(np.diff(self.received_ns), initial=0)) * 1e-9

    @property
    def delays_s(self) -> np.ndarray:
        """(n,) from the stamp to the reception; negative where the sender's clock is ahead."""
        return (np.array(self.received_ns, dtype=np.int64) - np.array(self.stamps_ns, dtype=np.int64)) * 1e-9


@dataclass(frozen=True)
class Picture:
    """One decoded image. `problem`: why it is none. `contrast`: standard deviation of all its values, 0 to 127."""

    encoding: str
    width: int = 0
    height: int = 0
    contrast: float = 0.0
    problem: str = ""


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
        kind = MESSAGE_TYPES[message_type]
        profile = qos.stream("best_effort", 256 if kind is JointState else 8)
        subscription = PolledSubscription(self.node, kind, topic, profile)
        received, stamps, numbers, messages = [], [], [], []
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
                    messages = [*messages, message] if kind is JointState else [message]
                time.sleep(POLL_S)
        finally:
            subscription.destroy()
        values = tuple(_value(message, topic) for message in messages)
        return Sample(topic, tuple(received), tuple(stamps), lost(numbers), values)

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


def _value(message: Any, topic: str) -> Any:
    return _picture(message, topic) if isinstance(message, CompressedImage | Image) else message


def _picture(message: CompressedImage | Image, topic: str) -> Picture:
    encoding = message.format if isinstance(message, CompressedImage) else message.encoding
    try:
        pixels = camera_image(encoded_image(message, topic))
    except ValueError as error:
        return Picture(encoding, problem=str(error))
    height, width = pixels.shape[:2]
    return Picture(encoding, width, height, float(pixels.std()))
