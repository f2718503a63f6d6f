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
from depthvla_evaluation.bags.bag import Bag, nanoseconds, stamp_ns
from depthvla_evaluation.bags.recorded_graph import EXECUTOR, POLICY, recorded_calibrations
from depthvla_policy.policy.calibration import Rectifier
from depthvla_policy.policy.camera_images import camera_image
from depthvla_policy.policy.observation import Observation
from depthvla_policy.policy.observation_buffer import camera_stream
from r1lite_description.robot import Robot


@dataclass(frozen=True)
class RecordedChunk:
    chunk: Chunk
    instruction: str
    sources: dict[str, int]  # stream -> stamp [ns] of the sample that the observation was made of


def recorded_chunks(bag: Bag, robot: Robot) -> list[RecordedChunk]:
    """The chunks in order of reception. Raises ValueError for one whose arms have no or different numbers of steps."""
    chunks = []
    for _, _, message in bag.messages([f"{POLICY}/action_chunk"]):
        period_ns, positions = nanoseconds(message.step_duration), _positions(message, robot)
        chunk = Chunk(stamp_ns(message), message.sequence, period_ns, positions, message.model_id)
        sources = {source.stream: nanoseconds(source.stamp) for source in getattr(message, "sources", ())}
        chunks.append(RecordedChunk(chunk, message.instruction, sources))
    return chunks


def recorded_plans(bag: Bag, robot: Robot) -> list[tuple[int, Plan | None]]:
    """What the executor was going to do, with the time of reception [ns]; None from when it was nothing."""
    plans: list[tuple[int, Plan | None]] = []
    for _, time_ns, message in bag.messages([f"{EXECUTOR}/plan"]):
        plan = None
        if getattr(message, f"{robot.limbs[0].name}_arm").points:
            times = nanoseconds(message.step_duration), nanoseconds(message.latency)
            plan = Plan(stamp_ns(message), message.sequence, *times, _positions(message, robot))
        plans.append((time_ns, plan))
    return plans


def observations(
    bag: Bag, robot: Robot, cameras: Sequence[str]
) -> Iterator[tuple[RecordedChunk, Observation | Refusal]]:
    """For every recorded chunk the observation that it was predicted from, or why the bag does not hold it.

    Samples are in memory until the chunks made of them were given.

    Raises:
        FileNotFoundError: a calibration file of the recorded policy is not there.
        ValueError: a camera is unknown or cannot be rectified as it was; a chunk or an image cannot be read.
    """
    topics = _topics(robot, cameras)
    rectifiers = {name: Rectifier(known) for name, known in recorded_calibrations(bag, robot, cameras).items()}
    chunks = recorded_chunks(bag, robot)
    wanted: dict[str, set[int]] = {topic: set() for topic in topics.values()}
    for recorded in chunks:
        for stream in topics.keys() & recorded.sources.keys():
            wanted[topics[stream]].add(recorded.sources[stream])
    samples: dict[tuple[str, int], Any] = {}
    waiting = deque(
        {stream: (topic, chunk.sources.get(stream)) for stream, topic in topics.items()} for chunk in chunks
    )
    uses = Counter(key for keys in waiting for key in keys.values())
    remaining = iter(chunks)

    def observe_next() -> tuple[RecordedChunk, Observation | Refusal]:
        keys = waiting.popleft()
        messages = {stream: samples.get(key) for stream, key in keys.items()}
        uses.subtract(keys.values())
        for key in keys.values():
            if not uses[key]:
                samples.pop(key, None)
        recorded = next(remaining)
        return recorded, _observe(recorded, robot, cameras, messages, rectifiers)

    for topic, _, message in bag.messages(wanted, wanted):
        samples[topic, stamp_ns(message)] = message
        while waiting and samples.keys() >= set(waiting[0].values()):
            yield observe_next()
    while waiting:
        yield observe_next()


def _topics(robot: Robot, cameras: Sequence[str]) -> dict[str, str]:
    """Stream -> the topic that it is recorded from."""
    topics = {camera_stream(name): robot.camera(name).topic for name in cameras}
    for limb in robot.limbs:
        topics[arm_stream(limb.name)] = limb.topics.arm_feedback
        topics[gripper_stream(limb.name)] = limb.topics.gripper_feedback
    return topics


def _observe(
    recorded: RecordedChunk,
    robot: Robot,
    cameras: Sequence[str],
    messages: Mapping[str, Any],
    rectifiers: Mapping[str, Rectifier],
) -> Observation | Refusal:
    chunk = recorded.chunk
    for stream, message in messages.items():
        if message is None:
            text = f"the bag does not hold the sample of {stream} that chunk {chunk.sequence} was made of"
            return Refusal(Reason.MISSING, text, stream)
    state = np.empty(robot.size)
    for limb in robot.limbs:
        measured, held = messages[arm_stream(limb.name)], messages[gripper_stream(limb.name)]
        arm = arm_positions(robot, limb, measured.position, measured.name)
        gripper = gripper_opening(robot, limb, held.position, held.name)
        for value in (arm, gripper):
            if isinstance(value, Refusal):
                return value
        state[limb.arm], state[limb.gripper_index] = arm, gripper
    images = {name: camera_image(messages[camera_stream(name)], rectifiers.get(name)) for name in cameras}
    return Observation(chunk.stamp_ns, images, state, recorded.instruction)


def _positions(message, robot: Robot) -> np.ndarray:
    """(steps, size) in `Robot` order."""
    arms = [[point.positions for point in getattr(message, f"{limb.name}_arm").points] for limb in robot.limbs]
    counts = [len(points) for points in arms]
    if min(counts) == 0 or min(counts) != max(counts):
        raise ValueError(f"chunk {message.sequence} in the bag has arms of {counts} steps")
    return np.concatenate([np.array(points, dtype=np.float64) for points in arms], axis=1)
