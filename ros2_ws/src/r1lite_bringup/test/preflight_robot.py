"""Publishers that stand for a healthy robot, to be spoilt: nodes of this process that speak its topics."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from r1lite_description import robot as robot_description

ROBOT = robot_description.load()
# A fifth of the robot's feedback is enough, on a machine that does other things.
FEEDBACK_HZ = 40.0
LIMB = ROBOT.limbs[0]
POSE = tuple((ROBOT.position_min + ROBOT.position_max)[LIMB.arm] / 2)


@dataclass
class Stream:
    """What a node of the robot says periodically; `make` gives the message without its stamp."""

    topic: str
    make: Callable[[], object]
    rate_hz: float
    node: str = "hdas"
    reliability: str = "best_effort"
    ahead_s: float = 0.0
    stamp_ns: int = 0  # always this one
    silent: bool = False


@dataclass
class Body:
    """A healthy robot, to be spoilt."""

    streams: dict[str, Stream] = field(default_factory=dict)
    trackers: dict[str, tuple[str, str]] = field(default_factory=dict)  # command topic -> node, reliability
    nodes: list[str] = field(default_factory=list)  # that do nothing

    def __post_init__(self) -> None:
        for camera in ROBOT.cameras:
            self.streams[f"camera {camera.name}"] = Stream(camera.topic, compressed, 15.0)
            self.streams[f"info {camera.name}"] = Stream(camera.camera_info, calibration, 15.0)
        for limb in ROBOT.limbs:
            topics = limb.topics
            self.streams[f"arm {limb.name}"] = Stream(topics.arm_feedback, lambda: joints(*POSE), FEEDBACK_HZ)
            self.streams[f"gripper {limb.name}"] = Stream(topics.gripper_feedback, lambda: joints(60.0), FEEDBACK_HZ)
            for topic in (topics.arm_command, topics.gripper_command):
                self.trackers[topic] = ("mobiman", "best_effort")


def joints(*positions):
    from sensor_msgs.msg import JointState

    return JointState(name=["left_arm"], position=list(positions))


def pixels(width, height):
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def compressed(width=320, height=180, suffix=".jpg"):
    from sensor_msgs.msg import CompressedImage

    data = cv2.imencode(suffix, pixels(width, height))[1]
    return CompressedImage(format=suffix.strip(".").replace("jpg", "jpeg"), data=array("B", data.tobytes()))


def encoded_as(name):
    message = compressed()
    message.format = name
    return message


def raw(encoding="rgb8", padding=0):
    from sensor_msgs.msg import Image

    rows = pixels(320 + padding, 180)
    message = Image(height=180, width=320, step=3 * (320 + padding), encoding=encoding)
    message.data = array("B", rows.tobytes())
    return message


def calibration(width=320, height=180, focal=200.0):
    from sensor_msgs.msg import CameraInfo

    k = [focal, 0.0, width / 2, 0.0, focal, height / 2, 0.0, 0.0, 1.0 if focal else 0.0]
    return CameraInfo(width=width, height=height, k=k)


def moving():
    """Joint states that go up by 0.05 rad each time."""
    count = iter(range(10**6))
    return lambda: joints(*(np.array(POSE) + 0.05 * next(count)))


class FakeRobot:
    """Publishes what a body says, a process' context for every node of it."""

    def __init__(self, ros, body: Body) -> None:
        self._probes: dict[str, object] = {}
        self._ros = ros
        for node in body.nodes:
            self._probe(node)
        for stream in body.streams.values():
            self._start(stream)
        for topic, (node, reliability) in body.trackers.items():
            self._listen(node, topic, reliability)

    def _probe(self, node):
        if node not in self._probes:
            self._probes[node] = self._ros.Probe(node)
        return self._probes[node]

    def _listen(self, node, topic, reliability) -> None:
        from sensor_msgs.msg import JointState

        from depthvla_control.ros import qos

        self._probe(node).listen(JointState, topic, qos.stream(reliability, 1))

    def _start(self, stream: Stream) -> None:
        from depthvla_control.ros import qos
        from depthvla_control.ros.messages import time_message

        probe, message = self._probe(stream.node), stream.make()
        publisher = probe.publisher(type(message), stream.topic, qos.stream(stream.reliability, 2))

        def send() -> None:
            said = stream.make() if hasattr(message, "position") else message  # pictures are made once
            said.header.stamp = time_message(stream.stamp_ns or probe.now_ns() + round(stream.ahead_s * 1e9))
            publisher.publish(said)

        if not stream.silent:
            probe.every(1.0 / stream.rate_hz, send)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        for probe in self._probes.values():
            probe.__exit__()
