"""The files of the one episode that is being written: rows in parquet, frames in H.264, statistics of both."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from depthvla_policy.data import feature_stats, features
from depthvla_policy.policy.images import decode_depth_mm, decode_jpeg
from r1lite_description.robot import Robot

# Few enough that one frame of a shuffled epoch does not read an episode, enough that a file's index stays small.
ROWS_PER_GROUP = 16
SAMPLE_EVERY = 15  # frames between two whose pictures are looked at for statistics
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # an `Image` of Hugging Face datasets
VIDEO_CODEC, PIXEL_FORMAT = "libx264", "yuv420p"
# Every other frame is a key frame, as in LeRobot: any frame is at most one decode away.
VIDEO_OPTIONS = {"crf": "18", "g": "2", "preset": "veryfast", "tune": "fastdecode"}
DATA = "data"
# What every dataset has, in LeRobot's words; numbers of one value are stored without a list.
INDICES = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64"}
INDICES |= {"task_index": "int64"}


@dataclass(frozen=True)
class Frame:
    """What was seen and done at one moment.

    images: camera -> JPEG or PNG bytes, as they came. depth: camera -> 16-bit PNG, millimetres along the optical axis,
    0 where unknown. state, action: (size,) robot units; an action that nobody knows is all NaN. target_m: (3,).
    """

    images: Mapping[str, bytes]
    state: np.ndarray
    action: np.ndarray
    depth: Mapping[str, bytes] = field(default_factory=dict)
    target_m: np.ndarray | None = None
    intervention: bool | None = None


class EpisodeFile:
    """`features` describes the rows as in info.json, from the first frame on; `length` counts them. `episode`,
    `first_index` and `task` number the episode, its first frame and its instruction in the dataset.
    """

    def __init__(
        self, folder: Path, robot: Robot, fps: int, *, episode: int, first_index: int, task: int, as_video: bool
    ) -> None:
        self._folder, self._robot, self._fps, self._as_video = folder, robot, fps, as_video
        self._episode, self._first_index, self._task = episode, first_index, task
        self.features: dict[str, dict[str, Any]] = {}
        self.length = 0
        self._rows: dict[str, list] = {}  # of the row group that is being filled
        self._numbers: dict[str, list[np.ndarray]] = {}  # of the whole episode
        self._pictures: dict[str, list[np.ndarray]] = {}  # sampled
        self._videos: dict[str, VideoWriter] = {}
        self._writer: pq.ParquetWriter | None = None

    def path(self, name: str) -> Path:
        """Of `DATA`, or of a feature that is a video."""
        return self._folder / (f"{name}.parquet" if name == DATA else f"{name}.mp4")

    def add(self, frame: Frame) -> None:
        """Raises ValueError for a frame unlike the first one, not finite, or with a damaged picture."""
        numbers, encoded = self._number_values(frame), self._encoded_pictures(frame)
        sampled = self.length % SAMPLE_EVERY == 0
        decoded = {key: _decode(key, data) for key, data in encoded.items()}  # all: a damaged one is not kept
        if not self.features:
            self._describe(numbers, decoded)
        names = {*numbers, *encoded}
        if names != set(self.features):
            raise ValueError(f"the frame has {sorted(names)}; the first one had {sorted(self.features)}")
        for key, picture in decoded.items():
            if list(picture.shape) != self.features[key]["shape"]:
                raise ValueError(f"{key} has shape {picture.shape}; the first one had {self.features[key]['shape']}")
            if sampled:
                self._pictures.setdefault(key, []).append(picture)
            if key in self._videos:
                self._videos[key].add(picture)
        for key, value in numbers.items():
            self._numbers.setdefault(key, []).append(value)
            self._rows.setdefault(key, []).append(value.tolist() if value.size > 1 else value.item())
        for key, data in encoded.items():
            if key not in self._videos:
                self._rows.setdefault(key, []).append({"bytes": data, "path": None})
        self.length += 1
        if self.length % ROWS_PER_GROUP == 0:
            self._flush()

    def close(self) -> dict[str, feature_stats.Stats]:
        """Finish the files; statistics of every feature."""
        self._flush()
        self._writer.close()
        for writer in self._videos.values():
            writer.close()
        stats = {key: feature_stats.of_numbers(np.stack(values)) for key, values in self._numbers.items()}
        stats |= {key: feature_stats.of_pictures(some, self.length) for key, some in self._pictures.items()}
        return stats

    def abort(self) -> None:
        """Let go of the files, whole or not."""
        for file in filter(None, (self._writer, *self._videos.values())):
            with suppress(Exception):  # it is thrown away
                file.close()

    def _describe(self, numbers: Mapping[str, np.ndarray], pictures: Mapping[str, np.ndarray]) -> None:
        parts = (*features.state_parts(self._robot), *features.action_parts(self._robot))
        names = {part.feature: list(part.names) for part in parts} | {features.TARGET: ["x", "y", "z"]}
        described: dict[str, dict[str, Any]] = {}
        for key, value in numbers.items():
            described[key] = {"dtype": str(value.dtype), "shape": [value.size], "names": names.get(key)}
        for key, picture in pictures.items():
            height, width, channels = picture.shape
            kind, info = "image", {"is_depth_map": False}
            if channels == 1:
                info = {"is_depth_map": True, "depth_unit": "mm"}
            elif self._as_video:
                kind, info = "video", _video_info(self._fps, width, height)
                self._videos[key] = VideoWriter(self.path(key), self._fps, width, height)
            axes = ["height", "width", "channels"]
            described[key] = {"dtype": kind, "shape": [height, width, channels], "names": axes, "info": info}
        self.features = described
        columns = [(key, _arrow_type(item)) for key, item in described.items() if item["dtype"] != "video"]
        self._writer = pq.ParquetWriter(
            self.path(DATA), pa.schema(columns), compression="NONE", use_dictionary=False, write_statistics=False
        )

    def _flush(self) -> None:
        if self._rows:
            columns = {item.name: pa.array(self._rows[item.name], item.type) for item in self._writer.schema}
            self._writer.write_table(pa.table(columns), row_group_size=ROWS_PER_GROUP)
            self._rows = {}

    def _number_values(self, frame: Frame) -> dict[str, np.ndarray]:
        values: dict[str, np.ndarray] = {}
        for vector, parts, may_lack in (
            (frame.state, features.state_parts(self._robot), False),
            (frame.action, features.action_parts(self._robot), True),
        ):
            vector = np.asarray(vector, dtype=np.float32)
            known = np.all(np.isfinite(vector)) or (may_lack and np.all(np.isnan(vector)))
            if vector.shape != (self._robot.size,) or not known:
                raise ValueError(f"state or action is {vector.tolist()}; it must be {self._robot.size} finite numbers")
            values |= {part.feature: vector[part.where] for part in parts}
        if frame.target_m is not None:
            values[features.TARGET] = np.asarray(frame.target_m, dtype=np.float32)
        if frame.intervention is not None:
            values[features.INTERVENTION] = np.array([frame.intervention])
        indices = (
            self.length / self._fps,
            self.length,
            self._episode,
            self._first_index + self.length,
            self._task,
        )
        values |= {name: np.array([i], kind) for (name, kind), i in zip(INDICES.items(), indices, strict=True)}
        return values

    def _encoded_pictures(self, frame: Frame) -> dict[str, bytes]:
        images = {features.image_feature(self._robot, camera): data for camera, data in frame.images.items()}
        return images | {features.depth_feature(self._robot, camera): data for camera, data in frame.depth.items()}


class VideoWriter:
    """Raises ValueError for a frame of odd width or height, which the pixel format does not allow."""

    def __init__(self, path: Path, fps: int, width: int, height: int) -> None:
        if width % 2 or height % 2:
            raise ValueError(f"a video of {width}x{height} pixels: width and height must be even")
        self._container = av.open(str(path), "w", format="mp4")
        self._stream = self._container.add_stream(VIDEO_CODEC, rate=Fraction(fps), options=VIDEO_OPTIONS)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, PIXEL_FORMAT
        self._stream.codec_context.thread_count = 1
        self._period, self._frames = Fraction(1, fps), 0

    def add(self, rgb: np.ndarray) -> None:
        """(H, W, 3) uint8."""
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        frame.pts, frame.time_base = self._frames, self._period
        self._frames += 1
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


def _decode(key: str, data: bytes) -> np.ndarray:
    """(H, W, 3) uint8 RGB, or (H, W, 1) uint16 of depth. Raises ValueError that names the feature."""
    try:
        return decode_depth_mm(data)[..., None] if key.startswith(features.DEPTH) else decode_jpeg(data)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def _video_info(fps: int, width: int, height: int) -> dict[str, object]:
    return {
        "video.height": height,
        "video.width": width,
        "video.codec": "h264",
        "video.pix_fmt": PIXEL_FORMAT,
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
    }


def _arrow_type(feature: Mapping[str, Any]) -> pa.DataType:
    if feature["dtype"] == "image":
        return IMAGE
    kind = pa.bool_() if feature["dtype"] == "bool" else pa.from_numpy_dtype(np.dtype(feature["dtype"]))
    size = feature["shape"][0]
    return kind if size == 1 else pa.list_(kind, size)
