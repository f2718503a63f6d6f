"""An episode recorded as a rosbag2 folder, read into plain arrays.

Needs no ROS installation: message definitions come from the bag itself.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depthvla_control.limb_feedback import values_in_order
from depthvla_evaluation.bags.mcap_file import DamageError
from depthvla_evaluation.bags.message_types import MessageTypes
from depthvla_evaluation.bags.storage import METADATA, Connection, Files
from r1lite_description.robot import Robot

# Cameras are matched within this time, so depth predicted for one camera may carry the stamp of another.
PAIR_TOLERANCE_NS = 20_000_000
RECOVER = "depthvla recover"
DEPTH_ENCODINGS = {"32FC1": (np.float32, 1.0), "16UC1": (np.uint16, 0.001)}


@dataclass(frozen=True)
class Topic:
    name: str
    type: str
    count: int


@dataclass(frozen=True)
class JointStream:
    """Joint positions of one topic. Robot units: rad, grippers in mm."""

    stamp_ns: np.ndarray  # (N,) int64, stamps of the messages
    positions: np.ndarray  # (N, J) float64


class Bag:
    """Use as a context manager: `with Bag(path) as bag: ...`.

    Raises:
        FileNotFoundError: there is no bag at `path`.
        ValueError: what is there cannot be read as a bag (never closed, damaged, of an unknown kind); later on, a
            message is damaged or has no definition.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(f"bag {self.path} does not exist")
        if self.path.is_dir() and not (self.path / METADATA).exists():
            raise ValueError(
                f"bag {self.path} has no metadata.yaml: its recorder was killed before it closed the bag; to make it"
                f" whole: {RECOVER} {self.path}"
            )

    def __enter__(self) -> Bag:
        with self._named():
            self._files = Files(self.path)
        self._types = MessageTypes(self._files.distribution)
        for connection in self._files.connections:
            self._types.add(connection.msgtype, connection.encoding, connection.definition)
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    @property
    def topics(self) -> dict[str, Topic]:
        topics: dict[str, Topic] = {}
        for connection in sorted(self._files.connections, key=lambda connection: connection.topic):
            name, msgtype, count = connection.topic, connection.msgtype, connection.count
            if known := topics.get(name):
                msgtype, count = msgtype if known.type == msgtype else "several types", count + known.count
            topics[name] = Topic(name, msgtype, count)
        return topics

    @property
    def remarks(self) -> list[str]:
        """What a reader of this bag should know, a sentence each."""
        remarks = []
        if foreign := sorted(self._types.foreign):
            remarks.append(
                f"bag {self.path} has no definition of {', '.join(foreign)}: its recorder kept none; standard or"
                " installed ones are taken"
            )
        for topic, msgtype, encoding, *_ in self._files.connections:
            if msgtype in self._types.missing - self._types.foreign:
                kept = f" (kept as {encoding!r})" if encoding else ""
                remarks.append(f"bag {self.path}: {topic} is left out{kept}: {self._types.problem(msgtype)}")
        return remarks

    @property
    def start_ns(self) -> int:
        return self._files.start_ns

    @property
    def duration_s(self) -> float:
        """From the first to the last message; 0 for an empty bag."""
        return max(0, self._files.end_ns - self._files.start_ns) / 1e9

    @property
    def size_bytes(self) -> int:
        files = self.path.rglob("*") if self.path.is_dir() else (self.path,)
        return sum(file.stat().st_size for file in files if file.is_file())

    @property
    def custom_data(self) -> dict[str, str]:
        """What the recorder wrote beside the messages."""
        return dict(self._files.metadata.custom)

    def messages(
        self, topics: Iterable[str], stamps_ns: Mapping[str, Container[int]] | None = None
    ) -> Iterator[tuple[str, int, Any]]:
        """Yield (topic, time of reception in ns, message) in order of reception; topics that are not there are empty.

        With `stamps_ns` (topic -> header stamps) only messages with these stamps are looked into.
        """
        for connection, received_ns, data in self.serialised(topics):
            if stamps_ns is None or header_stamp_ns(data) in stamps_ns[connection.topic]:
                yield connection.topic, received_ns, self.deserialise(connection, received_ns, data)

    def stamps(self, topics: Iterable[str]) -> dict[str, np.ndarray]:
        """Header stamps [ns] of topics whose messages start with a header: topic -> (N,) int64, sorted."""
        return self.scan((), topics)[1]

    def read(self, topics: Iterable[str]) -> dict[str, list[tuple[int, Any]]]:
        """All messages of several topics in one pass: topic -> [(time of reception in ns, message)]."""
        return self.scan(topics, ())[0]

    def scan(
        self, topics: Iterable[str], stamped: Iterable[str]
    ) -> tuple[dict[str, list[tuple[int, Any]]], dict[str, np.ndarray]]:
        """`read` of `topics` and `stamps` of others, in one pass over the bag."""
        streams: dict[str, list[tuple[int, Any]]] = {topic: [] for topic in topics}
        stamps: dict[str, list[int]] = {topic: [] for topic in stamped}
        for connection, received_ns, data in self.serialised([*streams, *stamps]):
            if connection.topic in stamps:
                stamps[connection.topic].append(header_stamp_ns(data))
            else:
                message = self.deserialise(connection, received_ns, data)
                streams[connection.topic].append((received_ns, message))
        return streams, {topic: np.sort(np.array(values, dtype=np.int64)) for topic, values in stamps.items()}

    def serialised(self, topics: Iterable[str]) -> Iterator[tuple[Connection, int, bytes]]:
        """Yield (connection with topic and msgtype, time of reception in ns, data) in order of reception.

        Here and in everything else that reads messages, one without the checksum that it was written with is a
        ValueError.
        """
        with self._named():
            yield from self._files.messages(set(topics))

    def check(self) -> None:
        """Look at every message. Raises ValueError where something is damaged."""
        for _ in self.serialised(self.topics):
            pass

    def deserialise(self, connection: Connection, received_ns: int, data: bytes) -> Any:
        """The message of what `serialised` yields."""
        try:
            return self._types.deserialise(data, connection.msgtype)
        except ValueError as error:
            at_s = (received_ns - self.start_ns) * 1e-9
            raise ValueError(f"bag {self.path}: {connection.topic} at {at_s:.1f} s: {error}") from error

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Names the bag in what is wrong with its files, and what can be done."""
        try:
            yield
        except DamageError as error:
            raise ValueError(
                f"bag {self.path} is damaged: {error}; to keep what is whole: {RECOVER} {self.path}"
            ) from error
        except (OSError, ValueError) as error:
            raise ValueError(f"bag {self.path} cannot be read: {error}") from error


def header_stamp_ns(data: bytes) -> int:
    """Stamp of a serialised message that starts with a std_msgs/Header."""
    sec, nanosec = struct.unpack_from("<iI" if data[1] else ">iI", data, 4)
    return sec * 1_000_000_000 + nanosec


def nanoseconds(value: Any) -> int:
    """A builtin_interfaces/Time or Duration."""
    return value.sec * 1_000_000_000 + value.nanosec


def stamp_ns(message: Any) -> int:
    """Stamp of a message with a header."""
    return nanoseconds(message.header.stamp)


def duration_s(value: Any) -> float:
    """A builtin_interfaces/Duration in seconds."""
    return value.sec + value.nanosec * 1e-9


def joint_stream(messages: Iterable[tuple[int, Any]], robot: Robot, where: slice) -> JointStream:
    """Positions of a JointState stream that speaks for the entries `where` of a state vector. Values behind them are
    dropped; messages with fewer, or with names that do not fit (see `limb_feedback.values_in_order`), are left out.
    """
    stamps, positions, size = [], [], where.stop - where.start
    for _, message in messages:
        wanted = robot.joint_names[where.start : where.start + len(message.position)]
        if size <= len(message.position) == len(wanted):
            ordered = values_in_order(robot, wanted, message.position, message.name)
            if not isinstance(ordered, str):
                stamps.append(stamp_ns(message))
                positions.append(ordered[:size])
    return JointStream(np.array(stamps, dtype=np.int64), np.array(positions, dtype=np.float64).reshape(-1, size))


def depth_image(message: Any) -> np.ndarray:
    """A sensor_msgs/Image of depth as (H, W) float32 metres; NaN where 16UC1 has no reading.

    Raises:
        ValueError: the encoding is not one of depth, or the data does not fit the size.
    """
    if message.encoding not in DEPTH_ENCODINGS:
        raise ValueError(f"depth image has encoding {message.encoding!r}; allowed: {', '.join(DEPTH_ENCODINGS)}")
    dtype, scale = DEPTH_ENCODINGS[message.encoding]
    stored = np.dtype(dtype).newbyteorder(">" if message.is_bigendian else "<")
    data = np.frombuffer(message.data, dtype=np.uint8)
    row_bytes = message.width * stored.itemsize
    if message.step < row_bytes or data.size != message.step * message.height:
        raise ValueError(
            f"depth image of {message.width}x{message.height} has step {message.step} and {data.size} bytes of data"
        )
    rows = np.ascontiguousarray(data.reshape(message.height, message.step)[:, :row_bytes])
    depth = rows.view(stored).astype(np.float32)
    if dtype is np.uint16:
        depth = np.where(depth == 0, np.nan, depth * np.float32(scale))
    return depth


def camera_matrix(message: Any) -> np.ndarray:
    """(3, 3) matrix K of a sensor_msgs/CameraInfo."""
    return np.asarray(message.k, dtype=np.float64).reshape(3, 3)
