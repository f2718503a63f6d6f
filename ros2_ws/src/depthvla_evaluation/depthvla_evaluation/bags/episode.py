"""What happened in one recorded episode, as plain arrays: chunks, ticks, changes of mode, joints and progress.

Everything comes from the bag, the robot's description included. `pictures` reads what the cameras saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from depthvla_control.arbiter import Mode
from depthvla_evaluation.bags.bag import Bag, JointStream, camera_matrix, duration_s, joint_stream, stamp_ns
from depthvla_evaluation.bags.notes import Notes, read_notes
from depthvla_evaluation.bags.recorded_graph import (
    EXECUTOR,
    POLICY,
    SIMULATOR,
    info_topic,
    picture_topics,
    recorded_rectifiers,
    recorded_robot,
)
from depthvla_policy.policy.calibration import Rectifier
from r1lite_description.robot import Robot


@dataclass(frozen=True)
class Chunks:
    """Action chunks in order of reception; arrays of shape (N,)."""

    stamp_ns: np.ndarray
    received_ns: np.ndarray
    sequence: np.ndarray
    preprocess_s: np.ndarray
    inference_s: np.ndarray
    total_s: np.ndarray
    instructions: tuple[str, ...]  # distinct, in order of appearance
    model_ids: tuple[str, ...]


@dataclass(frozen=True)
class Ticks:
    """Executor status of every control tick; arrays of shape (N,). Counts are those of the recording: the executor's
    own begin with its activation.
    """

    stamp_ns: np.ndarray
    mode: np.ndarray  # values of arbiter.Mode
    jitter_s: np.ndarray
    steps_left: np.ndarray
    accepted: np.ndarray  # chunks accepted since the recording began
    latency_s: np.ndarray  # of the newest accepted chunk
    commands_sent: int
    ticks: int
    missed: int
    refused: int
    clamped_position: int
    clamped_velocity: int
    last_refusal: str
    fault_causes: tuple[str, ...]


@dataclass(frozen=True)
class Limb:
    arm_measured: JointStream
    arm_commanded: JointStream
    gripper_measured: JointStream
    gripper_commanded: JointStream


@dataclass(frozen=True)
class Progress:
    """Task progress as the simulator or a scorer saw it; arrays of shape (N,)."""

    stamp_ns: np.ndarray
    progress: np.ndarray
    success: np.ndarray
    seed: int
    task: str


@dataclass(frozen=True)
class ModeChange:
    """`intervention`: a person took over from the policy."""

    stamp_ns: int
    mode: Mode
    cause: str
    intervention: bool


@dataclass(frozen=True)
class Episode:
    """start_ns: stamp of the first observation that the policy answered; without a chunk, the first message.

    duration_s: from there to the last message. recorded_s: from the first to the last message.
    """

    robot: Robot
    start_ns: int
    duration_s: float
    recorded_s: float
    chunks: Chunks
    ticks: Ticks
    limbs: dict[str, Limb]
    progress: Progress
    mode_changes: tuple[ModeChange, ...]  # while it was recorded
    policy_reasons: tuple[str, ...]  # why there was no chunk after the first one, as often as the policy said so
    picture_stamps: dict[str, np.ndarray]  # topic of images or depth -> (N,) stamps [ns], sorted
    camera_matrices: dict[str, np.ndarray]  # topic of images or depth -> (3, 3), as far as they were recorded
    rectifiers: dict[str, Rectifier | None]  # as of `recorded_rectifiers`; matrices are those of rectified images
    notes: Notes

    def seconds(self, stamps_ns: np.ndarray) -> np.ndarray:
        """Times since `start_ns`."""
        return (np.asarray(stamps_ns, dtype=np.int64) - self.start_ns) * 1e-9

    @property
    def chunk_latency_s(self) -> np.ndarray:
        """(N,) arrival at the executor - observation stamp, of every accepted chunk that a tick tells of."""
        fresh = np.diff(self.ticks.accepted, prepend=0) > 0
        return self.ticks.latency_s[fresh]


def read_episode(bag: Bag) -> Episode:
    """Read all but the pictures, in one pass.

    Raises:
        ValueError: the bag is empty, or its metadata cannot be read.
    """
    if not any(topic.count for topic in bag.topics.values()):
        raise ValueError(f"bag {bag.path} holds no messages")
    try:
        robot, notes = recorded_robot(bag), read_notes(bag.custom_data)
    except ValueError as error:
        raise ValueError(f"bag {bag.path} has metadata that cannot be read: {error}") from error
    names = [f"{POLICY}/action_chunk", f"{POLICY}/status", f"{EXECUTOR}/status", f"{EXECUTOR}/mode"]
    names += [f"{SIMULATOR}/task_progress", *(t for limb in robot.limbs for t in vars(limb.topics).values())]
    infos = _info_topics(robot)
    streams, stamps = bag.scan([*names, *infos], infos.values())
    chunks = _chunks(streams[f"{POLICY}/action_chunk"])
    matrices = {image: camera_matrix(streams[info][0][1]) for info, image in infos.items() if streams[info]}
    rectified = recorded_rectifiers(bag, robot)
    for topic, rectifier in rectified.items():
        matrices.pop(topic, None)
        matrices |= {topic: rectifier.calibration.rectified_k} if rectifier else {}
    start_ns = int(chunks.stamp_ns[0]) if chunks.stamp_ns.size else bag.start_ns
    return Episode(
        robot=robot,
        start_ns=start_ns,
        duration_s=bag.duration_s - (start_ns - bag.start_ns) * 1e-9,
        recorded_s=bag.duration_s,
        chunks=chunks,
        ticks=_ticks(streams[f"{EXECUTOR}/status"]),
        limbs={
            limb.name: Limb(
                arm_measured=joint_stream(streams[limb.topics.arm_feedback], robot, limb.arm),
                arm_commanded=joint_stream(streams[limb.topics.arm_command], robot, limb.arm),
                gripper_measured=joint_stream(streams[limb.topics.gripper_feedback], robot, limb.opening),
                gripper_commanded=joint_stream(streams[limb.topics.gripper_command], robot, limb.opening),
            )
            for limb in robot.limbs
        },
        progress=_progress(streams[f"{SIMULATOR}/task_progress"]),
        mode_changes=_mode_changes(streams[f"{EXECUTOR}/mode"], bag.start_ns),
        policy_reasons=tuple(m.reason for _, m in streams[f"{POLICY}/status"] if m.reason and stamp_ns(m) >= start_ns),
        picture_stamps=stamps,
        camera_matrices=matrices,
        rectifiers=rectified,
        notes=notes,
    )


def _chunks(messages: list) -> Chunks:
    array = partial(_array, messages)
    return Chunks(
        stamp_ns=array(stamp_ns, np.int64),
        received_ns=np.array([received_ns for received_ns, _ in messages], dtype=np.int64),
        sequence=array(lambda m: m.sequence, np.int64),
        preprocess_s=array(lambda m: duration_s(m.preprocess_time)),
        inference_s=array(lambda m: duration_s(m.inference_time)),
        total_s=array(lambda m: duration_s(m.total_time)),
        instructions=_distinct(m.instruction for _, m in messages),
        model_ids=_distinct(m.model_id for _, m in messages),
    )


def _ticks(messages: list) -> Ticks:
    array = partial(_array, messages)

    def counted(name: str) -> np.ndarray:
        counts = array(lambda m: getattr(m, name), np.int64)
        # The first status of an activation has counted in the recording, another one before it too.
        begun = counts[:1] * (messages[0][1].ticks <= 1 if messages else 1)
        steps = np.diff(counts, prepend=counts[:1])
        return begun + np.cumsum(np.where(steps < 0, counts, steps))  # a count that fell has begun anew

    def total(name: str) -> int:
        return int(counted(name)[-1]) if messages else 0

    last = messages[-1][1] if messages else None
    return Ticks(
        stamp_ns=array(stamp_ns, np.int64),
        mode=array(lambda m: m.mode, np.int64),
        jitter_s=array(lambda m: duration_s(m.jitter)),
        steps_left=array(lambda m: m.steps_left, np.int64),
        accepted=counted("chunks_accepted"),
        latency_s=array(lambda m: duration_s(m.latency)),
        commands_sent=total("commands_sent"),
        ticks=total("ticks"),
        missed=total("missed_ticks"),
        refused=total("chunks_refused"),
        clamped_position=total("clamped_position"),
        clamped_velocity=total("clamped_velocity"),
        last_refusal=last.last_refusal if last else "",
        fault_causes=_distinct(m.cause for _, m in messages if m.mode == Mode.FAULT),
    )


def _progress(messages: list) -> Progress:
    return Progress(
        stamp_ns=_array(messages, stamp_ns, np.int64),
        progress=_array(messages, lambda m: m.progress),
        success=_array(messages, lambda m: m.success, bool),
        seed=messages[-1][1].seed if messages else -1,
        task=messages[-1][1].task if messages else "",
    )


def _mode_changes(messages: list, start_ns: int) -> tuple[ModeChange, ...]:
    """The first message is latched: what it tells of may have been long before the recording."""
    return tuple(
        ModeChange(stamp_ns(m), Mode(m.mode), m.cause, m.intervention) for _, m in messages if stamp_ns(m) >= start_ns
    )


def _info_topics(robot: Robot) -> dict[str, str]:
    """Topic of camera matrices -> topic of the pictures that they belong to."""
    topics = {}
    for camera in robot.cameras:
        image, predicted, true = picture_topics(camera)
        topics |= {camera.camera_info: image, info_topic(predicted): predicted, info_topic(true): true}
    return topics


def _array(messages: list, get: Callable[[Any], Any], dtype: type = np.float64) -> np.ndarray:
    return np.array([get(message) for _, message in messages], dtype=dtype)


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
