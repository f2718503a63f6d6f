"""Snapshots of a recorded episode at any time of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from depthvla_control.arbiter import Mode
from depthvla_control.limb_feedback import arm_positions
from depthvla_evaluation.bags.bag import Bag, camera_matrix, depth_image, duration_s, stamp_ns
from depthvla_evaluation.bags.recorded_graph import (
    EXECUTOR,
    POLICY,
    info_topic,
    predicted_topic,
    recorded_rectifiers,
    recorded_robot,
)
from depthvla_evaluation.bags.replay import recorded_chunks, recorded_plans
from depthvla_evaluation.viewer.snapshot import DepthPicture, Picture, Snapshot, joint_positions
from depthvla_policy.policy.camera_images import camera_image
from r1lite_description.robot import Camera, Robot

JOINT_STATES = "/joint_states"
RECEPTION_NS = 30_000_000  # after its stamp an image has reached the recorder, and the next one is not taken yet
CHUNKS, POLICY_STATUS, EXECUTOR_STATUS = f"{POLICY}/action_chunk", f"{POLICY}/status", f"{EXECUTOR}/status"


class Stream:
    """Values with their times [ns], in order."""

    def __init__(self, times_ns: list[int], values: list[Any]) -> None:
        self.times_ns, self.values = np.array(times_ns, dtype=np.int64), values

    def at(self, time_ns: int) -> Any | None:
        """The newest value that is not from later; None where there is none."""
        index = int(np.searchsorted(self.times_ns, time_ns, side="right")) - 1
        return self.values[index] if index >= 0 else None


class BagSnapshots:
    """Everything of a bag that is shown, in memory; pictures as they were compressed.

    Raises:
        ValueError: a chunk in the bag cannot be read.
    """

    def __init__(self, bag: Bag, robot: Robot | None = None) -> None:
        """`robot`: the one that the bag holds, when None."""
        self.robot = robot or recorded_robot(bag)
        self._rectifiers = recorded_rectifiers(bag, self.robot)
        self.start_ns, self.duration_s = bag.start_ns, bag.duration_s
        chunks = recorded_chunks(bag, self.robot)
        self._streams = {name: _stream(messages) for name, messages in bag.read(self._topics()).items()}
        self._chunks = Stream(self._streams[CHUNKS].times_ns.tolist(), chunks)
        self._plans = _stream(recorded_plans(bag, self.robot))
        self._latency_ms = np.array(
            [
                ((time_ns - self.start_ns) * 1e-9, duration_s(message.total_time) * 1e3)
                for time_ns, message in zip(self._streams[CHUNKS].times_ns, self._streams[CHUNKS].values, strict=True)
            ]
        ).reshape(-1, 2)

    def snapshot(self, time_s: float) -> Snapshot:
        """What was known `time_s` seconds after the start of the bag."""
        now = self.start_ns + round(time_s * 1e9)
        executor, policy = self._at(EXECUTOR_STATUS, now), self._at(POLICY_STATUS, now)
        chunk = self._chunks.at(now)
        images = {camera.name: self._picture(camera.topic, now) for camera in self.robot.cameras}
        matrices = {camera.name: self._matrix(camera, now) for camera in self.robot.cameras}
        depth = {camera.name: self._depth(camera, now) for camera in self.robot.cameras}
        return Snapshot(
            now_ns=now,
            joints=self._joints(now),
            images={name: picture for name, picture in images.items() if picture},
            camera_matrices={name: matrix for name, matrix in matrices.items() if matrix is not None},
            depth={name: picture for name, picture in depth.items() if picture},
            chunk=chunk.chunk if chunk else None,
            plan=self._plans.at(now),
            mode=Mode(executor.mode) if executor and executor.mode in list(Mode) else None,
            cause=executor.cause if executor else "",
            instruction=policy.instruction if policy else chunk.instruction if chunk else "",
            complaint=policy.reason if policy else "",
            latency_ms=self._latency_ms[self._latency_ms[:, 0] <= time_s],
        )

    def _topics(self) -> list[str]:
        topics = [CHUNKS, POLICY_STATUS, EXECUTOR_STATUS, JOINT_STATES]
        for camera in self.robot.cameras:
            image = predicted_topic(camera.name)
            topics += [camera.topic, camera.camera_info, image, info_topic(image)]
        for limb in self.robot.limbs:
            topics += [limb.topics.arm_feedback, limb.topics.gripper_feedback]
        return topics

    def _at(self, topic: str, now_ns: int) -> Any | None:
        return self._streams[topic].at(now_ns)

    def _joints(self, now_ns: int) -> Mapping[str, float]:
        """Of all joints where /joint_states was recorded, else of the arms."""
        everything = self._at(JOINT_STATES, now_ns)
        if everything is not None:
            return joint_positions(everything.name, everything.position)
        joints: dict[str, float] = {}
        for limb in self.robot.limbs:
            arm = self._at(limb.topics.arm_feedback, now_ns)
            measured = arm and arm_positions(self.robot, limb, arm.position, arm.name)
            if isinstance(measured, np.ndarray):
                joints |= joint_positions(limb.joints, measured)
        return joints

    def _picture(self, topic: str, now_ns: int) -> Picture | None:
        message = self._at(topic, now_ns)
        if message is None:
            return None
        return Picture(stamp_ns(message), partial(camera_image, message, self._rectifiers.get(topic)))

    def _matrix(self, camera: Camera, now_ns: int) -> np.ndarray | None:
        if camera.topic in self._rectifiers:
            rectifier = self._rectifiers[camera.topic]
            return rectifier.calibration.rectified_k if rectifier else None
        info = self._at(camera.camera_info, now_ns)
        return None if info is None else camera_matrix(info)

    def _depth(self, camera: Camera, now_ns: int) -> DepthPicture | None:
        topic = predicted_topic(camera.name)
        image, info = self._at(topic, now_ns), self._at(info_topic(topic), now_ns)
        if image is None or info is None:
            return None
        stamp = stamp_ns(image)
        return DepthPicture(
            stamp,
            depth_image(image),
            camera_matrix(info),
            self._joints(stamp),
            self._picture(camera.topic, stamp + RECEPTION_NS),
        )


def _stream(messages: list[tuple[int, Any]]) -> Stream:
    return Stream([time_ns for time_ns, _ in messages], [message for _, message in messages])
