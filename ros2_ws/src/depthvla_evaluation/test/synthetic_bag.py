"""Writes bags message by message, so that a test knows every number that is in them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from rosbags.typesys import Stores, get_typestore

from depthvla_evaluation.bags.bag_writer import BagWriter
from depthvla_evaluation.bags.message_types import installed_definition, register_type
from r1lite_description import robot as robot_description


class SyntheticBag:
    """Use as a context manager. Times are seconds since the start of the bag."""

    START_NS = 1_700_000_000_000_000_000

    def __init__(self, path: Path, custom_data: dict[str, str] | None = None) -> None:
        self.robot = robot_description.load()
        self._writer = BagWriter(path)
        self._custom_data = custom_data or {}
        self._store = get_typestore(Stores.ROS2_JAZZY)
        for name in ("ActionChunk", "Counter", "ExecutorStatus", "ModeChange", "Plan", "PolicyStatus", "TaskProgress"):
            register_type(self._store, f"depthvla_msgs/msg/{name}", installed_definition)
        self._topics: set[str] = set()

    def __enter__(self) -> SyntheticBag:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close(self._custom_data)

    def ns(self, time_s: float) -> int:
        return self.START_NS + round(time_s * 1e9)

    def make(self, msgtype: str, **fields):
        return self._store.types[msgtype](**fields)

    def add(self, topic: str, received_s: float, message) -> None:
        msgtype = message.__msgtype__
        if topic not in self._topics:
            self._topics.add(topic)
            self._writer.add_topic(topic, msgtype)
        data = bytes(self._store.serialize_cdr(message, msgtype))
        self._writer.write(topic, self.ns(received_s), data)

    def header(self, stamp_s: float, frame_id: str = ""):
        sec, nanosec = divmod(self.ns(stamp_s), 1_000_000_000)
        stamp = self.make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
        return self.make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)

    def duration(self, seconds: float):
        sec, nanosec = divmod(round(seconds * 1e9), 1_000_000_000)
        return self.make("builtin_interfaces/msg/Duration", sec=sec, nanosec=nanosec)

    def chunk(self, stamp_s: float, received_s: float, sequence: int, *, inference_s: float = 0.04) -> None:
        empty = self.make("trajectory_msgs/msg/JointTrajectory", header=self.header(stamp_s), joint_names=[], points=[])
        message = self.make(
            "depthvla_msgs/msg/ActionChunk",
            header=self.header(stamp_s),
            sequence=sequence,
            instruction="lift the red block",
            model_id="tiny@0123456789ab",
            step_duration=self.duration(1 / 15),
            horizon=0,
            sources=[],
            left_arm=empty,
            right_arm=empty,
            preprocess_time=self.duration(0.002),
            inference_time=self.duration(inference_s),
            total_time=self.duration(inference_s + 0.003),
        )
        self.add("/policy_node/action_chunk", received_s, message)

    def tick(self, stamp_s: float, *, mode: int = 3, jitter_s: float = 0.001, latency_s: float = 0.0, **counts) -> None:
        values = {
            "sequence": 0,
            "step": 0,
            "steps_left": 0,
            "commands_sent": 0,
            "ticks": 0,
            "missed_ticks": 0,
            "chunks_accepted": 0,
            "chunks_refused": 0,
            "last_refusal": "",
            "clamped_position": 0,
            "clamped_velocity": 0,
            "armed_model": "",
            "refusals": [],
            "interventions": 0,
            "shadow_error_rad": float("nan"),
            "cause": "",
        }
        message = self.make(
            "depthvla_msgs/msg/ExecutorStatus",
            header=self.header(stamp_s),
            mode=mode,
            chunk_age=self.duration(0.1),
            latency=self.duration(latency_s),
            jitter=self.duration(jitter_s),
            **{**values, **counts},
        )
        self.add("/chunk_executor_node/status", stamp_s, message)

    def mode_change(
        self, stamp_s: float, mode: int, previous: int, *, intervention: bool = False, received_s: float | None = None
    ) -> None:
        message = self.make(
            "depthvla_msgs/msg/ModeChange",
            header=self.header(stamp_s),
            mode=mode,
            previous=previous,
            cause="the leader arms were taken",
            intervention=intervention,
        )
        self.add("/chunk_executor_node/mode", stamp_s if received_s is None else received_s, message)

    def progress(self, stamp_s: float, progress: float, *, success: bool = False) -> None:
        message = self.make(
            "depthvla_msgs/msg/TaskProgress",
            header=self.header(stamp_s),
            task="lift",
            instruction="lift the red block",
            seed=7,
            progress=progress,
            success=success,
            done=[],
        )
        self.add("/simulator_node/task_progress", stamp_s, message)

    def joints(self, topic: str, stamp_s: float, positions) -> None:
        message = self.make(
            "sensor_msgs/msg/JointState",
            header=self.header(stamp_s),
            name=[],
            position=np.asarray(positions, dtype=np.float64),
            velocity=np.array([]),
            effort=np.array([]),
        )
        self.add(topic, stamp_s, message)

    def image(self, camera: str, stamp_s: float, rgb: np.ndarray, *, lost: int = 0) -> None:
        """lost: bytes of the JPEG that are missing in the middle of its pixels."""
        _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
        data = data.ravel()
        if lost:
            begin = (data.tobytes().index(b"\xff\xda") + 14 + len(data)) // 2
            data = np.delete(data, range(begin, begin + lost))
        message = self.make("sensor_msgs/msg/CompressedImage", header=self.header(stamp_s), format="jpeg", data=data)
        self.add(self.robot.camera(camera).topic, stamp_s, message)

    def camera_info(self, topic: str, stamp_s: float, k: np.ndarray, width: int, height: int, d=(0.0,) * 5) -> None:
        roi = self.make("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
        message = self.make(
            "sensor_msgs/msg/CameraInfo",
            header=self.header(stamp_s),
            height=height,
            width=width,
            distortion_model="plumb_bob",
            d=np.asarray(d, dtype=np.float64),
            k=np.asarray(k, dtype=np.float64).ravel(),
            r=np.eye(3).ravel(),
            p=np.hstack([k, np.zeros((3, 1))]).ravel(),
            binning_x=0,
            binning_y=0,
            roi=roi,
        )
        self.add(topic, stamp_s, message)

    def depth(self, topic: str, stamp_s: float, depth_m: np.ndarray, *, received_s: float | None = None) -> None:
        height, width = depth_m.shape
        message = self.make(
            "sensor_msgs/msg/Image",
            header=self.header(stamp_s),
            height=height,
            width=width,
            encoding="32FC1",
            is_bigendian=0,
            step=4 * width,
            data=np.frombuffer(depth_m.astype("<f4").tobytes(), dtype=np.uint8),
        )
        self.add(topic, stamp_s if received_s is None else received_s, message)
