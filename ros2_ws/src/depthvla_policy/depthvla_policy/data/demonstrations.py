"""Demonstrations out of LeRobot datasets, frame by frame, as the policy will see them: the reader of the training.

Numbers are read at once; pictures when a frame is asked for, through the functions of the deployed policy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from depthvla_policy.data.features import (
    IMAGES,
    RECTIFIED_BY,
    TARGET_PROJECTION,
    depth_feature,
    image_feature,
    sources,
)
from depthvla_policy.data.frames import Frames, read_frames
from depthvla_policy.data.images import ImageRows, VideoFrames, check_rows, check_video, decode_depth
from depthvla_policy.data.layout import Layout, read_layout
from depthvla_policy.policy import calibration
from depthvla_policy.policy.calibration import Rectifier
from depthvla_policy.policy.camera_images import EncodedImage, network_image
from depthvla_policy.policy.images import ImageFit
from r1lite_description.robot import Robot


class Demonstrations:
    """Frames of demonstrations, map-style: `demonstrations[i]` is a dict.

    =========== ================================= ======================================================================
    key         type                              meaning
    =========== ================================= ======================================================================
    images      (C, S, S, 3) uint8                RGB, fitted to the square of `fit`
    depth_m     (C, d, d) float32 or None         metres, NaN where unknown; None without depth
    state       (size,) float32                   measured, robot units
    actions     (horizon, size) float32           absolute targets, NaN where unknown; behind the episode's end its last
    instruction str
    episode     int                               number of the episode among all of `folders`
    frame       int                               number of the frame in its episode
    target_m    (3,) float32                      where the named object is, NaN without
    target_px   (2,) float32                      column and row of that in the first camera's fitted image, NaN outside
    =========== ================================= ======================================================================

    lengths: (E,) int64, frames of each episode. instructions: the distinct ones. rectified: the cameras of which images
    are rectified here. sources: "simulation" or "real", and "" for a dataset that does not say. Nothing that is open is
    pickled.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        robot: Robot,
        cameras: Sequence[str],
        *,
        fit: ImageFit,
        depth_size: int,
        horizon: int,
        episodes: Sequence[int] | None = None,
        in_memory: bool = False,
    ) -> None:
        """`depth_size` 0 leaves depth out. `episodes` are numbers among all episodes of `folders`; None takes all.

        With `in_memory` every picture is decoded now, once, and kept (depth as float16); a process forked later shares
        them.

        Raises:
            FileNotFoundError: a folder is no dataset, or a file of it is missing.
            ValueError: a version, rate, feature, shape, camera or episode is not what is wanted, or a file cannot be
                read, is not whole or has other frames than the table has rows; the message names it.
        """
        self._robot, self._fit, self._depth_size, self._horizon = robot, fit, depth_size, horizon
        if horizon < 1 or depth_size < 0:
            raise ValueError(f"horizon is {horizon} and depth_size is {depth_size}; allowed: from 1 and from 0")
        layouts = [read_layout(Path(folder)) for folder in folders]
        if not layouts:
            raise ValueError("no folder of demonstrations was given")
        for layout in layouts:
            _check(layout, robot, cameras)
            _check_files(layout, robot, cameras, depth=depth_size > 0)
        self._images = [image_feature(robot, camera) for camera in cameras]
        self.sources = {source for layout in layouts for source in sources(layout.features)}
        self._rectifiers = [_rectifiers(layout, self._images) for layout in layouts]
        self.rectified = tuple(
            camera
            for camera, feature in zip(cameras, self._images, strict=True)
            if any(feature in rectifiers for rectifiers in self._rectifiers)
        )
        self._depths = [_depth_features(layout, robot, cameras) if depth_size else [] for layout in layouts]
        self.has_depth = any(feature for features in self._depths for feature in features)
        self._layouts = layouts
        parts = [read_frames(layout, robot) for layout in layouts]
        self._frames = _join(parts)
        self._target_px = np.concatenate(
            [_target_px(part, layout, self._images[:1], fit) for part, layout in zip(parts, layouts, strict=True)]
        )
        self._readers: tuple[int, ImageRows, VideoFrames] | None = None
        self._select(range(len(self._frames.length)) if episodes is None else episodes)
        self._pictures = self._decode_all() if in_memory else None

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, i: int) -> dict[str, Any]:
        at = self._index[i]
        episode = int(self._episode[i])
        frame = int(at - self._start[episode])
        images, depth_m = self._picture(i)
        return {
            "images": images,
            "depth_m": depth_m,
            "state": self._frames.state[at],
            "actions": self._frames.action[self._steps(at, episode)],
            "instruction": self._frames.instructions[self._frames.task[at]],
            "episode": episode,
            "frame": frame,
            "target_m": self._frames.target_m[at],
            "target_px": self._target_px[at],
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": None}

    @property
    def instructions(self) -> list[str]:
        """Distinct, in order of appearance."""
        return [self._frames.instructions[task] for task in dict.fromkeys(self._frames.task[self._index].tolist())]

    def states(self) -> np.ndarray:
        """(N, size) float64, measured, robot units."""
        return self._frames.state[self._index].astype(np.float64)

    def chunks(self) -> np.ndarray:
        """(N, horizon, size) float64 absolute actions; behind the end of an episode its last one is repeated."""
        return self._frames.action[self._steps(self._index, self._episode)].astype(np.float64)

    def targets_px(self) -> np.ndarray:
        """(N, 2) float32, `target_px` of every frame."""
        return self._target_px[self._index]

    def subset(self, episodes: Sequence[int]) -> Demonstrations:
        """Some of these episodes, by their position among these (0 is the first); pictures in memory are shared."""
        wrong = [number for number in episodes if not 0 <= number < len(self.episodes)]
        if wrong:
            raise ValueError(f"episodes {wrong} are not among these; allowed: 0 to {len(self.episodes) - 1}")
        part = object.__new__(Demonstrations)
        part.__dict__.update(self.__getstate__())
        part._select([int(self.episodes[number]) for number in episodes])
        return part

    def _select(self, episodes: Sequence[int]) -> None:
        length = self._frames.length
        wrong = [number for number in episodes if not 0 <= number < len(length)]
        if wrong or not len(episodes) or len(set(episodes)) != len(episodes):
            raise ValueError(f"episodes are {list(episodes)}; allowed: distinct ones of 0 to {len(length) - 1}")
        self.episodes = np.array(episodes, dtype=np.int64)
        self.lengths = length[self.episodes]
        self._start = np.cumsum([0, *length])[:-1]
        self._index = np.concatenate([np.arange(length[e]) + self._start[e] for e in self.episodes])
        self._episode = np.repeat(self.episodes, self.lengths)

    def _steps(self, at: np.ndarray, episode: np.ndarray) -> np.ndarray:
        """Rows of the next `horizon` actions of frames, none behind the end of their episodes."""
        last = self._start[episode] + self._frames.length[episode] - 1
        return np.minimum(np.asarray(at)[..., None] + np.arange(self._horizon), np.asarray(last)[..., None])

    def _picture(self, i: int) -> tuple[np.ndarray, np.ndarray | None]:
        if self._pictures is None:
            return self._decode(int(self._index[i]), int(self._episode[i]))
        at = self._pictures.position[self._index[i]]
        depth = self._pictures.depth_m
        return self._pictures.images[at], None if depth is None else depth[at].astype(np.float32)

    def _decode(self, at: int, episode: int) -> tuple[np.ndarray, np.ndarray | None]:
        if self._readers is None or self._readers[0] != os.getpid():  # a fork shares the position in an open file
            self._readers = (os.getpid(), ImageRows(), VideoFrames())
        _, rows, videos = self._readers
        number, local = self._dataset(episode)
        layout = self._layouts[number]
        files, row = layout.episodes[local], int(self._frames.row[at])
        depths = [feature for feature in self._depths[number] if feature]
        stored = [feature for feature in self._images if feature not in files.videos]
        encoded = dict(zip([*stored, *depths], rows.read(files.data, row, [*stored, *depths]), strict=True))
        size = self._fit.size
        images = np.empty((len(self._images), size, size, 3), dtype=np.uint8)
        for camera, feature in enumerate(self._images):
            if span := files.videos.get(feature):
                time_s = span.from_s + (at - self._start[episode]) / layout.fps
                image = videos.read(span.path, time_s, fps=layout.fps)
            else:
                image = EncodedImage(encoded[feature])
            with _naming(files.data, row, feature):
                images[camera] = network_image(image, self._fit, self._rectifiers[number].get(feature))
        if not self.has_depth:
            return images, None
        depth_m = np.full((len(images), self._depth_size, self._depth_size), np.nan, dtype=np.float32)
        for camera, feature in enumerate(self._depths[number]):
            if feature:
                with _naming(files.data, row, feature):
                    depth_m[camera] = self._fit.apply_depth(decode_depth(encoded[feature]), self._depth_size)
        return images, depth_m

    def _decode_all(self) -> _Pictures:
        """In the order of the files, whatever the order of the episodes."""
        size, cameras, frames = self._fit.size, len(self._images), len(self._index)
        images = np.empty((frames, cameras, size, size, 3), dtype=np.uint8)
        shape = (frames, cameras, self._depth_size, self._depth_size)
        depth = np.empty(shape, dtype=np.float16) if self.has_depth else None
        position = np.full(len(self._frames.row), -1, dtype=np.int64)
        with tqdm(np.argsort(self._index), desc="decoding", unit="frame", mininterval=1.0) as order:
            for row, i in enumerate(order):
                images[row], depth_m = self._decode(int(self._index[i]), int(self._episode[i]))
                if depth is not None:
                    depth[row] = depth_m
                position[self._index[i]] = row
        self._readers = None
        return _Pictures(images, depth, position)

    def _dataset(self, episode: int) -> tuple[int, int]:
        """Which dataset an episode is of, and its number there."""
        for number, layout in enumerate(self._layouts):
            if episode < len(layout.episodes):
                return number, episode
            episode -= len(layout.episodes)
        raise IndexError(episode)


def split(demonstrations: Demonstrations, held_out_share: float) -> tuple[Demonstrations, Demonstrations]:
    """The first episodes for training and the last ones, at least one, for validation.

    Raises:
        ValueError: the share is not between 0 and 1, or one of the two would be empty.
    """
    total = len(demonstrations.episodes)
    count = max(1, round(total * held_out_share))
    if not 0 <= held_out_share < 1 or count >= total:
        raise ValueError(f"held_out_share is {held_out_share} of {total} episodes; both parts need one at least")
    return demonstrations.subset(range(total - count)), demonstrations.subset(range(total - count, total))


@dataclass(frozen=True)
class _Pictures:
    images: np.ndarray  # (P, C, S, S, 3) uint8
    depth_m: np.ndarray | None  # (P, C, d, d) float16
    position: np.ndarray  # frame -> row of these, -1 for what is not here


def _check(layout: Layout, robot: Robot, cameras: Sequence[str]) -> None:
    if layout.fps != robot.control_rate_hz:
        raise ValueError(
            f"{layout.folder} has {layout.fps:g} frames a second; robot {robot.name!r} is controlled at"
            f" {robot.control_rate_hz:g} Hz, and frames are not resampled"
        )
    for camera in cameras:
        feature = layout.features.get(image_feature(robot, camera))
        if feature is None:
            images = sorted(name for name in layout.features if name.startswith(IMAGES))
            raise ValueError(f"{layout.folder} has no {image_feature(robot, camera)}; it has {images}")
        if feature["dtype"] not in ("image", "video"):
            raise ValueError(f"{layout.folder}: {image_feature(robot, camera)} has dtype {feature['dtype']!r}")


def _check_files(layout: Layout, robot: Robot, cameras: Sequence[str], *, depth: bool) -> None:
    """That every file with pictures is there, whole and has a frame for each row; none is decoded."""
    images = [image_feature(robot, camera) for camera in cameras]
    stored = [feature for feature in images if layout.features[feature]["dtype"] == "image"]
    stored += [feature for feature in _depth_features(layout, robot, cameras) if feature] if depth else []
    spans: dict[Path, list[tuple[float, int]]] = {}
    for episode in layout.episodes:
        for feature in images:
            if span := episode.videos.get(feature):
                spans.setdefault(span.path, []).append((span.from_s, episode.length))
    rows = sorted({episode.data for episode in layout.episodes}) if stored else []
    with tqdm(total=len(rows) + len(spans), desc=f"checking {layout.folder}", unit="file", delay=2.0) as progress:
        for path in rows:
            check_rows(path, stored)
            progress.update()
        for path, parts in spans.items():
            frames = max(round(from_s * layout.fps) + length for from_s, length in parts)
            # A file of many episodes may hold some that are no longer described.
            check_video(path, frames, fps=layout.fps, exactly=len(parts) == 1 and parts[0][0] == 0)
            progress.update()


@contextmanager
def _naming(path: Path, row: int, feature: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}, row {row}, {feature}: {error}") from error


def _rectifiers(layout: Layout, images: Sequence[str]) -> dict[str, Rectifier]:
    """Image feature -> what rectifies it, for those that are to be."""
    described = {feature: (layout.features[feature].get("info") or {}).get(RECTIFIED_BY) for feature in images}
    try:
        return {feature: Rectifier(calibration.parse(raw)) for feature, raw in described.items() if raw}
    except ValueError as error:
        raise ValueError(f"{layout.folder}: {RECTIFIED_BY}: {error}") from error


def _target_px(frames: Frames, layout: Layout, first: Sequence[str], fit: ImageFit) -> np.ndarray:
    """(M, 2) `target_px` of a dataset. first: the feature of the first camera's images, if any."""
    nowhere = np.full((len(frames.target_m), 2), np.nan, dtype=np.float32)
    feature = layout.features[first[0]] if first else {}
    projection = (feature.get("info") or {}).get(TARGET_PROJECTION)
    if projection is None:
        return nowhere
    height, width = feature["shape"][:2]
    to_square = fit.camera_matrix(np.eye(3), width, height, fit.size)
    seen = np.append(frames.target_m, np.ones((len(frames.target_m), 1)), axis=1) @ (to_square @ projection).T
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = (seen[:, :2] / seen[:, 2:]).astype(np.float32)
        inside = (seen[:, 2] > 0) & ((pixels > -0.5) & (pixels < fit.size - 0.5)).all(axis=1)
    return np.where(inside[:, None], pixels, nowhere)


def _depth_features(layout: Layout, robot: Robot, cameras: Sequence[str]) -> list[str | None]:
    """For each camera the feature with its depth, None where the dataset has none."""
    features = [depth_feature(robot, camera) for camera in cameras]
    for feature in features:
        if feature in layout.features and layout.features[feature]["dtype"] != "image":
            dtype = layout.features[feature]["dtype"]
            raise ValueError(f"{layout.folder}: {feature} has dtype {dtype!r}; allowed: 'image', 16-bit PNG")
    return [feature if feature in layout.features else None for feature in features]


def _join(parts: Sequence[Frames]) -> Frames:
    instructions = tuple(dict.fromkeys(text for part in parts for text in part.instructions))
    numbers = [np.array([instructions.index(text) for text in part.instructions]) for part in parts]
    return Frames(
        state=np.concatenate([part.state for part in parts]),
        action=np.concatenate([part.action for part in parts]),
        target_m=np.concatenate([part.target_m for part in parts]),
        task=np.concatenate([number[part.task] for number, part in zip(numbers, parts, strict=True)]),
        row=np.concatenate([part.row for part in parts]),
        length=np.concatenate([part.length for part in parts]),
        instructions=instructions,
    )
