"""A bag's cameras and joints put into the observation buffer of the live policy node, in order of reception."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from depthvla_evaluation.bags.bag import Bag, header_stamp_ns, stamp_ns
from depthvla_policy.policy.observation_buffer import ObservationBuffer, ObservationLimits, RawObservation
from r1lite_description.robot import Robot

EARLY = 0.25  # control periods that a frame may be early: jitter of a camera at the control rate


class ObservationFeed:
    """The buffer, and what fills it. `frames` counts the head frames that were taken, one a control period: a faster
    camera loses frames, jitter loses none.
    """

    def __init__(self, robot: Robot, limits: ObservationLimits) -> None:
        self._buffer = ObservationBuffer(robot, [camera.name for camera in robot.cameras], limits)
        self._head, self._period_ns = robot.cameras[0].topic, round(robot.period_s * 1e9)
        self._due_ns = 0
        self.frames = 0
        self.cameras = {camera.topic: camera.name for camera in robot.cameras}
        self.joints = {limb.topics.arm_feedback: (self._buffer.add_arm, limb.name) for limb in robot.limbs}
        self.joints |= {limb.topics.gripper_feedback: (self._buffer.add_gripper, limb.name) for limb in robot.limbs}

    def add_image(self, topic: str, stamp: int, payload: Any, received_ns: int) -> bool:
        """False where it is a head frame that is not taken."""
        if topic == self._head:
            if stamp < self._due_ns - EARLY * self._period_ns:
                return False
            late = stamp > self._due_ns + EARLY * self._period_ns
            self._due_ns = (stamp if late else self._due_ns) + self._period_ns
            self.frames += 1
        self._buffer.add_image(self.cameras[topic], stamp, payload, received_ns)
        return True

    def add_joints(self, topic: str, message: Any, received_ns: int) -> None:
        add, limb = self.joints[topic]
        add(limb, stamp_ns(message), message.position, received_ns, message.name)

    def observations(self, now_ns: int) -> Iterator[RawObservation]:
        """Those that are complete now."""
        while isinstance(taken := self._buffer.take(now_ns), RawObservation):
            yield taken


class CompleteFrames:
    """Iterate to get a bag's (topic, time of reception in ns, serialised message) of some topics, at the control rate.

    `in` says whether the head frame with a stamp [ns], handed out before, has become an observation. One that lacks an
    image or a joint state never does, and no answer will come.
    """

    def __init__(self, bag: Bag, robot: Robot, topics: Iterable[str]) -> None:
        self._bag, self._robot, self._topics = bag, robot, list(topics)
        self._complete: set[int] = set()

    def __contains__(self, stamp: int) -> bool:
        return stamp in self._complete

    def __iter__(self) -> Iterator[tuple[str, int, bytes]]:
        # A scene in which nothing moves is not the fault of a camera here.
        feed = ObservationFeed(self._robot, ObservationLimits(camera_frozen_after_s=0.0))
        for connection, received_ns, data in self._bag.serialised(self._topics):
            topic = connection.topic
            if topic in feed.cameras and not feed.add_image(topic, header_stamp_ns(data), None, received_ns):
                continue
            if topic in feed.joints:
                feed.add_joints(topic, self._bag.deserialise(connection, received_ns, data), received_ns)
            self._complete.update(raw.stamp_ns for raw in feed.observations(received_ns))
            yield topic, received_ns, bytes(data)
