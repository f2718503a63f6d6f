"""What happened in one recorded episode, as plain arrays: chunks, ticks, joints, progress and depth errors.

Everything comes from the bag, the robot's description included. Pictures are read on demand by `read_views`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depthvla_policy import robot as robot_description
from depthvla_policy.control.arbiter import Mode
from depthvla_policy.evaluation.bag import (
    PAIR_TOLERANCE_NS,
    Bag,
    JointStream,
    camera_matrix,
    depth_image,
    duration_s,
    joint_stream,
    stamp_ns,
)
from depthvla_policy.evaluation.metrics import DepthErrors, depth_errors, resample
from depthvla_policy.policy.images import decode_jpeg
from depthvla_policy.robot import Camera, Robot

POLICY = "/policy_node"
EXECUTOR = "/chunk_executor_node"
SIMULATOR = "/simulator_node"


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
    """Executor status of every control tick; arrays of shape (N,)."""

    stamp_ns: np.ndarray
    mode: np.ndarray  # values of control.arbiter.Mode
    jitter_s: np.ndarray
    steps_left: np.ndarray
    accepted: np.ndarray  # chunks accepted so far
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


@dataclass(frozen=True)
class DepthFrame:
    camera: str
    stamp_ns: int
    errors: DepthErrors


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
    depth: tuple[DepthFrame, ...]
    policy_reasons: tuple[str, ...]  # why there was no chunk after the first one, as often as the policy said so
    custom_data: dict[str, str]

    def seconds(self, stamps_ns: np.ndarray) -> np.ndarray:
        """Times since `start_ns`."""
        return (np.asarray(stamps_ns, dtype=np.int64) - self.start_ns) * 1e-9

    @property
    def chunk_latency_s(self) -> np.ndarray:
        """(N,) arrival at the executor - observation stamp, of every accepted chunk that a tick tells of."""
        fresh = np.diff(self.ticks.accepted, prepend=0) > 0
        return self.ticks.latency_s[fresh]


@dataclass(frozen=True)
class View:
    """What a camera showed at one moment, depth in the geometry of the prediction; None where nothing was recorded."""

    camera: str
    stamp_ns: int
    image: np.ndarray | None  # (H, W, 3) uint8 RGB, the whole camera image
    fitted: np.ndarray | None  # (h, w, 3) uint8 RGB, the part of it that the depth covers
    predicted_m: np.ndarray | None  # (h, w) float32
    true_m: np.ndarray | None  # (h, w) float32


def read_episode(bag: Bag) -> Episode:
    """Read all but the pictures.

    Raises:
        ValueError: the bag is empty.
    """
    if not any(topic.count for topic in bag.topics.values()):
        raise ValueError(f"bag {bag.path} holds no messages")
    robot = recorded_robot(bag)
    names = [f"{POLICY}/action_chunk", f"{POLICY}/status", f"{EXECUTOR}/status", f"{SIMULATOR}/task_progress"]
    names += [topic for limb in robot.limbs for topic in vars(limb.topics).values()]
    streams = bag.read(names)
    chunks = _chunks(streams[f"{POLICY}/action_chunk"])
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
                arm_measured=joint_stream(streams[limb.topics.arm_feedback], len(limb.joints)),
                arm_commanded=joint_stream(streams[limb.topics.arm_command], len(limb.joints)),
                gripper_measured=joint_stream(streams[limb.topics.gripper_feedback], 1),
                gripper_commanded=joint_stream(streams[limb.topics.gripper_command], 1),
            )
            for limb in robot.limbs
        },
        progress=_progress(streams[f"{SIMULATOR}/task_progress"]),
        depth=_depth_frames(bag, robot),
        policy_reasons=tuple(m.reason for _, m in streams[f"{POLICY}/status"] if m.reason and stamp_ns(m) >= start_ns),
        custom_data=bag.custom_data,
    )


def recorded_robot(bag: Bag) -> Robot:
    """The description that the recorder put into the bag; the default one where it put none."""
    text = bag.custom_data.get("robot")
    if text is None:
        return robot_description.load()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "robot.yaml"
        path.write_text(text)
        return robot_description.load(path)


def read_views(bag: Bag, robot: Robot, times_ns: Sequence[int]) -> list[list[View]]:
    """One list of views (a view a camera) for each time: the predicted depth nearest to it with what belongs to it.

    Where a camera has no predicted depth, its image nearest to the time stands alone.
    """
    infos = _camera_infos(bag, robot)
    stamps = bag.stamps(topic for camera in robot.cameras for topic in _picture_topics(camera))
    moments = [_nearest_stamps(robot, stamps, time_ns) for time_ns in times_ns]
    wanted: dict[str, set[int]] = {}
    for moment in moments:
        for topic, stamp in moment.items():
            wanted.setdefault(topic, set()).add(stamp)
    messages = {(topic, stamp_ns(message)): message for topic, _, message in bag.messages(wanted, wanted)}
    return [
        [
            _view(camera, {t: messages[t, moment[t]] for t in _picture_topics(camera) if t in moment}, infos)
            for camera in robot.cameras
        ]
        for moment in moments
    ]


def machine(custom_data: dict[str, str]) -> dict:
    """The machine that recorded, as the recorder described it; empty when it did not."""
    return json.loads(custom_data.get("machine", "{}"))


def predicted_topic(camera: str) -> str:
    return f"{POLICY}/depth/{camera}/image"


def true_topic(camera: str) -> str:
    return f"{SIMULATOR}/depth/{camera}/image"


def info_topic(image_topic: str) -> str:
    return image_topic.rsplit("/", 1)[0] + "/camera_info"


def _chunks(messages: list) -> Chunks:
    def array(get, dtype=np.float64) -> np.ndarray:
        return np.array([get(message) for _, message in messages], dtype=dtype)

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
    def array(get, dtype=np.float64) -> np.ndarray:
        return np.array([get(message) for _, message in messages], dtype=dtype)

    last = messages[-1][1] if messages else None
    return Ticks(
        stamp_ns=array(stamp_ns, np.int64),
        mode=array(lambda m: m.mode, np.int64),
        jitter_s=array(lambda m: duration_s(m.jitter)),
        steps_left=array(lambda m: m.steps_left, np.int64),
        accepted=array(lambda m: m.chunks_accepted, np.int64),
        latency_s=array(lambda m: duration_s(m.latency)),
        commands_sent=last.commands_sent if last else 0,
        ticks=last.ticks if last else 0,
        missed=last.missed_ticks if last else 0,
        refused=last.chunks_refused if last else 0,
        clamped_position=last.clamped_position if last else 0,
        clamped_velocity=last.clamped_velocity if last else 0,
        last_refusal=last.last_refusal if last else "",
        fault_causes=_distinct(m.cause for _, m in messages if m.mode == Mode.FAULT),
    )


def _progress(messages: list) -> Progress:
    return Progress(
        stamp_ns=np.array([stamp_ns(m) for _, m in messages], dtype=np.int64),
        progress=np.array([m.progress for _, m in messages], dtype=np.float64),
        success=np.array([m.success for _, m in messages], dtype=bool),
        seed=messages[-1][1].seed if messages else -1,
    )


def _depth_frames(bag: Bag, robot: Robot) -> tuple[DepthFrame, ...]:
    """Errors of every predicted depth image whose true one is in the bag, in order of stamps."""
    infos = _camera_infos(bag, robot)
    cameras = {}
    for camera in robot.cameras:
        predicted, true = predicted_topic(camera.name), true_topic(camera.name)
        if predicted in infos and true in infos:
            cameras[predicted] = cameras[true] = camera.name
    stamps = bag.stamps(cameras)
    wanted: dict[str, dict[int, tuple[str, int]]] = {topic: {} for topic in cameras}  # stamp -> pair
    for camera in set(cameras.values()):
        for stamp in stamps[predicted_topic(camera)].tolist():
            nearest = _nearest(stamps[true_topic(camera)], stamp, PAIR_TOLERANCE_NS)
            if nearest is not None:
                wanted[predicted_topic(camera)][stamp] = wanted[true_topic(camera)][nearest] = (camera, stamp)
    frames = []
    halves: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for topic, _, message in bag.messages(wanted, wanted):
        camera, stamp = key = wanted[topic][stamp_ns(message)]
        pair = halves.setdefault(key, {})
        pair[topic] = depth_image(message)
        if len(pair) == 2:
            predicted, true = pair[predicted_topic(camera)], pair[true_topic(camera)]
            fitted = resample(true, infos[true_topic(camera)], infos[predicted_topic(camera)], predicted.shape)
            errors = depth_errors(predicted, fitted)
            if errors is not None:
                frames.append(DepthFrame(camera, stamp, errors))
            del halves[key]
    return tuple(sorted(frames, key=lambda frame: frame.stamp_ns))


def _camera_infos(bag: Bag, robot: Robot) -> dict[str, np.ndarray]:
    """Image topic -> camera matrix (3, 3), for the cameras and both kinds of depth, as far as they were recorded."""
    image_topics = {}
    for camera in robot.cameras:
        image_topics[camera.camera_info] = camera.topic
        for topic in (predicted_topic(camera.name), true_topic(camera.name)):
            image_topics[info_topic(topic)] = topic
    infos: dict[str, np.ndarray] = {}
    for topic, _, message in bag.messages(image_topics):
        infos.setdefault(image_topics[topic], camera_matrix(message))
    return infos


def _picture_topics(camera: Camera) -> tuple[str, str, str]:
    return camera.topic, predicted_topic(camera.name), true_topic(camera.name)


def _nearest_stamps(robot: Robot, stamps: dict[str, np.ndarray], time_ns: int) -> dict[str, int]:
    """Topic -> stamp of what belongs to a time: the nearest prediction, with the image and the truth of its stamp."""
    moment: dict[str, int | None] = {}
    for camera in robot.cameras:
        image, predicted, true = _picture_topics(camera)
        moment[predicted] = _nearest(stamps[predicted], time_ns)
        if moment[predicted] is not None:
            moment[true] = _nearest(stamps[true], moment[predicted], PAIR_TOLERANCE_NS)
        moment[image] = _nearest(stamps[image], time_ns if moment[predicted] is None else moment[predicted])
    return {topic: stamp for topic, stamp in moment.items() if stamp is not None}


def _nearest(stamps_ns: np.ndarray, time_ns: int, tolerance_ns: int | None = None) -> int | None:
    if not stamps_ns.size:
        return None
    nearest = int(stamps_ns[np.argmin(np.abs(stamps_ns - time_ns))])
    return nearest if tolerance_ns is None or abs(nearest - time_ns) <= tolerance_ns else None


def _view(camera: Camera, messages: dict[str, Any], infos: dict[str, np.ndarray]) -> View:
    image_topic, predicted_name, true_name = _picture_topics(camera)
    image = decode_jpeg(messages[image_topic].data) if image_topic in messages else None
    predicted = depth_image(messages[predicted_name]) if predicted_name in messages else None
    fitted = true = None
    if predicted is not None and predicted_name in infos:
        if image is not None and image_topic in infos:
            fitted = _fit_picture(image, infos[image_topic], infos[predicted_name], predicted.shape)
        if true_name in messages and true_name in infos:
            true = resample(depth_image(messages[true_name]), infos[true_name], infos[predicted_name], predicted.shape)
    stamp = stamp_ns(messages[predicted_name if predicted is not None else image_topic]) if messages else 0
    return View(camera.name, stamp, image, fitted, predicted, true)


def _fit_picture(
    image: np.ndarray, camera_matrix: np.ndarray, target: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """The part of an image that a smaller depth image covers, at about the image's own resolution."""
    scale = max(1, round(camera_matrix[0, 0] / target[0, 0]))
    finer = target.copy()
    finer[:2, :2] *= scale
    finer[:2, 2] = (target[:2, 2] + 0.5) * scale - 0.5
    channels = [
        resample(image[..., channel], camera_matrix, finer, (shape[0] * scale, shape[1] * scale))
        for channel in range(3)
    ]
    return np.nan_to_num(np.stack(channels, axis=-1)).astype(np.uint8)


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
