"""What the policy had before it when it made the chunks of a bag: the chunks, and the observation of each of them.

A chunk names the samples that it was made of, so the observation is the live one to the bit. Nothing is inferred here.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from depthvla_control.chunk import Chunk
from depthvla_control.execution_plan import Plan
from depthvla_control.limb_feedback import arm_positions, arm_stream, gripper_opening, gripper_stream
from depthvla_control.refusal import Reason, Refusal
from depthvla_evaluation.bags.bag import Bag, stamp_ns
from depthvla_evaluation.bags.recorded_graph import EXECUTOR, POLICY
from depthvla_evaluation.bags.rectification import as_recorded
from depthvla_policy.policy.calibration import Rectifier
from depthvla_policy.policy.images import decode_jpeg
from depthvla_policy.policy.observation import Observation
from depthvla_policy.policy.observation_buffer import camera_stream
from r1lite_description.robot import Robot

COMPRESSED = "sensor_msgs/msg/CompressedImage"


@dataclass(frozen=True)
class RecordedChunk:
    chunk: Chunk
    instruction: str
    sources: dict[str, int]  # stream -> stamp [ns] of the sample that the observation was made of


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
            {source.stream: _ns(source.stamp) for source in getattr(message, "sources", ())},
        )
        for _, _, message in bag.messages([f"{POLICY}/action_chunk"])
    ]


def recorded_plans(bag: Bag, robot: Robot) -> list[tuple[int, Plan | None]]:
    """What the executor was going to do, with the time of reception [ns]; None from when it was nothing."""
    return [
        (
            time_ns,
            Plan(
                stamp_ns(message),
                message.sequence,
                _ns(message.step_duration),
                _ns(message.latency),
                _positions(message, robot),
            )
            if getattr(message, f"{robot.limbs[0].name}_arm").points
            else None,
        )
        for _, time_ns, message in bag.messages([f"{EXECUTOR}/plan"])
    ]


def observations(
    bag: Bag, robot: Robot, cameras: Sequence[str]
) -> Iterator[tuple[RecordedChunk, Observation | Refusal]]:
    """For every recorded chunk the observation that it was predicted from, or why the bag does not hold it.

    Raises:
        FileNotFoundError: a calibration file of the recorded policy is not there.
        ValueError: a camera is unknown, was not recorded as compressed images or cannot be rectified as it was; a chunk
            or an image cannot be read.
    """
    topics = _topics(robot, cameras)
    rectifiers = {name: Rectifier(found) for name, found in as_recorded(bag, robot, cameras).items()}
    wrong = [
        topic
        for topic in (robot.camera(name).topic for name in cameras)
        if topic in bag.topics and bag.topics[topic].type != COMPRESSED
    ]
    if wrong:
        raise ValueError(f"bag {bag.path}: {', '.join(wrong)} is not {COMPRESSED}, the only kind that is replayed")
    pending = deque(recorded_chunks(bag, robot))
    wanted = {topic: Counter() for topic in topics.values()}
    for recorded in pending:
        for stream, topic in topics.items():
            if stream in recorded.sources:
                wanted[topic][recorded.sources[stream]] += 1
    samples: dict[str, dict[int, Any]] = {topic: {} for topic in wanted}
    newest = dict.fromkeys(wanted, 0)
    for topic, _, message in bag.messages(wanted, wanted):
        newest[topic] = stamp_ns(message)
        samples[topic][newest[topic]] = message
        while pending and not _outstanding(pending[0], topics, samples, newest):
            recorded = pending.popleft()
            yield recorded, _observe(recorded, robot, cameras, topics, samples, rectifiers)
            for stream, stamp in recorded.sources.items():
                topic = topics.get(stream)
                if topic is not None:
                    wanted[topic][stamp] -= 1
                    if not wanted[topic][stamp]:
                        samples[topic].pop(stamp, None)
    for recorded in pending:
        yield recorded, _observe(recorded, robot, cameras, topics, samples, rectifiers)


def _topics(robot: Robot, cameras: Sequence[str]) -> dict[str, str]:
    """Stream -> the topic that it is recorded from."""
    topics = {camera_stream(name): robot.camera(name).topic for name in cameras}
    for limb in robot.limbs:
        topics[arm_stream(limb.name)] = limb.topics.arm_feedback
        topics[gripper_stream(limb.name)] = limb.topics.gripper_feedback
    return topics


def _outstanding(
    recorded: RecordedChunk, topics: dict[str, str], samples: dict[str, dict[int, Any]], newest: dict[str, int]
) -> bool:
    """Whether a sample may still come: each topic's come in the order of their stamps."""
    return any(
        stamp not in samples[topics[stream]] and stamp > newest[topics[stream]]
        for stream, stamp in recorded.sources.items()
        if stream in topics
    )


def _observe(
    recorded: RecordedChunk,
    robot: Robot,
    cameras: Sequence[str],
    topics: dict[str, str],
    samples: dict[str, dict[int, Any]],
    rectifiers: Mapping[str, Rectifier],
) -> Observation | Refusal:
    chunk, messages = recorded.chunk, {}
    for stream, topic in topics.items():
        message = samples[topic].get(recorded.sources.get(stream, -1))
        if message is None:
            text = f"the bag does not hold the sample of {stream} that chunk {chunk.sequence} was made of"
            return Refusal(Reason.MISSING, text, stream)
        messages[stream] = message
    state = np.empty(robot.size)
    for limb in robot.limbs:
        measured, held = messages[arm_stream(limb.name)], messages[gripper_stream(limb.name)]
        arm = arm_positions(robot, limb, measured.position, measured.name)
        gripper = gripper_opening(robot, limb, held.position, held.name)
        for value in (arm, gripper):
            if isinstance(value, Refusal):
                return value
        state[limb.arm], state[limb.gripper_index] = arm, gripper
    images = {name: decode_jpeg(bytes(messages[camera_stream(name)].data)) for name in cameras}
    images |= {name: rectify(images[name]) for name, rectify in rectifiers.items()}
    return Observation(chunk.stamp_ns, images, state, recorded.instruction)


def _positions(message, robot: Robot) -> np.ndarray:
    """(steps, size) in `Robot` order."""
    arms = [[point.positions for point in getattr(message, f"{limb.name}_arm").points] for limb in robot.limbs]
    counts = [len(points) for points in arms]
    if min(counts) == 0 or min(counts) != max(counts):
        raise ValueError(f"chunk {message.sequence} in the bag has arms of {counts} steps")
    return np.concatenate([np.array(points, dtype=np.float64) for points in arms], axis=1)


def _ns(value) -> int:
    """Of a builtin_interfaces/Time or Duration."""
    return value.sec * 1_000_000_000 + value.nanosec
