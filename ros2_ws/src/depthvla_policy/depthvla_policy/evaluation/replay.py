"""What the policy had before it when it made the chunks of a bag: the chunks, and the observation of each of them.

Observations go through the same buffer and the same decoding as in the live node; nothing is inferred here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from depthvla_policy.control.chunk import Chunk
from depthvla_policy.control.observation_buffer import ObservationBuffer, ObservationLimits
from depthvla_policy.control.refusal import Reason, Refusal
from depthvla_policy.evaluation.bag import Bag, stamp_ns
from depthvla_policy.evaluation.episode import POLICY
from depthvla_policy.policy.images import decode_jpeg
from depthvla_policy.policy.observation import Observation
from depthvla_policy.robot import Robot

COMPRESSED = "sensor_msgs/msg/CompressedImage"
# That a scene stands still was no reason for the live policy to refuse it, or there would be no chunk.
LIMITS = ObservationLimits(camera_frozen_after_s=0.0)


@dataclass(frozen=True)
class RecordedChunk:
    chunk: Chunk
    instruction: str
    taken_ns: int  # when its observation was taken from the buffer, on the clock of the recorder


def recorded_chunks(bag: Bag, robot: Robot) -> list[RecordedChunk]:
    """The chunks in order of reception. Raises ValueError for one whose arms have no or different numbers of steps."""
    return [
        RecordedChunk(
            Chunk(
                stamp_ns(message),
                message.sequence,
                _ns(message.step_duration),
                _positions(message, robot),
                message.model_id,
            ),
            message.instruction,
            received_ns - _ns(message.total_time),
        )
        for _, received_ns, message in bag.messages([f"{POLICY}/action_chunk"])
    ]


def observations(
    bag: Bag, robot: Robot, cameras: Sequence[str]
) -> Iterator[tuple[RecordedChunk, Observation | Refusal]]:
    """For every recorded chunk the observation that it was predicted from, or why the bag does not hold it.

    Messages are fed in order of reception, up to the time at which the policy took its observation. Recorder and policy
    do not receive at the same instant, so a joint sample may be the neighbour of the one that was used.

    Raises:
        ValueError: a camera is unknown or was not recorded as compressed images; a chunk or an image cannot be read.
    """
    topics = {robot.camera(name).topic: name for name in cameras}
    wrong = [topic for topic in topics if topic in bag.topics and bag.topics[topic].type != COMPRESSED]
    if wrong:
        raise ValueError(f"bag {bag.path}: {', '.join(wrong)} is not {COMPRESSED}, the only kind that is replayed")
    arms = {limb.topics.arm_feedback: limb.name for limb in robot.limbs}
    grippers = {limb.topics.gripper_feedback: limb.name for limb in robot.limbs}
    reference = robot.cameras[0].topic
    buffer = ObservationBuffer(robot, cameras, LIMITS)
    pending = deque(recorded_chunks(bag, robot))
    used = {recorded.chunk.stamp_ns for recorded in pending}
    for topic, now_ns, message in bag.messages([*topics, *arms, *grippers]):
        stamp = stamp_ns(message)
        if topic == reference and stamp not in used:
            continue  # the policy never took it
        # A frame that a later chunk was made of had not reached the policy yet.
        while pending and (pending[0].taken_ns < now_ns or (topic == reference and stamp > pending[0].chunk.stamp_ns)):
            recorded = pending.popleft()
            yield recorded, _take(buffer, recorded, min(recorded.taken_ns, now_ns))
        if topic in topics:
            buffer.add_image(topics[topic], stamp, bytes(message.data), now_ns)
        elif topic in arms:
            buffer.add_arm(arms[topic], stamp, message.position, now_ns)
        else:
            buffer.add_gripper(grippers[topic], stamp, message.position, now_ns)
    for recorded in pending:
        yield recorded, _take(buffer, recorded, recorded.taken_ns)


def _take(buffer: ObservationBuffer, recorded: RecordedChunk, now_ns: int) -> Observation | Refusal:
    raw = buffer.take(now_ns)
    if isinstance(raw, Refusal):
        return raw
    if raw.stamp_ns != recorded.chunk.stamp_ns:
        return Refusal(Reason.MISSING, f"the bag has no reference frame for chunk {recorded.chunk.sequence}")
    images = {camera: decode_jpeg(data) for camera, data in raw.images.items()}
    return Observation(raw.stamp_ns, images, raw.state, recorded.instruction)


def _positions(message, robot: Robot) -> np.ndarray:
    """(steps, size) in `Robot` order."""
    arms = [[point.positions for point in getattr(message, f"{limb.name}_arm").points] for limb in robot.limbs]
    counts = [len(points) for points in arms]
    if min(counts) == 0 or min(counts) != max(counts):
        raise ValueError(f"chunk {message.sequence} in the bag has arms of {counts} steps")
    return np.concatenate([np.array(points, dtype=np.float64) for points in arms], axis=1)


def _ns(duration) -> int:
    return duration.sec * 1_000_000_000 + duration.nanosec
