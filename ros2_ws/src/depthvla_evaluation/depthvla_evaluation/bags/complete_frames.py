"""Which head frames of a recording a policy can answer, known while it is played."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from depthvla_evaluation.bags.bag import Bag, header_stamp_ns, stamp_ns
from depthvla_policy.policy.observation_buffer import ObservationBuffer, ObservationLimits, RawObservation
from r1lite_description.robot import Robot

EARLY = 0.25  # control periods that a frame may be early: jitter of a camera at the control rate


class CompleteFrames:
    """Iterate to get a bag's (topic, time of reception in ns, serialised message) of some topics in order of reception.
    A head camera that is faster than the control rate loses frames, so that one a control period is left.

    What was handed out goes through the buffer of the live policy node: `in` says whether the head frame with a stamp
    [ns] has become an observation. One that lacks an image or a joint state never does, and no answer will come.
    """

    def __init__(self, bag: Bag, robot: Robot, topics: Iterable[str]) -> None:
        self._bag, self._topics, self._period_ns = bag, list(topics), round(robot.period_s * 1e9)
        self._cameras = {camera.topic: camera.name for camera in robot.cameras}
        self._head = robot.cameras[0].topic
        self._arms = {limb.topics.arm_feedback: limb.name for limb in robot.limbs}
        self._grippers = {limb.topics.gripper_feedback: limb.name for limb in robot.limbs}
        # A scene in which nothing moves is not the fault of a camera here.
        limits = ObservationLimits(camera_frozen_after_s=0.0)
        self._buffer = ObservationBuffer(robot, list(self._cameras.values()), limits)
        self._complete: set[int] = set()

    def __contains__(self, stamp: int) -> bool:
        return stamp in self._complete

    def __iter__(self) -> Iterator[tuple[str, int, bytes]]:
        due_ns = 0
        for connection, received_ns, data in self._bag.serialised(self._topics, checked=True):
            if connection.topic == self._head:
                stamp = header_stamp_ns(data)
                if stamp < due_ns - EARLY * self._period_ns:
                    continue
                late = stamp > due_ns + EARLY * self._period_ns
                due_ns = (stamp if late else due_ns) + self._period_ns
            self._look(connection, received_ns, data)
            yield connection.topic, received_ns, bytes(data)

    def _look(self, connection, received_ns: int, data: bytes) -> None:
        topic, buffer = connection.topic, self._buffer
        if topic in self._cameras:
            buffer.add_image(self._cameras[topic], header_stamp_ns(data), None, received_ns)
        elif topic in self._arms or topic in self._grippers:
            message = self._bag.deserialise(connection, received_ns, data)
            add = buffer.add_arm if topic in self._arms else buffer.add_gripper
            limb = self._arms.get(topic) or self._grippers[topic]
            add(limb, stamp_ns(message), message.position, received_ns, message.name)
        else:
            return
        while isinstance(taken := buffer.take(received_ns), RawObservation):
            self._complete.add(taken.stamp_ns)
